"""Passages of documents, and the sources that answers rest on."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A passage the model was given under a number, from 1."""

    number: int
    passage: Passage
    cited: bool = False


def merged(found: Sequence[Found], *, top_k: int) -> Found:
    """The best of several searches together."""
    passages = sorted((each for one in found for each in one.passages), key=lambda passage: -passage.score)
    similarities = [one.similarity for one in found if one.similarity is not None]
    return Found(passages=tuple(passages[:top_k]), similarity=max(similarities, default=None))


def numbered(passages: Iterable[Passage], *, cited: Collection[int] = ()) -> tuple[Source, ...]:
    """The passages as sources, in the order in which they are given."""
    return tuple(
        Source(number=number, passage=passage, cited=number in cited) for number, passage in enumerate(passages, 1)
    )


def shown(sources: Sequence[Source]) -> tuple[Source, ...]:
    """Those an answer cites, or all it was given where it cites none."""
    return tuple(source for source in sources if source.cited) or tuple(sources)
