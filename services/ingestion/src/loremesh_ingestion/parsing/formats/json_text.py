"""JSON and JSON Lines, laid out so that every member of the outermost value is a block."""

import json
import re

from loremesh_ingestion.domain.parsed import Block, BlockKind, ParsedDocument
from loremesh_ingestion.domain.text import clean
from loremesh_ingestion.parsing.media_types import JSON, Format

_LARGEST = 1 << 22  # characters; anything larger stays laid out as it is, since laying it out takes a second each MiB
_MEMBER = re.compile(r"^  (?=[^ \]}])", re.MULTILINE)  # a line two spaces in, and not a closing bracket
_LINE = re.compile(r"^(?=\S)", re.MULTILINE)
_FEWEST_LINES = 2


def is_json(text: str) -> bool:
    """Whether `text` is one JSON object or array; where it is too large to say, whether it looks like one."""
    body = text.strip()
    return body[:1] + body[-1:] in ("{}", "[]") and (len(body) > _LARGEST or _loads(body))


def is_json_lines(text: str) -> bool:
    """Whether the first two lines of `text` are JSON objects or arrays."""
    if not text.startswith(("{", "[")):
        return False
    first = text.split("\n", _FEWEST_LINES)[:_FEWEST_LINES]
    return len(first) == _FEWEST_LINES and all(is_json(line) for line in first)


def _loads(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def read(text: str, kind: Format) -> ParsedDocument:
    """Return a JSON value laid out anew, one line for each scalar, and JSON Lines or large values as they are."""
    starts: list[int] = []
    if kind.media_type != JSON:
        starts = [match.start() for match in _LINE.finditer(text)]
    elif len(text) <= _LARGEST and is_json(text):
        text = clean(json.dumps(json.loads(text), ensure_ascii=False, indent=2))
        starts = [match.start() for match in _MEMBER.finditer(text)]
    blocks = (
        Block(BlockKind.CODE, start, start + len(text[start:end].rstrip()))
        for start, end in zip(starts, [*starts[1:], len(text)], strict=False)
    )
    return ParsedDocument(text=text, media_type=kind.media_type, blocks=tuple(blocks))
