"""From a parsed document to its chunks."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from loremesh_ingestion.domain.chunking import code, structure
from loremesh_ingestion.domain.chunking.chunk import Chunk
from loremesh_ingestion.domain.chunking.packing import pack
from loremesh_ingestion.domain.chunking.sentences import sentences
from loremesh_ingestion.domain.chunking.strategy import ChunkingStrategy, StrategyKind
from loremesh_ingestion.domain.chunking.tokens import TokenCounter, TokenMap
from loremesh_ingestion.domain.chunking.units import Unit, divide, lines, windows
from loremesh_ingestion.domain.parsed import BlockKind, ParsedDocument

_SHRINK = 0.8  # of the window, each time a piece turns out too large


def chunk(document: ParsedDocument, strategy: ChunkingStrategy, counter: TokenCounter) -> Iterator[Chunk]:
    """Yield the chunks of `document` in order; together they hold all of its text that is not white space.

    The same document, strategy and counter give the same chunks. Every chunk is an exact slice of the text, and
    has at most `strategy.max_tokens` tokens, counted by `counter` on the chunk's own text.
    """
    tokens = TokenMap(text=document.text, counter=counter)
    page_starts = [page.start for page in document.pages]
    index = 0
    for start, end, path in _spans(document, strategy, tokens):
        for piece_start, piece_end, size in _fitting(tokens, start, end, limit=strategy.max_tokens):
            at = bisect_right(page_starts, piece_start) - 1
            yield Chunk(
                index=index,
                text=document.text[piece_start:piece_end],
                start=piece_start,
                end=piece_end,
                page=document.pages[at].number if at >= 0 else None,
                heading_path=path,
                token_count=size,
            )
            index += 1


def chosen(kind: StrategyKind, document: ParsedDocument) -> StrategyKind:
    """Return what AUTO means for `document`; any other kind stays as it is."""
    if kind is not StrategyKind.AUTO:
        return kind
    if document.language is not None:
        return StrategyKind.CODE
    structured = any(block.kind is not BlockKind.PARAGRAPH for block in document.blocks)
    return StrategyKind.STRUCTURE if structured else StrategyKind.SENTENCES


def _spans(
    document: ParsedDocument, strategy: ChunkingStrategy, tokens: TokenMap
) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    kind = chosen(strategy.kind, document)
    limit, overlap = strategy.max_tokens, strategy.overlap_tokens
    if kind is StrategyKind.FIXED:
        for start, end in windows(tokens, 0, len(document.text), limit=limit, overlap=overlap):
            yield start, end, ()
        return
    for section in _sections(kind, document, tokens, limit=limit):
        for group in pack(section, limit=limit, overlap=overlap):
            yield group[0].start, group[-1].end, _common_path(group)


def _sections(
    kind: StrategyKind, document: ParsedDocument, tokens: TokenMap, *, limit: int
) -> Iterator[Iterable[Unit]]:
    if kind is StrategyKind.STRUCTURE:
        yield from structure.sections(document.blocks, tokens, limit=limit)
    elif kind is StrategyKind.CODE:
        yield code.units(document.language, tokens, limit=limit)
    else:
        yield _sentences(tokens, limit=limit)


def _sentences(tokens: TokenMap, *, limit: int) -> Iterator[Unit]:
    for start, end in sentences(tokens.text):
        yield from divide(tokens, start, end, limit=limit, by=(lines,))


def _common_path(units: Sequence[Unit]) -> tuple[str, ...]:
    common = units[0].path
    for unit in units:
        while unit.path[: len(common)] != common:
            common = common[:-1]
    return common


def _fitting(
    tokens: TokenMap, start: int, end: int, *, limit: int, window: int | None = None
) -> Iterator[tuple[int, int, int]]:
    """Yield the span with its exact size, cut again when cutting through a word has made more tokens of it."""
    size = tokens.count(start, end)
    if size <= limit:
        yield start, end, size
        return
    window = int(_SHRINK * (window or limit))
    for piece_start, piece_end in windows(tokens, start, end, limit=window):
        yield from _fitting(tokens, piece_start, piece_end, limit=limit, window=window)
