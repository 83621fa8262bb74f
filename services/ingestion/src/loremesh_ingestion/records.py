"""What the use cases need of Postgres: rows read on their own, or written in a transaction that the use case holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from loremesh_kit.filters import Filter
from loremesh_kit.jobs import Job
from loremesh_kit.pages import Position
from loremesh_kit.postgres import Row
from psycopg import AsyncConnection

from loremesh_ingestion.domain.chunking import Chunk, ChunkingStrategy
from loremesh_ingestion.domain.deletion import ContentStore, IndexPlace, Receipt, Tombstone
from loremesh_ingestion.domain.document import Document, DocumentState, Failure
from loremesh_ingestion.domain.vector_store import VectorStore, VectorStoreChange
from loremesh_ingestion.domain.version import Version

Connection = AsyncConnection[Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDocument:
    """A document whose bytes are stored at `object_key`; the title is empty when none was given."""

    id: str
    vector_store_id: str
    title: str
    filename: str
    media_type: str
    size_bytes: int
    sha256: str
    object_key: str
    attributes: Mapping[str, Any]
    chunking_strategy: ChunkingStrategy | None


@dataclass(frozen=True, kw_only=True)
class DocumentQuery:
    """Which documents to list; what is empty or None does not restrict."""

    vector_store_id: str = ""
    state: DocumentState | None = None
    sha256: str = ""
    filter: Filter | None = None


class DocumentRecords(Protocol):
    """Documents, as their owner sees and changes them."""

    async def get(self, document_id: str) -> Document | None:
        """A document that is not being deleted."""
        ...

    async def page(self, query: DocumentQuery, *, after: str, limit: int) -> list[Document]:
        """Documents older than the id `after` (empty: from the newest on), newest first."""
        ...

    async def lock(self, connection: Connection, document_id: str) -> Document | None:
        """The row, one being deleted too, locked for this transaction."""
        ...

    async def insert(self, connection: Connection, documents: Sequence[NewDocument]) -> dict[str, Document]:
        """New documents with their first versions, by id; those whose vector store is not there are left out."""
        ...

    async def begin_version(
        self, connection: Connection, document: Document, strategy: ChunkingStrategy | None
    ) -> Document:
        """The next version of a locked document, from the same bytes; `strategy` None leaves it as it was."""
        ...

    async def change(
        self, connection: Connection, document: Document, *, title: str | None, attributes: Mapping[str, Any] | None
    ) -> Document:
        """Set what is not None on a locked document; an empty title means the one that was found."""
        ...


class DeletionRecords(Protocol):
    """Deletions: tombstones first, rows last, receipts for ever."""

    async def hide(self, connection: Connection, document: Document) -> str:
        """Hide a locked document, and begin the receipt, which is its tombstone too; the receipt's id."""
        ...

    async def receipt_id(self, connection: Connection, document_id: str) -> str:
        """The id of the receipt of a deleted document, gone or not; empty where there is none."""
        ...

    async def tombstone(self, document_id: str) -> Tombstone | None:
        """What is kept of a deleted document."""
        ...

    async def models(self, document_id: str) -> list[str]:
        """The embedding models whose index may hold chunks of the document."""
        ...

    async def count(self, connection: Connection, document_id: str, store: ContentStore, removed: int) -> None:
        """Add to a deletion's receipt what was removed from a store just now, which may be nothing."""
        ...

    async def finish(self, connection: Connection, document_id: str) -> bool:
        """Remove the rows of a document being deleted, and say so in its receipt; False when there were none."""
        ...

    async def receipt(self, receipt_id: str) -> Receipt | None:
        """A receipt by its id."""
        ...

    async def receipts(self, vector_store_id: str, *, after: Position | None, limit: int) -> Sequence[Receipt]:
        """Receipts older than the one at `after`, of one vector store unless empty; ValueError for no position."""
        ...


@dataclass(frozen=True, slots=True)
class Parse:
    """What reading a document brought to light; its text lies in the object store under `text_key`."""

    text_key: str
    text_landmarks: Sequence[int]
    text_chars: int
    media_type: str
    title: str
    page_count: int
    chunk_count: int
    token_count: int
    metadata_revision: int


@dataclass(frozen=True, slots=True)
class Publication:
    """A version that is to go live, by the claim of a job; `chunks` are those that are not saved yet."""

    document: Document
    version: int
    job: Job
    parse: Parse
    chunks: Sequence[Chunk] = ()


