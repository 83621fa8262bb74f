"""What becomes of the work that a job was given up on: a document says why, and what is owed is begun anew."""

import structlog
from loremesh_kit import jobs
from loremesh_kit.errors import ServiceError
from loremesh_kit.jobs import Job

from loremesh_ingestion.domain.document import Document, DocumentState
from loremesh_ingestion.domain.jobs import DELETE, EMBED_BATCH, INDEX, MAX_ATTEMPTS, PURGE, RECONCILE
from loremesh_ingestion.engine import history
from loremesh_ingestion.engine.history import History
from loremesh_ingestion.engine.stages import failure
from loremesh_ingestion.reconciliation_records import ReconciliationRecords
from loremesh_ingestion.records import Connection, DocumentRecords, IndexingRecords, QueueRecords

# An outage of hours must not leave something undeleted for ever.
_AGAIN_SECONDS = 600.0
_log = structlog.get_logger(__name__)


class GivingUp:
    """Called in the transaction that writes the dead letter."""

    def __init__(
        self,
        *,
        documents: DocumentRecords,
        records: IndexingRecords,
        reconciliations: ReconciliationRecords,
        queue: QueueRecords,
    ) -> None:
        self._reconciliations = reconciliations
        self._documents = documents
        self._records = records
        self._queue = queue

    async def __call__(self, connection: Connection, job: Job, error: ServiceError) -> None:
        """Make the document FAILED, or ask for the same work later."""
        if job.kind in (INDEX, EMBED_BATCH):
            document = await self._documents.lock(connection, job.subject_id)
            if document is None or document.state is DocumentState.DELETING:
                # Its last attempt may have written after the deletion.
                await self._queue.enqueue(connection, [history.job(DELETE, job.payload["document_id"])])
            else:
                await self._fail(connection, job, document, error)
            return
        if job.kind == RECONCILE:
            await self._reconciliations.fail(connection, job.id, error.reason)
            return
        _log.error("begun anew later", kind=job.kind, subject_id=job.subject_id, reason=error.reason)
        await jobs.enqueue(
            connection,
            kind=job.kind,
            payload=job.payload,
            subject_id=job.subject_id,
            delay=_AGAIN_SECONDS,
            max_attempts=MAX_ATTEMPTS,
        )

    async def _fail(self, connection: Connection, job: Job, document: Document, error: ServiceError) -> None:
        version = job.payload["version"]
        why = failure(error, state=document.state)
        if not await self._records.fail(connection, document.key, version, why):
            return
        told = History(document_id=document.id, version=version, attempt=job.attempt, key=document.key)
        await self._queue.append(connection, [told.failed(why)])
        await self._queue.emit(connection, [history.failed(document, why)] if document.live else [])
        if document.version == 0:
            # Nothing of a document that never was ready may be found; where one version is, only the next removes it.
            purge = history.job(PURGE, document.key, before_version=version + 1)
            await self._queue.enqueue(connection, [purge])
