"""Markdown: the text as it stands, its blocks found by a CommonMark parser."""

import re
from collections.abc import Iterator
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.token import Token

from loremesh_ingestion.domain.parsed import Block, BlockKind, ParsedDocument
from loremesh_ingestion.parsing.media_types import Format

_SEGMENT = 1 << 20  # characters parsed at a time: the parser keeps about half a kilobyte per line
_KINDS = {
    "heading_open": BlockKind.HEADING,
    "paragraph_open": BlockKind.PARAGRAPH,
    "blockquote_open": BlockKind.PARAGRAPH,
    "html_block": BlockKind.PARAGRAPH,
    "bullet_list_open": BlockKind.LIST,
    "ordered_list_open": BlockKind.LIST,
    "table_open": BlockKind.TABLE,
    "fence": BlockKind.CODE,
    "code_block": BlockKind.CODE,
}
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(?P<fields>.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_FRONT_TITLE = re.compile(r"^title:[ \t]*(?P<quote>[\"']?)(?P<title>.+?)(?P=quote)[ \t]*$", re.MULTILINE)
_SEGMENT_START = re.compile(r"\n\n(?=#{1,6} )")
_FENCE = re.compile(r"^ {0,3}(?:```|~~~)", re.MULTILINE)
_HEADING_MARKS = re.compile(r"\A#+[ \t]*|[ \t]+#+[ \t]*\Z|\n[=-]+[ \t]*\Z")


def read(text: str, kind: Format, *, title: str = "") -> ParsedDocument:
    """Return `text` with its blocks; the title is the front matter's or the first highest heading, unless given."""
    front = _FRONT_MATTER.match(text)
    blocks = [Block(BlockKind.CODE, 0, len(front[0].rstrip()))] if front else []
    for start, end in _segments(text, front.end() if front else 0):
        blocks.extend(_blocks(text[start:end], start))
    return ParsedDocument(
        text=text,
        media_type=kind.media_type,
        title=title or (_front_title(front["fields"]) if front else "") or _first_heading(text, blocks),
        blocks=tuple(blocks),
    )


def _segments(text: str, start: int) -> Iterator[tuple[int, int]]:
    """Yield stretches that can be parsed by themselves: they begin at headings which stand in no code block."""
    begin = counted = start
    fences = 0
    for found in _SEGMENT_START.finditer(text, start) if len(text) - start > _SEGMENT else ():
        if found.end() - begin > _SEGMENT:
            fences += len(_FENCE.findall(text, counted, found.end()))
            counted = found.end()
            if fences % 2 == 0:
                yield begin, counted
                begin = counted
    yield begin, len(text)


def _blocks(text: str, offset: int) -> Iterator[Block]:
    line_starts = [0, *(match.end() for match in re.finditer("\n", text)), len(text)]
    for token in _parser().parse(text):
        kind = _KINDS.get(token.type)
        if kind is None or token.level or token.map is None:
            continue
        start, end = (line_starts[min(line, len(line_starts) - 1)] for line in token.map)
        end = start + len(text[start:end].rstrip())
        if start < end:
            yield Block(kind, offset + start, offset + end, _level(token))


@cache
def _parser() -> MarkdownIt:
    # Only where blocks lie is asked for: parsing what is inside them would take five times as long.
    return MarkdownIt("commonmark").enable("table").disable("inline")


def _level(token: Token) -> int:
    return int(token.tag[1:]) if token.type == "heading_open" else 0


def _front_title(fields: str) -> str:
    found = _FRONT_TITLE.search(fields)
    return found["title"].strip() if found else ""


def _first_heading(text: str, blocks: list[Block]) -> str:
    for block in blocks:
        if block.kind is BlockKind.HEADING and block.level == 1:
            return " ".join(_HEADING_MARKS.sub("", text[block.start : block.end].strip()).split())
    return ""
