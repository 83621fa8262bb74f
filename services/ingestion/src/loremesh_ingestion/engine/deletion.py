"""Deleting documents: hidden at once, removed from every store by a job that does not give up."""

from contextlib import suppress

from loremesh_kit import deadline, identity, jobs
from loremesh_kit.errors import ServiceError
from loremesh_kit.jobs import Job
from loremesh_kit.postgres import Database

from loremesh_ingestion.domain import objects
from loremesh_ingestion.domain.document import Document, DocumentState
from loremesh_ingestion.domain.jobs import DELETE
from loremesh_ingestion.engine import history
from loremesh_ingestion.engine.history import History
from loremesh_ingestion.errors import DocumentNotFound
from loremesh_ingestion.ports import BlobStore, SearchIndex
from loremesh_ingestion.records import DeletionRecords, DocumentRecords, QueueRecords

_HIDE_SECONDS = 2.0


class Deletions:
    """The use case of DeleteDocument, and the job `delete`."""

    def __init__(
        self,
        *,
        database: Database,
        documents: DocumentRecords,
        records: DeletionRecords,
        queue: QueueRecords,
        blobs: BlobStore,
        index: SearchIndex,
    ) -> None:
        self._database = database
        self._documents = documents
        self._records = records
        self._queue = queue
        self._blobs = blobs
        self._index = index

    async def delete(self, document_id: str) -> str:
        """Hide the document and have it removed; the receipt's id, the same until it is gone.

        Raises DocumentNotFound.
        """
        async with self._database.transaction() as connection:
            document = next(iter(await self._documents.lock_all(connection, document_id)), None)
            if document is None:
                raise DocumentNotFound(document_id)
            if document.state is DocumentState.DELETING:
                return await self._records.receipt(connection, document_id)
            receipt_id = await self._records.hide(connection, document)
            told = History(document_id=document_id, version=document.latest_version)
            await self._queue.append(connection, told.entered([DocumentState.DELETING]))
            removal = history.job(DELETE, document_id, vector_store_id=document.vector_store_id)
            await self._queue.enqueue(connection, [removal])
        await self._hide_from_searches(document)
        return receipt_id

    async def _hide_from_searches(self, document: Document) -> None:
        """Searches are to miss it at once if that can be had within seconds; the job makes sure of it."""
        with suppress(ServiceError), deadline.scope(_HIDE_SECONDS):
            removed = await self._clear_index(document.id, document.vector_store_id)
            await self._records.count(document.id, index_chunks=removed)

    async def _clear_index(self, document_id: str, vector_store_id: str) -> int:
        models = await self._records.models(document_id)
        return sum(
            [
                await self._index.delete(
                    vector_store_id=vector_store_id,
                    generation=generation,
                    embedding_model=model,
                    document_id=document_id,
                )
                for generation, model in models
            ]
        )

    async def remove(self, job: Job) -> None:
        """Index first and rows last, so that what is to be removed is known until it is."""
        document_id, vector_store_id = job.subject_id, job.payload["vector_store_id"]
        removed = await self._clear_index(document_id, vector_store_id)
        prefix = objects.prefix(tenant=identity.current().tenant, document_id=document_id)
        objects_removed = await self._blobs.delete_all(prefix)
        async with self._database.transaction() as connection:
            gone = await self._records.finish(connection, [document_id], index_chunks=removed, objects=objects_removed)
            if gone:
                told = History(document_id=document_id, version=0, attempt=job.attempt)
                await self._queue.append(connection, [told.deleted()])
                await self._queue.emit(connection, [history.deleted(document_id, vector_store_id)])
            await jobs.complete(connection, job)
