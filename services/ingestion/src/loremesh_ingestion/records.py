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
from loremesh_ingestion.domain.document import Changes, Document, DocumentState, Failure
from loremesh_ingestion.domain.generation import Generation
from loremesh_ingestion.domain.upload import StoredBytes
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


@dataclass(frozen=True, slots=True, kw_only=True)
class NewContent:
    """Other bytes for a document; an empty file name means the one it has."""

    stored: StoredBytes
    filename: str
    media_type: str


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

    async def lock(self, connection: Connection, key: str) -> Document | None:
        """One row, one being deleted too, locked for this transaction."""
        ...

    async def lock_all(self, connection: Connection, document_id: str) -> list[Document]:
        """The document's rows in all generations, the live one first, also when it is being deleted; locked."""
        ...

    async def insert(self, connection: Connection, documents: Sequence[NewDocument]) -> dict[str, list[Document]]:
        """New documents with their first versions in every generation, by id, the live ones first.

        Those whose vector store is not there are left out. Where it has a document just like a new one, and not FAILED,
        that is given in its place.
        """
        ...

    async def begin_version(
        self,
        connection: Connection,
        document: Document,
        *,
        strategy: ChunkingStrategy | None,
        content: NewContent | None = None,
    ) -> Document:
        """The next version of a locked document; what is None stays as it was."""
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

    async def models(self, document_id: str) -> list[tuple[int, str]]:
        """The generations whose index may hold chunks of the document, with their models."""
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
    """What reading a document brought to light; its text lies in the object store under `text_key`.

    `title` is the one that was found, `embedded_title` the one that is embedded with its chunks.
    """

    text_key: str
    text_landmarks: Sequence[int]
    text_chars: int
    media_type: str
    title: str
    embedded_title: str | None
    page_count: int
    chunk_count: int
    token_count: int
    metadata_revision: int


@dataclass(frozen=True, slots=True)
class Written:
    """What writing chunks came to: how many were embedded, how many kept their vectors.

    `recurring` are positions, in the version that searches see, of chunks which are there again.
    """

    embedded: int
    kept: int
    recurring: frozenset[int]

    def changes(self, *, before: int) -> Changes:
        """Against a version of `before` chunks."""
        return Changes(embedded=self.embedded, kept=self.kept, removed=before - len(self.recurring))


@dataclass(frozen=True, slots=True)
class Publication:
    """A version that is to go live, by the claim of a job; `chunks` are those that are not saved yet."""

    document: Document
    version: int
    job: Job
    parse: Parse
    changes: Changes
    chunks: Sequence[Chunk] = ()


class IndexingRecords(Protocol):
    """The way of a version from bytes to READY. Writes do nothing, and say so, once the version is not wanted.

    Rows are named by their keys.
    """

    async def exists(self, document_id: str) -> bool:
        """Whether the document is there in any generation, and not being deleted; by its id."""
        ...

    async def load(self, key: str, version: int) -> tuple[Document | None, Version | None]:
        """The document as it is now, and the version."""
        ...

    async def enter(
        self, connection: Connection, key: str, version: int, state: DocumentState, *, batches_total: int = 0
    ) -> bool:
        """Move a document that is underway into `state`."""
        ...

    async def save_parse(self, connection: Connection, key: str, version: int, parse: Parse) -> None:
        """Keep what was found."""
        ...

    async def save_chunks(self, connection: Connection, chunks: Sequence[tuple[str, int, Chunk]]) -> None:
        """Keep chunks of documents' versions; some hundreds at a time."""
        ...

    async def chunks(self, key: str, version: int, *, start: int, limit: int) -> list[Chunk]:
        """Chunks from position `start` on."""
        ...

    async def pages(self, key: str, version: int, *, first: int, last: int) -> tuple[int, int | None]:
        """Where the last chunk before page `first` begins, and the first one behind page `last`; None: nowhere."""
        ...

    async def chunks_reading(self, key: str, version: int, contents: Sequence[str]) -> list[Chunk]:
        """The version's chunks with one of these texts."""
        ...

    async def finish_batch(
        self, connection: Connection, key: str, version: int, batch: int, written: Written
    ) -> Document | None:
        """Count the batch as done, once; None when the version is not wanted."""
        ...

    async def written(self, key: str, version: int) -> Written:
        """What all its finished batches came to."""
        ...

    async def publish(self, connection: Connection, publications: Sequence[Publication]) -> dict[str, Document | None]:
        """Save the parse, make the version the one that searches see, complete the job; by job id.

        None where the version is not wanted; a job that went to another worker is left out, and so is its effect.
        """
        ...

    async def fail(self, connection: Connection, key: str, version: int, failure: Failure) -> bool:
        """Make the document FAILED; False when the version is not wanted."""
        ...

    async def outdated_keys(self, key: str, before_version: int) -> list[str]:
        """Keys of objects that versions before this one use, and none that any generation still needs."""
        ...

    async def forget(self, connection: Connection, key: str, before_version: int) -> None:
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
    priority: int


@dataclass(frozen=True, slots=True)
class NewEvent:
    """The next event of a run; with the key of a document's row it is told only while that is the live one."""

    run_id: str
    kind: str
    payload: Mapping[str, Any]
    attempt: int
    path: Sequence[str]
    key: str = ""


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

    async def waiting(self, *, limit: int) -> int:
        """How many jobs of the caller's tenant wait for a worker; `limit` stands for any larger number."""
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


class GenerationRecords(Protocol):
    """Generations of vector stores; what changes one holds the lock of its store, see VectorStoreRecords."""

    async def all(self, vector_store_id: str) -> list[Generation]:
        """Newest first; empty when there is no such vector store."""
        ...

    async def quiesce(self, connection: Connection, vector_store_id: str, generation: int) -> list[Generation]:
        """The same in a transaction, until whose end no document of generation `generation` (0: of none) is READY."""
        ...

    async def insert(
        self, connection: Connection, vector_store_id: str, *, embedding_model: str, strategy: ChunkingStrategy
    ) -> int:
        """The next one, empty; its number."""
        ...

    async def build(
        self, connection: Connection, vector_store_id: str, generation: int, *, after: str, limit: int
    ) -> list[Document]:
        """Insert rows for documents which have none in it, by id from `after` on; none when it is gone."""
        ...

    async def activate(
        self, connection: Connection, vector_store_id: str, generation: int, *, before: int
    ) -> list[Document]:
        """Make it live in place of `before`; the documents at rest in it which were otherwise before."""
        ...

    async def delete(self, connection: Connection, vector_store_id: str, generation: int) -> None:
        """Nothing goes into it any more; the rows of its documents are left."""
        ...

    async def dropped(self, vector_store_id: str, generation: int, *, limit: int) -> tuple[list[str], list[str]]:
        """Keys of its documents' rows, and of the objects that only those need."""
        ...

    async def drop(self, keys: Sequence[str]) -> None:
        """Remove rows."""
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
