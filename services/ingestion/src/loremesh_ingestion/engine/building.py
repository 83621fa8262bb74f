"""The jobs `build_generation` and `drop_generation`: a generation's rows come and go some hundreds at a time."""

from loremesh_kit import jobs
from loremesh_kit.jobs import Job
from loremesh_kit.postgres import Database

from loremesh_ingestion.engine import history
from loremesh_ingestion.ports import BlobStore, SearchIndex
from loremesh_ingestion.records import GenerationRecords, QueueRecords

_ROWS_AT_ONCE = 500


class BuildGeneration:
    """Puts every document of the vector store into the generation; each is indexed by a job of its own."""

    def __init__(self, *, database: Database, records: GenerationRecords, queue: QueueRecords) -> None:
        self._database = database
        self._records = records
        self._queue = queue

    async def __call__(self, job: Job) -> None:
        """An attempt that died is taken up where it stopped; documents that come in meanwhile are in it already."""
        vector_store_id, generation, after = job.subject_id, job.payload["generation"], ""
        while not job.progress.completed:
            async with self._database.transaction() as connection:
                built = await self._records.build(
                    connection, vector_store_id, generation, after=after, limit=_ROWS_AT_ONCE
                )
                new_jobs = [history.index_job(each) for each in built]
                await self._queue.enqueue(connection, new_jobs)
                if len(built) < _ROWS_AT_ONCE:
                    await jobs.complete(connection, job)
                    return
            after = built[-1].id


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
            keys, objects = await self._records.dropped(vector_store_id, generation, limit=_ROWS_AT_ONCE)
            if not keys:
                break
            await self._blobs.delete(objects)
            await self._records.drop(keys)
        await self._index.delete(
            vector_store_id=vector_store_id, generation=generation, embedding_model=job.payload["embedding_model"]
        )
        async with self._database.transaction() as connection:
            await jobs.complete(connection, job)
