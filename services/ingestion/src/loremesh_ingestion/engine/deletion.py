"""Deleting documents: hidden at once, removed from every store by a job that does not give up."""

import asyncio
from contextlib import suppress

from loremesh_kit import deadline, jobs
from loremesh_kit.errors import ServiceError
from loremesh_kit.jobs import FenceLost, Handler, Job
from loremesh_kit.postgres import Database

from loremesh_ingestion.domain.document import DocumentState, Standing, outdated_before, standing
from loremesh_ingestion.domain.jobs import DELETE, PURGE, SYNC_ATTRIBUTES
from loremesh_ingestion.engine import history
from loremesh_ingestion.engine.history import History
from loremesh_ingestion.engine.purging import Purger
from loremesh_ingestion.errors import DocumentNotFound
from loremesh_ingestion.records import DeletionRecords, DocumentRecords, QueueRecords

_TAKE_BACK_SECONDS = 2.0


class Deletions:
    """The use case of DeleteDocument, and the job `delete`."""

    def __init__(
        self,
        *,
        database: Database,
        documents: DocumentRecords,
        records: DeletionRecords,
        queue: QueueRecords,
        purger: Purger,
    ) -> None:
        self._database = database
        self._documents = documents
        self._records = records
        self._queue = queue
        self._purger = purger

    async def delete(self, document_id: str) -> str:
        """Hide the document and have it removed; the receipt's id, the same however often it is asked for.

        One transaction, since searches ask what is live before they answer. Raises DocumentNotFound.
        """
        async with self._database.transaction() as connection:
            document = next(iter(await self._documents.lock_all(connection, document_id)), None)
            if document is None or document.state is DocumentState.DELETING:
                receipt_id = await self._records.receipt_id(connection, document_id)
                if not receipt_id:
                    raise DocumentNotFound(document_id)
                return receipt_id
            receipt_id = await self._records.hide(connection, document)
            told = History(document_id=document_id, version=document.latest_version)
            await self._queue.append(connection, told.entered([DocumentState.DELETING]))
            await self._queue.enqueue(connection, [history.job(DELETE, document_id)])
        return receipt_id

    async def remove(self, job: Job) -> None:
        """Also for documents long gone: whoever may have written late asks for it once more."""
        await self._purger.clear(job.subject_id)
        tombstone = await self._records.tombstone(job.subject_id)
        async with self._database.transaction() as connection:
            if tombstone is not None:
                await self._purger.finish(connection, job.subject_id, tombstone.vector_store_id, attempt=job.attempt)
            await jobs.complete(connection, job)

    async def clean_up_after(self, job: Job) -> None:
        """Have removed what a worker that lost its index job may have written since then, where nobody wants it."""
        document_id, version = job.payload["document_id"], job.payload["version"]
        deleted = await self._records.tombstone(document_id) is not None
        async with self._database.transaction() as connection:
            if deleted:
                await self._queue.enqueue(connection, [history.job(DELETE, document_id)])
            elif line := await self._documents.lock(connection, job.subject_id):
                unwanted = standing(line, version) is not Standing.CURRENT
                if unwanted and (before := outdated_before(line, version)):
                    await self._queue.enqueue(connection, [history.job(PURGE, line.key, before_version=before)])
                if line.version == version:  # over what searches see it may have written the title of before
                    await self._queue.enqueue(connection, [history.job(SYNC_ATTRIBUTES, line.key)])


class LateWriter:
    """Index work that may have lost its job while it wrote: what it wrote and nobody wants is removed again.

    Nobody else could know of it: the worker that has the job now may have seen the document gone, or replaced, already.
    """

    def __init__(self, *, handler: Handler, deletions: Deletions) -> None:
        self._handler = handler
        self._deletions = deletions

    async def __call__(self, job: Job) -> None:
        """Do the work; raises what it raises."""
        try:
            await self._handler(job)
        except (FenceLost, asyncio.CancelledError):
            with suppress(ServiceError), deadline.scope(_TAKE_BACK_SECONDS):
                await self._deletions.clean_up_after(job)
            raise
