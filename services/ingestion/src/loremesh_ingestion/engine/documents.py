"""Documents: read, listed, changed, indexed anew."""

from collections.abc import Mapping, Sequence
from typing import Any

from loremesh_kit.errors import EtagMismatch
from loremesh_kit.postgres import Database

from loremesh_ingestion.domain.chunking import ChunkingStrategy
from loremesh_ingestion.domain.document import Document, DocumentState
from loremesh_ingestion.domain.jobs import SYNC_ATTRIBUTES
from loremesh_ingestion.engine import history
from loremesh_ingestion.engine.history import History
from loremesh_ingestion.engine.vector_stores import VectorStores
from loremesh_ingestion.errors import DocumentNotFound, DocumentStateUnsuitable
from loremesh_ingestion.records import Connection, DocumentQuery, DocumentRecords, NewContent, QueueRecords


class Documents:
    """The use cases of DocumentService on rows."""

    def __init__(
        self, *, database: Database, records: DocumentRecords, queue: QueueRecords, vector_stores: VectorStores
    ) -> None:
        self._database = database
        self._records = records
        self._queue = queue
        self._vector_stores = vector_stores

    async def get(self, document_id: str) -> Document:
        """Raises DocumentNotFound, also for one that is being deleted."""
        document = await self._records.get(document_id)
        if document is None:
            raise DocumentNotFound(document_id)
        return document

    async def page(self, query: DocumentQuery, *, after: str, limit: int) -> list[Document]:
        """Newest first, older than the id `after`; raises VectorStoreNotFound for a store that is not there."""
        documents = await self._records.page(query, after=after, limit=limit)
        if not documents and query.vector_store_id:
            await self._vector_stores.get(query.vector_store_id)
        return documents

    async def update(
        self, document_id: str, *, title: str | None, attributes: Mapping[str, Any] | None, etag: str
    ) -> Document:
        """Set what is not None, and have the index follow.

        Raises DocumentNotFound, DocumentStateUnsuitable while it is being deleted and, unless `etag` is empty or
        current, EtagMismatch.
        """
        async with self._database.transaction() as connection:
            rows = await self._changeable(connection, document_id)
            if etag not in ("", rows[0].etag):
                raise EtagMismatch
            return (await self.change(connection, rows, title=title, attributes=attributes))[0]

    async def change(
        self,
        connection: Connection,
        rows: Sequence[Document],
        *,
        title: str | None,
        attributes: Mapping[str, Any] | None,
    ) -> list[Document]:
        """Set what is not None on the locked rows of a document, and have the index follow."""
        changed = [await self._records.change(connection, row, title=title, attributes=attributes) for row in rows]
        # An indexing under way looks by itself, when it publishes, whether it still carries the current ones.
        syncs = [history.job(SYNC_ATTRIBUTES, row.key) for row in changed if row.version > 0]
        await self._queue.enqueue(connection, syncs)
        return changed

    async def index(self, document_id: str, strategy: ChunkingStrategy | None) -> tuple[str, Document]:
        """Begin the next version; the job's id and the document. Whatever is indexed meanwhile counts for nothing.

        Raises DocumentNotFound, DocumentStateUnsuitable while it is being deleted.
        """
        async with self._database.transaction() as connection:
            rows = await self._changeable(connection, document_id)
            return await self.begin(connection, rows, strategy=strategy)

    async def retry(self, document_id: str) -> tuple[str, Document]:
        """Begin the next version of a document that FAILED, as it is; the job's id and the document.

        Raises DocumentNotFound, DocumentStateUnsuitable in any other state.
        """
        async with self._database.transaction() as connection:
            rows = await self._changeable(connection, document_id)
            if rows[0].state is not DocumentState.FAILED:
                raise DocumentStateUnsuitable(
                    "Only a document that failed can be retried.", document_id=document_id, state=rows[0].state
                )
            return await self.begin(connection, rows)

    async def begin(
        self,
        connection: Connection,
        rows: Sequence[Document],
        *,
        strategy: ChunkingStrategy | None = None,
        content: NewContent | None = None,
    ) -> tuple[str, Document]:
        """Begin the next version of the locked rows of a document, from other bytes if there are.

        The id of the first row's job, and that row.
        """
        begun = [await self._records.begin_version(connection, row, strategy=strategy, content=content) for row in rows]
        new_jobs = [history.index_job(row) for row in begun]
        job_ids = await self._queue.enqueue(connection, new_jobs)
        told = History(document_id=begun[0].id, version=begun[0].latest_version, key=begun[0].key)
        await self._queue.append(connection, told.entered([DocumentState.UPLOADED]))
        return job_ids[0], begun[0]

    async def _changeable(self, connection: Connection, document_id: str) -> list[Document]:
        rows = await self._records.lock_all(connection, document_id)
        if not rows:
            raise DocumentNotFound(document_id)
        if rows[0].state is DocumentState.DELETING:
            raise DocumentStateUnsuitable(
                "The document is being deleted.", document_id=document_id, state=rows[0].state
            )
        return rows
