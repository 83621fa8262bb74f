"""Bytes become text in the right encoding, or say that they cannot."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loremesh_ingestion.domain.text import clean
from loremesh_ingestion.errors import DocumentEmpty, EncodingUnknown, UnsupportedMediaType
from loremesh_ingestion.parsing.encodings import decode

pytestmark = pytest.mark.unit

THAI = "ประเทศไทยเป็นประเทศที่ตั้งอยู่ในเอเชียตะวันออกเฉียงใต้ มีพรมแดนติดกับประเทศลาวและกัมพูชา"
FRENCH = "Le château était situé près de la forêt. Les élèves ont préféré étudier à l'extérieur."
EMOJI = "Family 👩‍👩‍👧‍👦 and flag 🇹🇭, café e\u0301."


@pytest.mark.parametrize("text", [THAI, FRENCH, EMOJI])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_unicode_is_read_exactly_with_and_without_a_mark(read, text, encoding):
    assert read(text.encode(encoding)).text == text


def test_utf16_is_known_without_its_mark(read):
    assert read(FRENCH.encode("utf-16-le")).text == FRENCH
    assert read(FRENCH.encode("utf-16-be")).text == FRENCH


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (FRENCH, "latin-1"),
        (THAI, "tis-620"),
        ("สวัสดีครับ วันนี้อากาศดีมาก เราไปเที่ยวทะเลกัน", "cp874"),
        ("Привет, как дела? Это простой текст на русском языке.", "cp1251"),
        ("日本語の文章です。これはテストです。", "shift_jis"),
        ("这是一个中文句子，用来测试编码检测。", "gb18030"),
    ],
)
def test_legacy_encodings_are_told_from_their_bytes(read, text, encoding):
    assert read(text.encode(encoding)).text == text


def test_a_declared_encoding_is_believed_when_it_fits(read):
    polish = "Zażółć gęślą jaźń"
    assert read(polish.encode("iso8859-2"), declared="text/plain; charset=ISO-8859-2").text == polish
    assert read(THAI.encode(), declared="text/plain; charset=latin-1").text == THAI


def test_a_page_states_its_encoding_itself(read):
    page = f'<html><head><meta charset="tis-620"></head><body><p>{THAI}</p></body></html>'
    assert read(page.encode("tis-620")).text == THAI


def test_nul_and_lone_surrogates_are_dropped(read):
    assert read(b"one\x00 two\xed\xa0\x80 three, and some more words to tell").text == (
        "one two three, and some more words to tell"
    )


def test_one_damaged_character_does_not_change_the_encoding(read):
    data = (THAI * 3).encode()
    assert read(data[:-1]).text.startswith(THAI * 2)


def test_a_mark_that_lies_is_an_unknown_encoding(read):
    with pytest.raises(EncodingUnknown):
        read(b"\xff\xfe" + b"odd")


def test_high_bytes_of_no_encoding_are_an_unknown_encoding(read):
    noise = bytes(byte for byte in os.urandom(20_000) if byte >= 0x80 or byte in b"\n ")
    with pytest.raises(EncodingUnknown):
        read(noise)


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(32)) * 40, "image/png"),
        (b"\x7fELF\x02\x01\x01" + bytes(3000), "application/octet-stream"),
        (bytes(5000), "application/octet-stream"),
    ],
)
def test_binary_content_is_refused_whatever_its_name(read, data, media_type):
    with pytest.raises(UnsupportedMediaType) as raised:
        read(data, "notes.txt", "text/plain")
    assert raised.value.metadata["media_type"].startswith(media_type.split("/")[0])


@pytest.mark.parametrize("data", [b"", b" \n\t\r\n ", b"\xef\xbb\xbf", "\u3000\u2003".encode(), b"\xff\xfe"])
def test_nothing_but_white_space_is_empty(read, data):
    with pytest.raises(DocumentEmpty):
        read(data)


def test_lines_end_alike_and_vast_white_space_shrinks():
    assert clean("a\r\nb\rc\x0bd\x85e") == "a\nb\nc\nd\ne"
    assert clean(f"a{' ' * 1000}b{chr(10) * 1000}c") == "a b\n\nc"
    assert clean("a" + " " * 100 + "b") == "a" + " " * 100 + "b"


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_text_or_refused(data: bytes) -> None:
    try:
        text = decode(data)
    except EncodingUnknown:
        return
    assert text is None or clean(text).encode().decode() == clean(text)
