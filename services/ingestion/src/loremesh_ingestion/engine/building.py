"""The jobs `build_generation` and `drop_generation`: a generation's rows come and go some hundreds at a time."""

from loremesh_kit import jobs
from loremesh_kit.jobs import Job
from loremesh_kit.postgres import Database

from loremesh_ingestion.domain.jobs import MAX_ATTEMPTS, REBUILDING
from loremesh_ingestion.domain.reconciliation import SETTLED_SECONDS
from loremesh_ingestion.engine import history
from loremesh_ingestion.ports import BlobStore, SearchIndex
from loremesh_ingestion.records import GenerationRecords, QueueRecords

ROWS_AT_ONCE = 500
_WAITING_AT_MOST = 2000
_PAUSE_SECONDS = 1.0
# Whoever was frozen while it wrote, and died of it, has left chunks that no row tells of.
_ONCE_MORE_SECONDS = SETTLED_SECONDS


class BuildGeneration:
    """Puts every document of the vector store into the generation; each is indexed by a job of its own."""

    def __init__(self, *, database: Database, records: GenerationRecords, queue: QueueRecords) -> None:
        self._database = database
        self._records = records
        self._queue = queue

    async def __call__(self, job: Job) -> None:
        """Some of them, and a job for the next ones; documents that come in meanwhile are in it already.

        They give way to what is uploaded meanwhile. It waits while much is waiting, so that the queue stays short.
        """
        vector_store_id, generation, after = job.subject_id, job.payload["generation"], job.payload.get("after", "")
        crowded = await self._queue.waiting(limit=_WAITING_AT_MOST) >= _WAITING_AT_MOST
        async with self._database.transaction() as connection:
            if not crowded:
                built = await self._records.build(
                    connection, vector_store_id, generation, after=after, limit=ROWS_AT_ONCE
                )
                new_jobs = [history.index_job(each, priority=REBUILDING) for each in built]
                await self._queue.enqueue(connection, new_jobs)
                after = built[-1].id if len(built) == ROWS_AT_ONCE else None
            if after is not None:
                await jobs.enqueue(
                    connection,
                    kind=job.kind,
                    payload={"generation": generation, "after": after},
                    subject_id=vector_store_id,
                    delay=_PAUSE_SECONDS if crowded else 0,
                    max_attempts=MAX_ATTEMPTS,
                )
            await jobs.complete(connection, job)


class DropGeneration:
    """Removes a deleted generation: objects that nothing else needs, rows, and what the index holds."""

    def __init__(self, *, database: Database, records: GenerationRecords, blobs: BlobStore, index: SearchIndex) -> None:
        self._database = database
        self._records = records
        self._blobs = blobs
        self._index = index

    async def __call__(self, job: Job) -> None:
        """Rows first: whoever indexes one of them finds it gone, and takes back what it wrote."""
        vector_store_id, generation = job.subject_id, job.payload["generation"]
        while True:
            keys, objects = await self._records.dropped(vector_store_id, generation, limit=ROWS_AT_ONCE)
            if not keys:
                break
            await self._blobs.delete(objects)
            await self._records.drop(keys)
        await self._index.delete(
            vector_store_id=vector_store_id, generation=generation, embedding_model=job.payload["embedding_model"]
        )
        async with self._database.transaction() as connection:
            if not job.payload.get("once_more"):
                await jobs.enqueue(
                    connection,
                    kind=job.kind,
                    payload={**job.payload, "once_more": True},
                    subject_id=vector_store_id,
                    delay=_ONCE_MORE_SECONDS,
                    max_attempts=MAX_ATTEMPTS,
                )
            await jobs.complete(connection, job)
