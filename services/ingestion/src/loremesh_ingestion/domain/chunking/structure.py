"""Cutting along headings, tables, lists and code blocks."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from loremesh_ingestion.domain.chunking.tokens import TokenMap
from loremesh_ingestion.domain.chunking.units import LINES, PROSE, Divide, Unit, divide, lines
from loremesh_ingestion.domain.parsed import Block, BlockKind
from loremesh_ingestion.domain.text import trim

_PARTS: dict[BlockKind, Sequence[Divide]] = {
    BlockKind.HEADING: PROSE,
    BlockKind.PARAGRAPH: PROSE,
    BlockKind.LIST: (lines, *PROSE),
    BlockKind.TABLE: (lines,),
    BlockKind.CODE: LINES,
}
_HEADING_MARKS = re.compile(r"\A#{1,6}\s+|\s+#+\Z|\n[=-]+\Z")
_TABLE_HEADER = re.compile(r"\A(?P<header>[^\n]*)\n[ |:]*-[-|: ]*(?=\n|\Z)")
_LONGEST_TITLE = 200  # characters of a heading or header row that go into the path


def sections(blocks: Sequence[Block], tokens: TokenMap, *, limit: int) -> Iterator[Iterator[Unit]]:
    """Yield the units under one heading after the other; chunks never reach from one section into the next.

    A heading without text of its own goes with its first subsection. A table too long for one chunk ends its
    section, and its later rows carry the header row as the innermost heading.
    """
    outline: list[tuple[int, str]] = []
    for run in _runs(_gapless(blocks, tokens.text), tokens, limit):
        for heading in (block for block in run if block.kind is BlockKind.HEADING):
            outline = [above for above in outline if above[0] < heading.level]
            outline.append((heading.level, _title(tokens.text[heading.start : heading.end])))
        yield _units(run, tokens, limit=limit, path=tuple(title for _, title in outline if title))


def _gapless(blocks: Sequence[Block], text: str) -> Iterator[Block]:
    """Yield the blocks, and a paragraph for whatever stands between them."""
    done = 0
    for block in (*blocks, Block(BlockKind.PARAGRAPH, len(text), len(text))):
        start, end = trim(text, done, block.start)
        if start < end:
            yield Block(BlockKind.PARAGRAPH, start, end)
        if block.start < block.end:
            yield block
        done = block.end


def _runs(blocks: Iterator[Block], tokens: TokenMap, limit: int) -> Iterator[list[Block]]:
    """Yield blocks in runs: headings, each deeper than the one before, then all that stands under them."""
    run: list[Block] = []
    for block in blocks:
        if run and _opens(block, run[-1]):
            yield run
            run = []
        run.append(block)
        if block.kind is BlockKind.TABLE and tokens.estimate(block.start, block.end) > limit:
            yield run
            run = []
    if run:
        yield run


def _opens(block: Block, previous: Block) -> bool:
    continues = previous.kind is BlockKind.HEADING and block.level > previous.level
    return block.kind is BlockKind.HEADING and not continues


def _units(run: list[Block], tokens: TokenMap, *, limit: int, path: tuple[str, ...]) -> Iterator[Unit]:
    for block in run:
        parts = divide(tokens, block.start, block.end, limit=limit, by=_PARTS[block.kind], path=path)
        if block.kind is BlockKind.TABLE:
            parts = _with_header(parts, tokens.text[block.start : block.end], block.start)
        yield from parts


def _with_header(rows: Iterator[Unit], table: str, start: int) -> Iterator[Unit]:
    found = _TABLE_HEADER.match(table)
    header = found["header"].strip()[:_LONGEST_TITLE] if found else ""
    for row in rows:
        below = header and found and row.start >= start + found.end()
        yield replace(row, path=(*row.path, header)) if below else row


def _title(heading: str) -> str:
    return " ".join(_HEADING_MARKS.sub("", heading.strip()).split())[:_LONGEST_TITLE]
