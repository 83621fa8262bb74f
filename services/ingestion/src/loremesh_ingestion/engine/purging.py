"""Removes a deleted document from every store of ours; doing it once more does no harm and finds what came late."""

from loremesh_kit import identity
from loremesh_kit.postgres import Database

from loremesh_ingestion.domain import objects
from loremesh_ingestion.domain.deletion import ContentStore
from loremesh_ingestion.engine import history
from loremesh_ingestion.engine.history import History
from loremesh_ingestion.ports import BlobStore, SearchIndex
from loremesh_ingestion.records import Connection, DeletionRecords, QueueRecords


class Purger:
    """Index first and rows last; where content may be, the tombstone tells."""

    def __init__(
        self,
        *,
        database: Database,
        records: DeletionRecords,
        queue: QueueRecords,
        blobs: BlobStore,
        index: SearchIndex,
    ) -> None:
        self._database = database
        self._records = records
        self._queue = queue
        self._blobs = blobs
        self._index = index

    async def clear(self, document_id: str) -> None:
        """Empty index and object store of it; nothing for a document that nobody deleted."""
        tombstone = await self._records.tombstone(document_id)
        if tombstone is None:
            return
        removed = 0
        for place in tombstone.places:
            removed += await self._index.delete(
                vector_store_id=tombstone.vector_store_id,
                generation=place.generation,
                embedding_model=place.embedding_model,
                document_id=document_id,
            )
        await self._count(document_id, ContentStore.SEARCH_INDEX, removed)
        prefix = objects.prefix(tenant=identity.current().tenant, document_id=document_id)
        await self._count(document_id, ContentStore.OBJECTS, await self._blobs.delete_all(prefix))

    async def _count(self, document_id: str, store: ContentStore, removed: int) -> None:
        # At once: what another attempt finds is not what this one has removed.
        async with self._database.transaction() as connection:
            await self._records.count(connection, document_id, store, removed)

    async def finish(self, connection: Connection, document_id: str, vector_store_id: str, *, attempt: int) -> None:
        """Remove the rows and tell of it, the first time."""
        if await self._records.finish(connection, document_id):
            told = History(document_id=document_id, version=0, attempt=attempt)
            await self._queue.append(connection, [told.deleted()])
            await self._queue.emit(connection, [history.deleted(document_id, vector_store_id)])