class IndexingRecords(Protocol):
    """The way of a version from bytes to READY. Writes do nothing, and say so, once the version is not wanted."""

    async def load(self, document_id: str, version: int) -> tuple[Document | None, Version | None]:
        """The document as it is now, and the version."""
        ...

    async def enter(
        self, connection: Connection, document_id: str, version: int, state: DocumentState, *, batches_total: int = 0
    ) -> bool:
        """Move a document that is underway into `state`."""
        ...

    async def save_parse(self, connection: Connection, document_id: str, version: int, parse: Parse) -> None:
        """Keep what was found."""
        ...

    async def save_chunks(self, connection: Connection, chunks: Sequence[tuple[str, int, Chunk]]) -> None:
        """Keep chunks of documents' versions; some hundreds at a time."""
        ...

    async def chunks(self, document_id: str, version: int, *, start: int, limit: int) -> list[Chunk]:
        """Chunks from position `start` on."""
        ...

    async def finish_batch(self, connection: Connection, document_id: str, version: int, batch: int) -> Document | None:
        """Count the batch as done, once; None when the version is not wanted."""
        ...

    async def publish(self, connection: Connection, publications: Sequence[Publication]) -> dict[str, Document | None]:
        """Save the parse, make the version the one that searches see, complete the job; by job id.

        None where the version is not wanted; a job that went to another worker is left out, and so is its effect.
        """
        ...

    async def fail(self, connection: Connection, document_id: str, version: int, failure: Failure) -> bool:
        """Make the document FAILED; False when the version is not wanted."""
        ...

    async def outdated_keys(self, document_id: str, before_version: int) -> list[str]:
        """Keys of objects that only versions before this one use."""
        ...

    async def forget(self, connection: Connection, document_id: str, before_version: int) -> None:
        """Remove the rows of versions before this one."""
        ...


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to enqueue, and for whom."""

    kind: str
    subject_id: str
    payload: Mapping[str, Any]
    principal: str
    request_id: str
    traceparent: str
    max_attempts: int


@dataclass(frozen=True, slots=True)
class NewEvent:
    """The next event of a run."""

    run_id: str
    kind: str
    payload: Mapping[str, Any]
    attempt: int
    path: Sequence[str]


@dataclass(frozen=True, slots=True)
class NewFact:
    """Something other services may want to know."""

    name: str
    payload: Mapping[str, Any]
    headers: Mapping[str, str]


class QueueRecords(Protocol):
    """Jobs, events and facts, written in the transaction of what they are about."""

    async def enqueue(self, connection: Connection, new_jobs: Sequence[NewJob]) -> list[str]:
        """Accept jobs; their ids."""
        ...

    async def append(self, connection: Connection, events: Sequence[NewEvent], *, watched: bool = True) -> None:
        """Number and keep events, in this order; not `watched` is a run that nobody can know of yet."""
        ...

    async def emit(self, connection: Connection, facts: Sequence[NewFact]) -> None:
        """Publish facts once the transaction is committed."""
        ...


@dataclass(frozen=True, slots=True)
class Live:
    """What searches may show at an instant: a generation, its model and, by document id, the live versions."""

    generation: int
    embedding_model: str
    versions: Mapping[str, int]


class LivenessRecords(Protocol):
    """What is live."""

    async def resolve(self, vector_store_id: str, generation: int, document_ids: Sequence[str]) -> Live | None:
        """Of the generation (0: the live one) of a vector store, or of any (empty); None: no such store or generation.

        Documents being deleted, never ready or of another vector store are left out.
        """
        ...


class VectorStoreRecords(Protocol):
    """Vector stores, as their owner sees and changes them."""

    async def get(self, vector_store_id: str) -> VectorStore | None:
        """A vector store that is not being deleted."""
        ...

    async def page(self, *, after: Position | None, limit: int) -> Sequence[VectorStore]:
        """Vector stores created before the one at `after`, newest first; ValueError for no position of ours."""
        ...

    async def insert(self, connection: Connection, store: VectorStore) -> bool:
        """Insert; False when there is one of this id, even one being deleted."""
        ...

    async def lock(self, connection: Connection, vector_store_id: str) -> VectorStore | None:
        """One that is not being deleted; until the transaction ends no document comes in."""
        ...

    async def change(self, connection: Connection, vector_store_id: str, change: VectorStoreChange) -> None:
        """Set new values on a locked vector store."""
        ...


class VectorStoreDeletionRecords(Protocol):
    """The end of a vector store and all that is in it."""

    async def hide(self, connection: Connection, vector_store_id: str) -> None:
        """Hide a locked vector store and its documents."""
        ...

    async def places(self, vector_store_id: str) -> list[IndexPlace]:
        """The indexes that may hold chunks of its documents."""
        ...

    async def doomed(self, vector_store_id: str, *, limit: int) -> list[str]:
        """Ids of documents in it that are being deleted."""
        ...

    async def remove(self, connection: Connection, vector_store_id: str) -> None:
        """Remove the row, when no document is left."""
        ...
