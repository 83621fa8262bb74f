"""The jobs `purge` and `sync_attributes`: what follows a publication or a change, soon but not at once."""

from loremesh_kit import jobs
from loremesh_kit.jobs import Job
from loremesh_kit.postgres import Database

from loremesh_ingestion.domain.document import DocumentState
from loremesh_ingestion.domain.jobs import SYNC_ATTRIBUTES
from loremesh_ingestion.engine import history
from loremesh_ingestion.engine.writing import carried
from loremesh_ingestion.ports import BlobStore, SearchIndex
from loremesh_ingestion.records import DeletionRecords, DocumentRecords, IndexingRecords, QueueRecords


class Purge:
    """Removes versions that nobody sees any more: from the index, from the object store, from Postgres."""

    def __init__(
        self,
        *,
        database: Database,
        records: IndexingRecords,
        deletions: DeletionRecords,
        blobs: BlobStore,
        index: SearchIndex,
    ) -> None:
        self._database = database
        self._records = records
        self._deletions = deletions
        self._blobs = blobs
        self._index = index

    async def __call__(self, job: Job) -> None:
        """The job names the version before which the index is to be cleared; rows go up to the one that is live."""
        document, _ = await self._records.load(job.subject_id, 0)
        if document is not None and document.state is not DocumentState.DELETING:
            for generation, model in await self._deletions.models(document.id):
                if generation != document.generation:
                    continue
                await self._index.delete(
                    vector_store_id=document.vector_store_id,
                    generation=generation,
                    embedding_model=model,
                    document_id=document.id,
                    before_version=job.payload["before_version"],
                )
            await self._blobs.delete(await self._records.outdated_keys(document.key, document.version))
        async with self._database.transaction() as connection:
            if document is not None:
                await self._records.forget(connection, document.key, document.version)
            await jobs.complete(connection, job)


class SyncAttributes:
    """Has the index carry a document's current title and attributes."""

    def __init__(
        self,
        *,
        database: Database,
        documents: DocumentRecords,
        records: IndexingRecords,
        queue: QueueRecords,
        index: SearchIndex,
    ) -> None:
        self._database = database
        self._queue = queue
        self._documents = documents
        self._records = records
        self._index = index

    async def __call__(self, job: Job) -> None:
        """Write what is current now, and once more should it have changed meanwhile, so that the last one stays."""
        document, _ = await self._records.load(job.subject_id, 0)
        if document is not None and document.version > 0:
            _, version = await self._records.load(document.key, document.version)
            if version is not None:
                await self._index.update(carried(document, version, found_title=version.title))
        async with self._database.transaction() as connection:
            now = await self._documents.lock(connection, job.subject_id)
            if document is not None and now is not None and now.metadata_revision != document.metadata_revision:
                await self._queue.enqueue(connection, [history.job(SYNC_ATTRIBUTES, document.key)])
            await jobs.complete(connection, job)
