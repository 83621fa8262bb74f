"""From bytes to text: which character encoding, and whether it is text at all."""

import codecs
import re

from charset_normalizer import from_bytes

from loremesh_ingestion.errors import EncodingUnknown

_SAMPLE = 1 << 16  # bytes
_MARKS = (  # the longer marks first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# What people wrote text in before UTF-8. Without this list the detector prefers rare Mac and JIS tables for Thai.
_LEGACY = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp874", "koi8_r"),
    *("cp932", "euc_jp", "iso2022_jp", "gb18030", "big5", "cp949"),
]
_MESS = (0.2, 0.4)  # how odd the text may look: at first as usual, then as texts full of rulers and symbols do
_CONTROLS = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f]")
_HIGH = re.compile(rb"[\x80-\xff]")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([A-Za-z0-9_.:-]+)", re.IGNORECASE)
_TOO_MANY_CONTROLS = 0.02  # of the bytes of a text; a stray NUL is forgiven, a picture is not
_FORGIVEN = 3
_DAMAGE = 0.02  # of the bytes beyond ASCII; UTF-8 with less is read with replacement characters


def decode(data: bytes, *, declared_media_type: str = "") -> str | None:
    """Return `data` as text without byte order mark, None when it is no text; raises EncodingUnknown.

    A mark decides, then UTF-8, then what was declared, then what the bytes look like.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _strict(data[len(mark) :], encoding)
    if wide := _wide_encoding(data):
        return _strict(data, wide)
    if _is_binary(data):
        return None
    declared = declared_charset(declared_media_type)
    for encoding, errors in (("utf-8", "strict"), ("utf-8", "surrogatepass"), (declared, "strict")):
        if (text := _try(data, encoding, errors)) is not None:
            return text
    return _detected(data)


def declared_charset(media_type: str) -> str:
    """Return the charset parameter of a media type (or of an HTML meta element), empty when there is none."""
    found = _CHARSET.search(media_type)
    return found[1] if found else ""


def _strict(data: bytes, encoding: str) -> str:
    text = _try(data, encoding, errors="surrogatepass")
    if text is None:
        raise EncodingUnknown
    return text


def _try(data: bytes, encoding: str, errors: str = "strict") -> str | None:
    try:
        return data.decode(encoding, errors) if encoding else None
    except (UnicodeDecodeError, LookupError):
        return None


def _wide_encoding(data: bytes) -> str:
    """Return the UTF-16 that `data` seems to be: one half of each pair is mostly NUL, the other hardly ever."""
    sample = data[:_SAMPLE]
    half = len(sample) // 2
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if len(data) % 2 or half == 0:
        return ""
    if odd > half / 4 and even * 20 < odd:
        return "utf-16-le"
    return "utf-16-be" if even > half / 4 and odd * 20 < even else ""


def _is_binary(data: bytes) -> bool:
    sample = data[:_SAMPLE]
    return len(_CONTROLS.findall(sample)) > max(_FORGIVEN, _TOO_MANY_CONTROLS * len(sample))


def _detected(data: bytes) -> str:
    sample = data[:_SAMPLE]
    damage = sample.decode("utf-8", "replace").count("\ufffd")
    if damage <= _DAMAGE * len(_HIGH.findall(sample)):
        return data.decode("utf-8", "replace")
    for mess in _MESS:
        if best := from_bytes(sample, cp_isolation=_LEGACY, threshold=mess).best():
            return data.decode(best.encoding, "replace")
    raise EncodingUnknown
