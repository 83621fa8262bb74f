"""What a document is, told from its content; its name only breaks ties that content leaves."""

import re
from pathlib import Path

from loremesh_ingestion.domain.chunking.code import parser_for
from loremesh_ingestion.errors import PasswordProtected, UnsupportedMediaType
from loremesh_ingestion.parsing import archive, classifier
from loremesh_ingestion.parsing.formats.delimited import delimiter_of
from loremesh_ingestion.parsing.formats.json_text import is_json, is_json_lines
from loremesh_ingestion.parsing.formats.mail import is_email
from loremesh_ingestion.parsing.media_types import (
    CSV,
    EMAIL,
    HTML,
    JSON,
    JSON_LINES,
    LANGUAGES,
    MARKDOWN,
    OFFICE_PARTS,
    PDF,
    PLAIN,
    TSV,
    Format,
    hint,
)

_HEAD = 4096  # bytes or characters that are enough to tell
_ZIP, _OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_OFFICE = "EncryptedPackage".encode("utf-16-le")
_HTML_START = re.compile(
    r"\s*+(?:<\?xml[^>]*>\s*)?(?:(?><!--.*?-->)\s*)*+<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL
)
_HTML_ELEMENT = re.compile(r"<(?:p|div|h[1-6]|table|ul|ol|span|a|br|article|section)\b[^>]*>", re.IGNORECASE)
_HEADING = re.compile(r"^#{1,6} \S", re.MULTILINE)
_CODE_MARKS = re.compile(r"[{}\[\]();=<>\\$#@_|&*]")
_MOST_CODE_MARKS = 0.03  # of the characters of prose
_NOT_LETTER = re.compile(r"[!-@\[-`{-~]")
_MOST_NOT_LETTERS = 0.15  # of the characters of prose
_CONFIRMED = frozenset({"csv", "tsv", "json", "jsonl", "eml"})  # labels that say nothing their own signs do not
_SYNTAX_SAMPLE = 1 << 15
_MOST_ERRORS = 0.1  # of source code's characters


def binary_format(path: Path) -> Format | None:
    """Return the format of a file told by its first bytes, None when it may be text.

    Raises PasswordProtected, ParseLimit, DocumentCorrupt or UnsupportedMediaType for archives.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head.lstrip().startswith(b"%PDF-"):
        return Format(PDF)
    if head.startswith(_OLE):
        raise PasswordProtected if _ENCRYPTED_OFFICE in path.read_bytes() else UnsupportedMediaType("application/x-cfb")
    if not head.startswith(_ZIP):
        return None
    entries = set(archive.names(path))
    for part, media_type in OFFICE_PARTS.items():
        if part in entries:
            return Format(media_type)
    unsupported = "application/zip"
    raise UnsupportedMediaType(unsupported)


def text_format(text: str, *, filename: str, declared_media_type: str) -> Format:
    """Return the format of what is known to be text.

    What has signs of its own (HTML, e-mail, JSON) is known by them. A hint is believed when the content agrees.
    Prose is told from code by its letters, and only what is neither is put to the classifier, which takes 15 ms.
    """
    hinted = hint(filename, declared_media_type)
    if marked := _marked(text, hinted):
        return marked
    if hinted and _agrees(text, hinted):
        return hinted
    return _prose(text) or _classified(text)


def _marked(text: str, hinted: Format | None) -> Format | None:
    if _HTML_START.match(text, 0, _HEAD) or (hinted == Format(HTML) and _HTML_ELEMENT.search(text, 0, _HEAD)):
        return Format(HTML)
    if is_email(text):
        return Format(EMAIL)
    if is_json_lines(text):
        return Format(JSON_LINES)
    return Format(JSON) if is_json(text) else None


def _agrees(text: str, hinted: Format) -> bool:
    if hinted.language:
        return _parses(text, hinted.language)
    if hinted.media_type in (CSV, TSV):
        return delimiter_of(text) is not None
    return hinted.media_type == MARKDOWN


def _parses(text: str, language: str) -> bool:
    """Whether a grammar makes sense of `text`: prose in a file called .py is mostly errors."""
    parser = parser_for(language)
    if parser is None:
        return True
    data = text[:_SYNTAX_SAMPLE].encode()
    wrong, waiting = 0, [parser.parse(data).root_node]
    while waiting:
        node = waiting.pop()
        if node.is_error:
            wrong += node.end_byte - node.start_byte
        elif node.has_error:
            waiting.extend(node.children)
    return wrong <= _MOST_ERRORS * len(data)


def _prose(text: str) -> Format | None:
    """Return plain text when the letters say so and no line begins as a heading, which may as well be a comment."""
    sample = text[:_HEAD]
    marked = len(_CODE_MARKS.findall(sample)) > _MOST_CODE_MARKS * len(sample)
    lettered = len(_NOT_LETTER.findall(sample)) <= _MOST_NOT_LETTERS * len(sample)
    return Format(PLAIN) if lettered and not marked and not _HEADING.search(sample) else None


def _classified(text: str) -> Format:
    label, media_type, is_code = classifier.classify(text)
    if label in LANGUAGES:
        return Format(LANGUAGES[label], label)
    if label == "markdown":
        return Format(MARKDOWN)
    if label == "html":
        return Format(HTML)
    if label in ("csv", "tsv") and delimiter_of(text) is not None:
        return Format(TSV if label == "tsv" else CSV)
    return Format(media_type, label) if is_code and label not in _CONFIRMED else Format(PLAIN)
