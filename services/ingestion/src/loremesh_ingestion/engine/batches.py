"""The job `embed_batch`: some chunks of a document; whoever does the last one publishes it."""

from dataclasses import fields

from loremesh_kit import jobs
from loremesh_kit.jobs import Job
from loremesh_kit.postgres import Database

from loremesh_ingestion.domain.document import Document, DocumentState, Standing, standing
from loremesh_ingestion.domain.version import BATCH_SIZE, Version, batch_range
from loremesh_ingestion.engine.history import History
from loremesh_ingestion.engine.publishing import Publisher
from loremesh_ingestion.engine.stages import stage
from loremesh_ingestion.engine.writing import Writer, carried
from loremesh_ingestion.errors import IndexIncomplete
from loremesh_ingestion.records import IndexingRecords, Parse, Publication, QueueRecords, Written


class Batches:
    """Embeds and indexes one batch of chunks."""

    def __init__(
        self, *, database: Database, records: IndexingRecords, queue: QueueRecords, writer: Writer, publisher: Publisher
    ) -> None:
        self._database = database
        self._records = records
        self._queue = queue
        self._writer = writer
        self._publisher = publisher

    async def __call__(self, job: Job) -> None:
        """Do it; raises StageFailed."""
        document, version = await self._records.load(job.subject_id, job.payload["version"])
        if document is None or version is None or standing(document, version.version) is not Standing.CURRENT:
            await self._publisher.drop(job, document, version)
            return
        written = await self._write(document, version, job.payload["batch"])
        now = await self._finish(job, document, version, written)
        if now is None:
            await self._publisher.drop(job, document, version)
        elif now.batches_done == now.batches_total:
            await self._publish(job, now, version)

    async def _write(self, document: Document, version: Version, batch: int) -> Written:
        chunks = await self._records.chunks(
            document.key, version.version, start=batch_range(batch).start, limit=BATCH_SIZE
        )
        target = carried(document, version, found_title=version.title)
        # The title may change while batches are done; all of them are embedded with the same one.
        return await self._writer.write(
            target, chunks, embedded_title=version.embedded_title, key=document.key, since=document.version
        )

    async def _finish(self, job: Job, document: Document, version: Version, written: Written) -> Document | None:
        """Count the batch; its job is complete with it unless it was the last one, which has still to publish."""
        batch = job.payload["batch"]
        async with self._database.transaction() as connection:
            now = await self._records.finish_batch(connection, document.key, version.version, batch, written)
            if now is not None:
                history = History(
                    document_id=document.id, version=version.version, attempt=job.attempt, key=document.key
                )
                await self._queue.append(connection, [history.progressed(now)])
                if now.batches_done < now.batches_total:
                    await jobs.complete(connection, job)
        return now

    async def _publish(self, job: Job, document: Document, version: Version) -> None:
        with stage(DocumentState.INDEXING):
            await self._verify(document, version)
        parse = Parse(**{field.name: getattr(version, field.name) for field in fields(Parse)})
        written = await self._records.written(document.key, version.version)
        changes = written.changes(before=document.chunk_count)
        if not await self._publisher.publish(Publication(document, version.version, job, parse, changes)):
            await self._publisher.drop(job, document, version)

    async def _verify(self, document: Document, version: Version) -> None:
        """Compare the index with what was cut; when chunks are missing write all of them again, once an attempt."""
        target = carried(document, version, found_title=version.title)
        if await self._writer.count(target) == version.chunk_count:
            return
        for batch in range(document.batches_total):
            await self._write(document, version, batch)
        if await self._writer.count(target) != version.chunk_count:
            raise IndexIncomplete
