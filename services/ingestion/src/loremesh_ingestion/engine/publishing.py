"""The switch: a version goes live in one transaction, or turns out to be unwanted and is taken back."""

from collections.abc import Sequence
from contextvars import Context, copy_context

from loremesh_kit import identity, jobs
from loremesh_kit.jobs import FenceLost, Job
from loremesh_kit.postgres import Database

from loremesh_ingestion.domain.document import Document, DocumentState, passage
from loremesh_ingestion.domain.jobs import DELETE, PURGE, SYNC_ATTRIBUTES
from loremesh_ingestion.domain.version import Version
from loremesh_ingestion.engine import history
from loremesh_ingestion.engine.batching import Batcher
from loremesh_ingestion.engine.history import History
from loremesh_ingestion.engine.writing import Writer
from loremesh_ingestion.records import Connection, IndexingRecords, NewJob, Publication, QueueRecords

_AT_ONCE = 64

# With the context it was asked for in: jobs and facts go out in the name of their own caller.
_Item = tuple[Publication, Context]


class Publisher:
    """Ends the work on versions; those that end at the same time share a transaction."""

    def __init__(self, *, database: Database, records: IndexingRecords, queue: QueueRecords, writer: Writer) -> None:
        self._database = database
        self._records = records
        self._queue = queue
        self._writer = writer
        self._batcher: Batcher[str, _Item, bool | None] = Batcher(
            run=self._publish_all, size=lambda _: 1, limit=_AT_ONCE, at_once=1
        )

    async def publish(self, publication: Publication) -> bool:
        """Make the version the one that searches see, and complete the job; False when it is not wanted any more.

        Raises FenceLost.
        """
        outcome = await self._batcher.submit(identity.current().tenant, (publication, copy_context()))
        if outcome is None:
            raise FenceLost(publication.job.id)
        publication.job.progress.completed = outcome
        return outcome

    async def _publish_all(self, tenant: str, items: Sequence[_Item]) -> list[bool | None]:
        """True: published; False: not wanted; None: the job went to another worker."""
        async with self._database.transaction(tenant) as connection:
            found = await self._records.publish(connection, [publication for publication, _ in items])
            published = [
                (publication, context, document)
                for publication, context in items
                if (document := found.get(publication.job.id)) is not None
            ]
            async with connection.pipeline():
                await self._tell(connection, published)
        return [found[item.job.id] is not None if item.job.id in found else None for item, _ in items]

    async def _tell(self, connection: Connection, published: Sequence[tuple[Publication, Context, Document]]) -> None:
        await self._records.save_chunks(
            connection, [(item.document.key, item.version, chunk) for item, _, _ in published for chunk in item.chunks]
        )
        events, follow_ups, facts = [], [], []
        for item, context, document in published:
            told = History(document_id=document.id, version=item.version, attempt=item.job.attempt, key=document.key)
            events += [*told.entered(passage(item.document.state, DocumentState.INDEXING)), told.ready(document)]
            facts += [context.run(history.indexed, document)] if document.live else []
            follow_ups += context.run(_follow_ups, item, document)
        await self._queue.append(connection, events)
        await self._queue.emit(connection, facts)
        await self._queue.enqueue(connection, follow_ups)

    async def drop(self, job: Job, document: Document | None, version: Version | None) -> None:
        """Complete a job whose version is not wanted, once nothing is left of it in the index."""
        if document is not None and version is not None:
            await self._writer.take_back(document, version)
        async with self._database.transaction() as connection:
            if document is None:
                # An attempt before this may have written after the deletion.
                await self._queue.enqueue(connection, [history.job(DELETE, job.payload["document_id"])])
            await jobs.complete(connection, job)


def _follow_ups(item: Publication, document: Document) -> list[NewJob]:
    wanted = []
    if document.metadata_revision != item.parse.metadata_revision:
        wanted.append(history.job(SYNC_ATTRIBUTES, document.key))
    if item.version > 1:
        wanted.append(history.job(PURGE, document.key, before_version=item.version))
    return wanted
