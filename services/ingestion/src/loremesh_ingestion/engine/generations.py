"""Generations of an index: begun, compared by whoever asks, switched at one instant, deleted."""

from collections.abc import Sequence

from loremesh_kit.postgres import Database

from loremesh_ingestion.domain.chunking import ChunkingStrategy
from loremesh_ingestion.domain.document import Document
from loremesh_ingestion.domain.generation import Generation, GenerationState
from loremesh_ingestion.domain.jobs import BUILD_GENERATION, DROP_GENERATION
from loremesh_ingestion.engine import history
from loremesh_ingestion.engine.history import History
from loremesh_ingestion.engine.vector_stores import VectorStores
from loremesh_ingestion.errors import (
    GenerationAlreadyExists,
    GenerationNotFound,
    GenerationStateUnsuitable,
    VectorStoreNotFound,
)
from loremesh_ingestion.records import Connection, GenerationRecords, NewEvent, QueueRecords, VectorStoreRecords


class Generations:
    """The use cases of IndexGenerationService. All but reading lock the vector store."""

    def __init__(
        self,
        *,
        database: Database,
        records: GenerationRecords,
        store_records: VectorStoreRecords,
        vector_stores: VectorStores,
        queue: QueueRecords,
    ) -> None:
        self._database = database
        self._records = records
        self._store_records = store_records
        self._vector_stores = vector_stores
        self._queue = queue

    async def all(self, vector_store_id: str) -> Sequence[Generation]:
        """Newest first; raises VectorStoreNotFound."""
        await self._vector_stores.get(vector_store_id)
        return await self._records.all(vector_store_id)

    async def get(self, vector_store_id: str, generation: int) -> Generation:
        """Raises VectorStoreNotFound, GenerationNotFound."""
        return _the(generation, await self.all(vector_store_id), vector_store_id)

    async def create(self, vector_store_id: str, *, model: str, strategy: ChunkingStrategy | None) -> Generation:
        """Begin the next one; an empty model and strategy None are those of the live one.

        Raises VectorStoreNotFound, EmbeddingModelUnknown, and GenerationAlreadyExists when there are two.
        """
        store = await self._vector_stores.get(vector_store_id)
        model = await self._vector_stores.model(model or store.embedding_model)
        async with self._database.transaction() as connection:
            found = await self._locked(connection, vector_store_id)
            if beside := [each.generation for each in found if not each.live]:
                raise GenerationAlreadyExists(vector_store_id, beside[0])
            live = next(each for each in found if each.live)
            number = await self._records.insert(
                connection, vector_store_id, embedding_model=model, strategy=strategy or live.chunking_strategy
            )
            await self._queue.enqueue(connection, [history.job(BUILD_GENERATION, vector_store_id, generation=number)])
        return await self.get(vector_store_id, number)

    async def activate(self, vector_store_id: str, generation: int) -> Generation:
        """Have searches see it from the commit on; nothing when they do.

        Raises VectorStoreNotFound, GenerationNotFound, GenerationStateUnsuitable while documents are missing in it.
        """
        async with self._database.transaction() as connection:
            found = await self._locked(connection, vector_store_id, quiet=generation)
            wanted = _the(generation, found, vector_store_id)
            if wanted.missing:
                message = f"{wanted.missing} documents are not indexed in it yet."
                raise GenerationStateUnsuitable(message, vector_store_id, generation, wanted.state)
            if not wanted.live:
                before = next(each.generation for each in found if each.live)
                ended = await self._records.activate(connection, vector_store_id, generation, before=before)
                await self._queue.append(connection, [_end(document) for document in ended])
                ready = [history.indexed(document) for document in ended if document.failure is None]
                await self._queue.emit(connection, ready)
        return await self.get(vector_store_id, generation)

    async def delete(self, vector_store_id: str, generation: int) -> None:
        """Raises VectorStoreNotFound, GenerationNotFound, GenerationStateUnsuitable for the live one."""
        async with self._database.transaction() as connection:
            wanted = _the(generation, await self._locked(connection, vector_store_id), vector_store_id)
            if wanted.state is GenerationState.LIVE:
                message = "The live generation cannot be deleted."
                raise GenerationStateUnsuitable(message, vector_store_id, generation, wanted.state)
            await self._records.delete(connection, vector_store_id, generation)
            model = wanted.embedding_model
            removal = history.job(DROP_GENERATION, vector_store_id, generation=generation, embedding_model=model)
            await self._queue.enqueue(connection, [removal])

    async def _locked(self, connection: Connection, vector_store_id: str, *, quiet: int = 0) -> Sequence[Generation]:
        if await self._store_records.lock(connection, vector_store_id) is None:
            raise VectorStoreNotFound(vector_store_id)
        return await self._records.quiesce(connection, vector_store_id, quiet)


def _the(generation: int, found: Sequence[Generation], vector_store_id: str) -> Generation:
    for each in found:
        if each.generation == generation:
            return each
    raise GenerationNotFound(vector_store_id, generation)


def _end(document: Document) -> NewEvent:
    told = History(document_id=document.id, version=document.latest_version)
    return told.ready(document) if document.failure is None else told.failed(document.failure)
