"""The job `delete_vector_store`: removes a hidden vector store with all its documents."""

from loremesh_kit import identity, jobs
from loremesh_kit.jobs import Job
from loremesh_kit.postgres import Database

from loremesh_ingestion.domain import objects
from loremesh_ingestion.engine import history
from loremesh_ingestion.engine.history import History
from loremesh_ingestion.ports import BlobStore, SearchIndex
from loremesh_ingestion.records import DeletionRecords, QueueRecords, VectorStoreDeletionRecords

_DOCUMENTS_AT_ONCE = 50


class VectorStoreDeletion:
    """Some documents at a time; an attempt that dies is taken up where it stopped."""

    def __init__(
        self,
        *,
        database: Database,
        records: VectorStoreDeletionRecords,
        deletions: DeletionRecords,
        queue: QueueRecords,
        blobs: BlobStore,
        index: SearchIndex,
    ) -> None:
        self._database = database
        self._records = records
        self._deletions = deletions
        self._queue = queue
        self._blobs = blobs
        self._index = index

    async def __call__(self, job: Job) -> None:
        """Index first and rows last, so that what is to be removed is known until it is."""
        vector_store_id = job.subject_id
        for generation, model in await self._records.models(vector_store_id):
            await self._index.delete(vector_store_id=vector_store_id, generation=generation, embedding_model=model)
        while document_ids := await self._records.doomed(vector_store_id, limit=_DOCUMENTS_AT_ONCE):
            for document_id in document_ids:
                await self._remove(job, vector_store_id, document_id)
        async with self._database.transaction() as connection:
            await self._records.remove(connection, vector_store_id)
            await jobs.complete(connection, job)

    async def _remove(self, job: Job, vector_store_id: str, document_id: str) -> None:
        prefix = objects.prefix(tenant=identity.current().tenant, document_id=document_id)
        removed = await self._blobs.delete_all(prefix)
        async with self._database.transaction() as connection:
            if await self._deletions.finish(connection, [document_id], index_chunks=0, objects=removed):
                told = History(document_id=document_id, version=0, attempt=job.attempt)
                await self._queue.append(connection, [told.deleted()])
                await self._queue.emit(connection, [history.deleted(document_id, vector_store_id)])
