"""The job `index`: reads a document and indexes it, at once when it is small, else in batches which others may take."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from loremesh_kit import identity, jobs
from loremesh_kit.jobs import Job
from loremesh_kit.postgres import Database

from loremesh_ingestion.domain import objects
from loremesh_ingestion.domain.chunking import Chunk
from loremesh_ingestion.domain.document import Document, DocumentState, Standing, passage, standing
from loremesh_ingestion.domain.version import BATCH_SIZE, Version, batch_count
from loremesh_ingestion.engine import history
from loremesh_ingestion.engine.history import History
from loremesh_ingestion.engine.publishing import Publisher
from loremesh_ingestion.engine.reading import Reader, Reading
from loremesh_ingestion.engine.stages import stage
from loremesh_ingestion.engine.writing import Writer, carried
from loremesh_ingestion.errors import DocumentEmpty, IndexIncomplete
from loremesh_ingestion.records import IndexingRecords, Parse, Publication, QueueRecords

# A document that takes longer than a breath to read is seen to be PARSING; for others nobody could look that fast.
_LONG_READ_BYTES = 256 * 1024
_CHUNKS_AT_ONCE = 256


class Indexing:
    """Brings one version of a document from bytes to the index."""

    def __init__(
        self,
        *,
        database: Database,
        records: IndexingRecords,
        queue: QueueRecords,
        reader: Reader,
        writer: Writer,
        publisher: Publisher,
    ) -> None:
        self._database = database
        self._records = records
        self._queue = queue
        self._reader = reader
        self._writer = writer
        self._publisher = publisher

    async def __call__(self, job: Job) -> None:
        """Do it; raises StageFailed."""
        document, version = await self._records.load(job.subject_id, job.payload["version"])
        if document is None or version is None or standing(document, version.version) is not Standing.CURRENT:
            await self._publisher.drop(job, document, version)
            return
        if document.size_bytes >= _LONG_READ_BYTES:
            document = await self._announce(job, document)
        async with AsyncExitStack() as stack:
            with stage(DocumentState.PARSING):
                reading = await stack.enter_async_context(self._reader.read(document, version))
                parse = await self._parse(job, document, version, reading)
            if parse.chunk_count <= BATCH_SIZE:
                wanted = await self._index(job, document, version, reading, parse)
            else:
                wanted = await self._fan_out(job, document, reading, parse)
        if not wanted:
            await self._publisher.drop(job, document, version)

    async def _announce(self, job: Job, document: Document) -> Document:
        entered = passage(document.state, DocumentState.PARSING)
        if entered:
            async with self._database.transaction() as connection:
                await self._records.enter(connection, document.key, document.latest_version, DocumentState.PARSING)
                await self._queue.append(connection, _history(job, document).entered(entered))
        return replace(document, state=entered[-1] if entered else document.state)

    async def _parse(self, job: Job, document: Document, version: Version, reading: Reading) -> Parse:
        if reading.parsed.chunk_count == 0:
            raise DocumentEmpty
        key = objects.text_key(
            tenant=identity.current().tenant,
            document_id=document.id,
            generation=document.generation,
            version=version.version,
            fence=job.fence,
        )
        return Parse(
            text_key=await self._reader.keep_text(reading, document, version, key),
            text_landmarks=reading.text.landmarks,
            text_chars=reading.text.chars,
            media_type=reading.parsed.media_type,
            title=reading.parsed.title,
            embedded_title=carried(document, version, found_title=reading.parsed.title).title,
            page_count=len(reading.parsed.pages),
            chunk_count=reading.parsed.chunk_count,
            token_count=0,
            metadata_revision=document.metadata_revision,
        )

    async def _index(self, job: Job, document: Document, version: Version, reading: Reading, parse: Parse) -> bool:
        """Embed, write and publish in this job; False when the version is not wanted any more."""
        chunks = reading.chunks()
        target = carried(document, version, found_title=parse.title)
        written = await self._writer.write(
            target, chunks, embedded_title=parse.embedded_title, key=document.key, since=document.version
        )
        if job.attempt > 1:
            # An attempt before this may have cut it otherwise, with another release of the parser.
            with stage(DocumentState.INDEXING):
                if await self._writer.count(target) != len(chunks):
                    raise IndexIncomplete
        changes = written.changes(before=document.chunk_count)
        return await self._publisher.publish(
            Publication(document, version.version, job, _counted(parse, chunks), changes, chunks)
        )

    async def _fan_out(self, job: Job, document: Document, reading: Reading, parse: Parse) -> bool:
        """Keep the chunks and have their batches done; False when the version is not wanted any more."""
        batches = batch_count(parse.chunk_count)
        place = (document.key, document.latest_version)
        async with self._database.transaction() as connection:
            if not await self._records.enter(connection, *place, DocumentState.EMBEDDING, batches_total=batches):
                return False
            # Before the rows: those of another worker's attempt may be there, and then this one is not wanted.
            await jobs.complete(connection, job)
            async for chunks in reading.parsed.batches(_CHUNKS_AT_ONCE):
                await self._records.save_chunks(connection, [(*place, chunk) for chunk in chunks])
                parse = _counted(parse, chunks)
            await self._records.save_parse(connection, *place, parse)
            entered = passage(document.state, DocumentState.EMBEDDING)
            await self._queue.append(connection, _history(job, document).entered(entered))
            await self._queue.enqueue(
                connection,
                [history.batch_job(document, version=place[1], batch=batch) for batch in range(batches)],
            )
        return True


def _counted(parse: Parse, chunks: Sequence[Chunk]) -> Parse:
    return replace(parse, token_count=parse.token_count + sum(chunk.token_count for chunk in chunks))


def _history(job: Job, document: Document) -> History:
    return History(document_id=document.id, version=document.latest_version, attempt=job.attempt, key=document.key)
