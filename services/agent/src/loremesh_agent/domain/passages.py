"""Passages of documents, and the sources that answers rest on."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A passage, with all it takes to find it in its document; offsets are code points of the extracted text."""

    document_id: str
    chunk_id: str
    vector_store_id: str
    title: str
    content: str
    score: float
    attributes: Mapping[str, Any]
    start_char: int
    end_char: int
    page: int | None = None
    heading_path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search found, best first; `similarity` is the highest cosine in the index, None where that is unknown."""

    passages: tuple[Passage, ...] = ()
    similarity: float | None = None
    # Of the indexes searched, by vector store.
    generations: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A passage the model was given under a number, from 1."""

    number: int
    passage: Passage
    cited: bool = False
    # The document is gone, and with it what was quoted.
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """Which documents may be quoted; `told` is False where nobody could say, and then none may."""

    live: frozenset[str] = frozenset()
    told: bool = True


def merged(found: Sequence[Found], *, top_k: int) -> Found:
    """The best of several searches together."""
    passages = sorted((each for one in found for each in one.passages), key=lambda passage: -passage.score)
    similarities = [one.similarity for one in found if one.similarity is not None]
    generations = {store: number for one in found for store, number in one.generations.items()}
    return Found(passages=tuple(passages[:top_k]), similarity=max(similarities, default=None), generations=generations)


def numbered(passages: Iterable[Passage], *, cited: Collection[int] = ()) -> tuple[Source, ...]:
    """The passages as sources, in the order in which they are given."""
    return tuple(
        Source(number=number, passage=passage, cited=number in cited) for number, passage in enumerate(passages, 1)
    )


def quotable(sources: Iterable[Source], known: Known) -> tuple[Source, ...]:
    """The sources without the passages of documents that may not be quoted."""
    return tuple(
        source if source.passage.document_id in known.live and not source.deleted else _withheld(source, known)
        for source in sources
    )


def _withheld(source: Source, known: Known) -> Source:
    passage = replace(source.passage, title="", content="", attributes={}, heading_path=())
    return replace(source, passage=passage, deleted=source.deleted or known.told)


def documents(sources: Iterable[Source]) -> frozenset[str]:
    """Ids of the documents quoted."""
    return frozenset(source.passage.document_id for source in sources)


def shown(sources: Sequence[Source]) -> tuple[Source, ...]:
    """Those an answer cites, or all it was given where it cites none."""
    return tuple(source for source in sources if source.cited) or tuple(sources)
