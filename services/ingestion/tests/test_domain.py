import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loremesh_ingestion.domain import landmarks, objects
from loremesh_ingestion.domain.attributes import cleaned
from loremesh_ingestion.domain.disposition import content_disposition
from loremesh_ingestion.domain.upload import media_type
from loremesh_ingestion.domain.version import BATCH_SIZE, batch_count, batch_range, chunk_id

pytestmark = pytest.mark.unit


def test_nul_and_lone_surrogates_are_dropped_from_names_and_values():
    assert cleaned({"a\x00b": ["x\ud800y", {"z\x00": "\x00"}]}) == {"ab": ["xy", {"z": ""}]}


@given(st.text(alphabet=st.sampled_from("aä€🙂\n\r"), max_size=400), st.data())
def test_any_span_is_found_by_its_landmarks(text, data):
    stride, landmarks.STRIDE = landmarks.STRIDE, 16
    try:
        offsets, count = landmarks.landmarks(text[at : at + 16] for at in range(0, len(text), 16))
        assert count == len(text)
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, len(text)))
        if start < end:
            where = landmarks.stretch(offsets, start, end)
            stop = None if where.last is None else where.last + 1
            read = text.encode()[where.first : stop].decode()
            assert read[where.skip : where.skip + where.take] == text[start:end]
            assert len(read) <= end - start + 2 * 16
    finally:
        landmarks.STRIDE = stride


@given(st.text(max_size=40))
def test_a_download_s_name_is_a_header_whatever_the_name(filename):
    header = content_disposition(filename)
    assert header.isascii()
    assert header.isprintable()
    assert not re.search(r'"[^"]*"[^;]*"', header)
    assert unquote(header.rpartition("''")[2]) == (filename or "document")


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("text/html; charset=utf-8", "text/html"),
        ("TEXT/Plain", "text/plain"),
        ("", "application/octet-stream"),
        ("text/html\r\nset-cookie: a=b", "application/octet-stream"),
        ("text/" + "x" * 200, "application/octet-stream"),
    ],
)
def test_only_a_media_type_is_taken_for_one(content_type, expected):
    assert media_type(content_type) == expected


def test_chunk_ids_say_where_a_chunk_stands():
    place = {"tenant": "a", "vector_store_id": "s", "generation": 1, "document_id": "d", "version": 1, "index": 0}
    assert chunk_id(**place) == chunk_id(**place)
    others = [
        {**place, key: value} for key, value in [("tenant", "b"), ("generation", 2), ("version", 2), ("index", 1)]
    ]
    assert len({chunk_id(**place), *(chunk_id(**other) for other in others)}) == 5


def test_a_tenant_cannot_reach_into_another_ones_objects():
    assert not objects.prefix(tenant="a/b", document_id="d").startswith(objects.prefix(tenant="a", document_id="b"))
    assert objects.upload_key(tenant="a", document_id="d", upload_id="u") == "a/d/u"


@given(st.integers(1, 10_000))
def test_batches_cover_every_chunk_once(chunk_count):
    batches = [batch_range(batch) for batch in range(batch_count(chunk_count))]
    positions = [position for batch in batches for position in batch if position < chunk_count]
    assert positions == list(range(chunk_count))
    assert all(len(batch) == BATCH_SIZE for batch in batches)
