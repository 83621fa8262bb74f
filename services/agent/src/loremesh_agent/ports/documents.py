"""What is asked of documents and their stores."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from loremesh_kit.filters import Filter

from loremesh_agent.domain.passages import Found


class PassageIndex(Protocol):
    """Finds passages of documents."""

    async def search(self, query: str, *, vector_store_id: str, top_k: int, filter_: Filter | None) -> Found:
        """The best passages; raises VectorStoreNotFound, FilterInvalid, DependencyUnavailable, DeadlineExceeded."""
        ...


class Quotations(Protocol):
    """Knows where documents are quoted."""

    async def forget(self, document_id: str, *, vector_store_id: str, message_id: str) -> None:
        """Remove what is quoted of a deleted document and say so, once for each message that told of the deletion."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentFacts:
    """A document as far as its readers are concerned; `pages` is zero for formats without."""

    document_id: str
    vector_store_id: str
    title: str
    text_chars: int
    pages: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Extract:
    """A part of a document's text; offsets are code points."""

    text: str
    start_char: int
    end_char: int


class DocumentTexts(Protocol):
    """Knows what stands in documents."""

    async def facts(self, document_id: str) -> DocumentFacts | None:
        """What it is, None where there is none; raises DependencyUnavailable, DeadlineExceeded."""
        ...

    async def span(self, document_id: str, *, start_char: int, end_char: int) -> Extract | None:
        """Its text from here to there, `end_char` exclusive; None where there is none. Raises as `facts`."""
        ...

    async def pages(self, document_id: str, *, first: int, last: int) -> Extract | None:
        """The text of its pages and a little around them; None where there are none. Raises as `facts`."""
        ...


class Resolver(Protocol):
    """Knows the addresses of hosts."""

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """IPv4 and IPv6 addresses as text, none where the name is not known."""
        ...


class DocumentRegistry(Protocol):
    """Knows which documents there are."""

    async def live(self, document_ids: Collection[str]) -> frozenset[str]:
        """Those that are not deleted at this instant; raises DependencyUnavailable, DeadlineExceeded."""
        ...


class VectorStoreRegistry(Protocol):
    """Knows which vector stores there are."""

    async def missing(self, vector_store_ids: Collection[str]) -> frozenset[str]:
        """Those that there are not; raises DependencyUnavailable, DeadlineExceeded."""
        ...
