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


def chunk(document: ParsedDocument, strategy: ChunkingStrategy, counter: TokenCounter) -> Iterator[Chunk]:
    """Yield the chunks of `document` in order; together they hold all of its text that is not white space.

    The same document, strategy and counter give the same chunks. Every chunk is an exact slice of the text, and
    has at most `strategy.max_tokens` tokens, counted by `counter` on the chunk's own text.
    """
    tokens = TokenMap(text=document.text, counter=counter)
    page_starts = [page.start for page in document.pages]
    for index, (start, end, path) in enumerate(_spans(document, strategy, tokens)):
        at = bisect_right(page_starts, start) - 1
        yield Chunk(
            index=index,
            text=document.text[start:end],
            start=start,
            end=end,
            page=document.pages[at].number if at >= 0 else None,
            heading_path=path,
            token_count=tokens.count(start, end),
        )


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
    done = 0
    for section in _sections(kind, document, tokens, limit=limit):
        for group in pack(section, limit=limit, overlap=overlap):
            for start, end in _fitting(tokens, group[0].start, group[-1].end, limit=limit, fresh=done):
                yield start, end, _common_path(group)
                done = end


def _sections(
    kind: StrategyKind, document: ParsedDocument, tokens: TokenMap, *, limit: int
) -> Iterator[Iterable[Unit]]:
    if kind is StrategyKind.STRUCTURE:
        yield from structure.sections(document.blocks, tokens, limit=limit)
    elif kind is StrategyKind.CODE:
        yield from code.sections(document.language, tokens, limit=limit)
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


def _fitting(tokens: TokenMap, start: int, end: int, *, limit: int, fresh: int) -> Iterator[tuple[int, int]]:
    """Yield the span, cut again when its units have more tokens together than each by itself, as parts of words may."""
    if tokens.count(start, end) <= limit:
        yield start, end
    else:
        yield from windows(tokens, start, end, limit=limit, fresh=fresh)
