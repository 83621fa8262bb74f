"""A document once it has been read: one text, and where its parts lie in it."""

from dataclasses import dataclass
from enum import StrEnum


class BlockKind(StrEnum):
    """What a stretch of text is, as far as it matters for cutting it."""

    HEADING = "heading"
    PARAGRAPH = "paragraph"
    LIST = "list"
    TABLE = "table"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Block:
    """One part of the text; offsets are code points, `level` (1 is the highest) is set on headings only."""

    kind: BlockKind
    start: int
    end: int
    level: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """One page, slide or sheet, counted from 1, and its stretch of the text in code points."""

    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """The text of a document with its structure; blocks and pages stand in order and never overlap.

    `language` is the programming language of source code, otherwise None. `title` is what the document
    calls itself, empty when it does not.
    """

    text: str
    media_type: str
    title: str = ""
    blocks: tuple[Block, ...] = ()
    pages: tuple[Page, ...] = ()
    language: str | None = None
