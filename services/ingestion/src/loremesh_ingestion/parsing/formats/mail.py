"""E-mail messages: the headers people read, then the body, plain where there is a choice."""

import email
import re
from email.message import MIMEPart
from email.policy import default

from loremesh_ingestion.domain.parsed import BlockKind, ParsedDocument
from loremesh_ingestion.errors import DocumentEmpty, ParseLimit
from loremesh_ingestion.parsing.builder import DocumentBuilder
from loremesh_ingestion.parsing.media_types import EMAIL, HTML, Format

_HEAD = 1 << 16  # characters within which the headers must end
_FIELD = re.compile(r"[A-Za-z][A-Za-z0-9-]*:|[ \t]+\S|From \S+@")
_TELLING = re.compile(
    r"^(from|to|subject|date|message-id|received|mime-version|return-path|delivered-to):", re.IGNORECASE | re.MULTILINE
)
_SENT = re.compile(r"^(from|received|return-path|message-id):", re.IGNORECASE | re.MULTILINE)
_FEWEST_FIELDS = 2
_DEPTH = 16  # parts within parts
_LONGEST_FIELD = 1 << 13  # characters; the library's time to take a header apart grows with the square of its length
_SHOWN = ("From", "To", "Cc", "Date", "Subject")


def is_email(text: str) -> bool:
    """Whether `text` begins with the headers of a message, and with nothing else."""
    head = text[:_HEAD].partition("\n\n")[0]
    if not _FIELD.match(head) or not _SENT.search(head):
        return False
    known = {match[1].lower() for match in _TELLING.finditer(head)}
    return len(known) >= _FEWEST_FIELDS and all(_FIELD.match(line) for line in head.split("\n"))


def read(data: bytes) -> ParsedDocument:
    """Return a message's headers, bodies and the names of what is attached; forwarded messages follow their parent."""
    message = email.message_from_bytes(data, policy=default)
    for part in message.walk():
        for name in [name for name, value in part.raw_items() if len(str(value)) > _LONGEST_FIELD]:
            del part[name]
    builder = DocumentBuilder()
    _add_message(builder, message, 0)
    return builder.build(media_type=EMAIL, title=_header(message, "Subject"))


def _add_message(builder: DocumentBuilder, message: MIMEPart, depth: int) -> None:
    fields = [f"{name}: {value}" for name in _SHOWN if (value := _header(message, name))]
    builder.add(BlockKind.PARAGRAPH, "\n".join(fields))
    _add(builder, message, depth)


def _add(builder: DocumentBuilder, part: MIMEPart, depth: int) -> None:
    if depth > _DEPTH:
        limit = "depth"
        raise ParseLimit(limit)
    if part.get_content_type() == EMAIL:
        for forwarded in part.iter_parts():
            _add_message(builder, forwarded, depth + 1)
    elif part.get_content_type() == "multipart/alternative" and (body := part.get_body(("plain", "html"))):
        _add_body(builder, body)
    elif part.is_multipart():
        for inner in part.iter_parts():
            _add(builder, inner, depth + 1)
    elif name := part.get_filename():
        builder.add(BlockKind.PARAGRAPH, f"Attachment: {name} ({part.get_content_type()})")
    elif part.get_content_maintype() == "text":
        _add_body(builder, part)


def _add_body(builder: DocumentBuilder, body: MIMEPart) -> None:
    content = _content(body)
    if body.get_content_subtype() == "html" and content.strip():
        from loremesh_ingestion.parsing.formats import web  # most mail is read without it

        try:
            content = web.read(content, Format(HTML)).text
        except DocumentEmpty:
            return
    for paragraph in re.split(r"\n[ \t]*\n", content.replace("\r\n", "\n")):
        builder.add(BlockKind.PARAGRAPH, paragraph)


def _content(body: MIMEPart) -> str:
    try:
        return str(body.get_content())
    except (LookupError, UnicodeError):  # an unknown or wrong charset: what is ASCII in it can still be read
        payload = body.get_payload(decode=True)
        return payload.decode("utf-8", "replace") if isinstance(payload, bytes) else ""


def _header(message: MIMEPart, name: str) -> str:
    try:
        return " ".join(str(message.get(name, "")).split())
    except (ValueError, IndexError, AttributeError, TypeError):  # the header parser gives up on some malformed ones
        return ""
