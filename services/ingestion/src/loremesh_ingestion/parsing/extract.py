"""From a file to a parsed document: finds out what it is and has it read."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import cast

from loremesh_kit.errors import ServiceError

from loremesh_ingestion.domain.parsed import ParsedDocument
from loremesh_ingestion.domain.text import clean
from loremesh_ingestion.errors import DocumentCorrupt, DocumentEmpty, ParseLimit, UnsupportedMediaType
from loremesh_ingestion.parsing import classifier, detect, media_types
from loremesh_ingestion.parsing.builder import LARGEST_TEXT
from loremesh_ingestion.parsing.encodings import declared_charset, decode

# Media type to the module in `formats` that reads it. They are imported when needed: together they cost two seconds.
_BINARY = {
    media_types.PDF: "pdf",
    media_types.DOCX: "word",
    media_types.PPTX: "slides",
    media_types.XLSX: "sheets",
}
_TEXT = {
    media_types.MARKDOWN: "markdown",
    media_types.HTML: "web",
    media_types.CSV: "delimited",
    media_types.TSV: "delimited",
    media_types.JSON: "json_text",
    media_types.JSON_LINES: "json_text",
}
_LONGEST_TITLE = 500  # characters
_META_CHARSET = 2048  # bytes within which HTML must state its encoding


def extract(path: Path, *, filename: str, declared_media_type: str) -> ParsedDocument:
    """Read the file at `path`; raises a DocumentUnreadable. `filename` and `declared_media_type` are but hints."""
    kind = detect.binary_format(path)
    if kind is not None:
        document = _read(_BINARY[kind.media_type], path)
    else:
        document = _text(path.read_bytes(), filename, declared_media_type)
    if not document.text.strip():
        raise DocumentEmpty
    if len(document.text) > LARGEST_TEXT:
        limit = "text"
        raise ParseLimit(limit)
    return replace(document, title=" ".join(clean(document.title).split())[:_LONGEST_TITLE])


def _text(data: bytes, filename: str, declared_media_type: str) -> ParsedDocument:
    if not data.strip():
        raise DocumentEmpty
    text = decode(data, declared_media_type=_declaration(data, declared_media_type))
    if text is None:
        raise UnsupportedMediaType(classifier.media_type_of(data))
    text = clean(text)
    if not text.strip():
        raise DocumentEmpty
    kind = detect.text_format(text, filename=filename, declared_media_type=declared_media_type)
    if kind.media_type == media_types.EMAIL:
        return _read("mail", data)  # its parts have encodings of their own
    return _read(_TEXT.get(kind.media_type, "plain"), text, kind)


def _read(reader: str, *source: object) -> ParsedDocument:
    """Have a format's module read. Whatever its library stumbles over, the file is to blame: it took the file apart."""
    module = import_module(f"{__package__}.formats.{reader}")
    try:
        return cast("ParsedDocument", module.read(*source))
    except (ServiceError, MemoryError, RecursionError):
        raise
    except Exception as error:
        message = "The document is damaged or incomplete."
        raise DocumentCorrupt(message) from error


def _declaration(data: bytes, declared_media_type: str) -> str:
    """Return where the encoding is declared: in the media type, or by the HTML page itself."""
    head = data[:_META_CHARSET]
    if declared_charset(declared_media_type) or b"<meta" not in head.lower():
        return declared_media_type
    return head.decode("ascii", "ignore")
