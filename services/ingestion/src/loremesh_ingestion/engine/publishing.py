"""The switch: a version goes live in one transaction, or turns out to be unwanted and is taken back."""

from loremesh_kit import jobs
from loremesh_kit.jobs import Job
from loremesh_kit.postgres import Database

from loremesh_ingestion.domain.document import Document, DocumentState, passage
from loremesh_ingestion.domain.jobs import MAX_ATTEMPTS, PURGE, SYNC_ATTRIBUTES
from loremesh_ingestion.domain.version import Version
from loremesh_ingestion.engine.history import History
from loremesh_ingestion.engine.writing import Writer
from loremesh_ingestion.records import Connection, IndexingRecords


class Publisher:
    """Ends the work on a version, one way or the other."""

    def __init__(self, *, database: Database, records: IndexingRecords, writer: Writer) -> None:
        self._database = database
        self._records = records
        self._writer = writer

    async def publish(
        self, connection: Connection, job: Job, document: Document, version: int, *, metadata_revision: int
    ) -> bool:
        """Make `version` the one that searches see, and complete the job; False when it is not wanted any more.

        `document` is as the job knew it, `metadata_revision` the one its chunks carry in the index.
        """
        published = await self._records.publish(connection, document.id, version)
        if published is None:
            return False
        history = History(document_id=document.id, version=version, attempt=job.attempt)
        await history.entered(connection, passage(document.state, DocumentState.INDEXING))
        await history.ready(connection, published)
        if published.metadata_revision != metadata_revision:
            await self._follow(connection, SYNC_ATTRIBUTES, document)
        if version > 1:
            await self._follow(connection, PURGE, document, before_version=version)
        await jobs.complete(connection, job)
        return True

    async def _follow(self, connection: Connection, kind: str, document: Document, **ids: int) -> None:
        await jobs.enqueue(connection, kind=kind, payload=ids, subject_id=document.id, max_attempts=MAX_ATTEMPTS)

    async def drop(self, job: Job, document: Document | None, version: Version | None) -> None:
        """Complete a job whose version is not wanted, once nothing is left of it in the index."""
        if document is not None and version is not None:
            await self._writer.take_back(document, version)
        async with self._database.transaction() as connection:
            await jobs.complete(connection, job)
