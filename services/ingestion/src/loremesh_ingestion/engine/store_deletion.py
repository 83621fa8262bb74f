"""The job `delete_vector_store`: removes a hidden vector store with all its documents."""

from loremesh_kit import jobs
from loremesh_kit.jobs import Job
from loremesh_kit.postgres import Database

from loremesh_ingestion.engine.purging import Purger
from loremesh_ingestion.ports import SearchIndex
from loremesh_ingestion.records import VectorStoreDeletionRecords

_DOCUMENTS_AT_ONCE = 50


class VectorStoreDeletion:
    """One document after the other; an attempt that dies is taken up where it stopped."""

    def __init__(
        self, *, database: Database, records: VectorStoreDeletionRecords, purger: Purger, index: SearchIndex
    ) -> None:
        self._database = database
        self._records = records
        self._purger = purger
        self._index = index

    async def __call__(self, job: Job) -> None:
        """Documents first, so that each receipt counts its own; then whatever else the indexes hold, and the row."""
        vector_store_id = job.subject_id
        while document_ids := await self._records.doomed(vector_store_id, limit=_DOCUMENTS_AT_ONCE):
            for document_id in document_ids:
                await self._purger.clear(document_id)
                async with self._database.transaction() as connection:
                    await self._purger.finish(connection, document_id, vector_store_id, attempt=job.attempt)
        for place in await self._records.places(vector_store_id):
            await self._index.delete(
                vector_store_id=vector_store_id, generation=place.generation, embedding_model=place.embedding_model
            )
        async with self._database.transaction() as connection:
            await self._records.remove(connection, vector_store_id)
            await jobs.complete(connection, job)
