"""A deletion: where content was, and how far its removal is."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum, auto


class ContentStore(StrEnum):
    """Where a document's content is kept."""

    SEARCH_INDEX = auto()
    OBJECTS = auto()
    DATABASE = auto()
    CONVERSATIONS = auto()


@dataclass(frozen=True, slots=True)
class IndexPlace:
    """An index that may hold chunks: a generation and its model."""

    generation: int
    embedding_model: str


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What is kept of a deleted document, so that whatever is written late can be removed again."""

    document_id: str
    vector_store_id: str
    places: Sequence[IndexPlace]


@dataclass(frozen=True, slots=True)
class StorePurge:
    """How many pieces were removed from a store, and when the last was; None while it is still to be purged."""

    store: ContentStore
    removed: int
    finish_time: datetime | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a deleted document's content."""

    id: str
    document_id: str
    vector_store_id: str
    create_time: datetime
    purges: Sequence[StorePurge]

    @property
    def finish_time(self) -> datetime | None:
        """When the last store was purged; None while one is not."""
        times = [purge.finish_time for purge in self.purges if purge.finish_time is not None]
        return max(times) if len(times) == len(ContentStore) else None
