"""Vector stores: made, changed, listed and deleted; the default one is made when it is first needed."""

from collections.abc import Sequence
from dataclasses import replace

from loremesh_kit.errors import EtagMismatch, PageTokenInvalid
from loremesh_kit.ids import new_id
from loremesh_kit.pages import Position
from loremesh_kit.postgres import Database

from loremesh_ingestion.domain.jobs import DELETE_VECTOR_STORE
from loremesh_ingestion.domain.vector_store import DEFAULT_ID, VectorStore, VectorStoreChange
from loremesh_ingestion.engine import history
from loremesh_ingestion.errors import (
    EmbeddingModelUnknown,
    VectorStoreAlreadyExists,
    VectorStoreInUse,
    VectorStoreNotFound,
)
from loremesh_ingestion.ports import Embedder
from loremesh_ingestion.records import QueueRecords, VectorStoreDeletionRecords, VectorStoreRecords


class VectorStores:
    """The use cases of VectorStoreService."""

    def __init__(
        self,
        *,
        database: Database,
        records: VectorStoreRecords,
        deletions: VectorStoreDeletionRecords,
        queue: QueueRecords,
        embedder: Embedder,
    ) -> None:
        self._database = database
        self._records = records
        self._deletions = deletions
        self._queue = queue
        self._embedder = embedder

    async def get(self, vector_store_id: str) -> VectorStore:
        """Raises VectorStoreNotFound; the default one is made if need be."""
        store = await self._records.get(vector_store_id)
        if store is None and vector_store_id == DEFAULT_ID:
            await self.make_default()
            store = await self._records.get(vector_store_id)
        if store is None:
            raise VectorStoreNotFound(vector_store_id)
        return store

    async def make_default(self) -> None:
        """Make the tenant's default store, on the embedding service's default model, unless it is there."""
        store = VectorStore(id=DEFAULT_ID, display_name="Default", embedding_model=await self.model(""))
        async with self._database.transaction() as connection:
            await self._records.insert(connection, store)

    async def page(self, *, after: Position | None, limit: int) -> Sequence[VectorStore]:
        """Newest first; raises PageTokenInvalid."""
        if after is None:
            await self.get(DEFAULT_ID)
        try:
            return await self._records.page(after=after, limit=limit)
        except ValueError as error:
            raise PageTokenInvalid from error

    async def create(self, store: VectorStore) -> VectorStore:
        """Raises EmbeddingModelUnknown and VectorStoreAlreadyExists; an empty id means a new one."""
        if store.id == DEFAULT_ID:
            raise VectorStoreAlreadyExists(store.id)  # always: it is made when it is first asked for
        store = replace(store, id=store.id or new_id(), embedding_model=await self.model(store.embedding_model))
        async with self._database.transaction() as connection:
            if not await self._records.insert(connection, store):
                raise VectorStoreAlreadyExists(store.id)
        return await self.get(store.id)

    async def model(self, wanted: str) -> str:
        """The id of the model `wanted`, of the default one when it is empty; raises EmbeddingModelUnknown."""
        models = await self._embedder.models()
        for model in models:
            if model.id == wanted or (model.default and not wanted):
                return model.id
        known = ", ".join(model.id for model in models)
        raise EmbeddingModelUnknown(f"There is no such model; there are: {known}.", field="embedding_model")

    async def update(self, vector_store_id: str, change: VectorStoreChange, *, etag: str) -> VectorStore:
        """Raises VectorStoreNotFound and, unless `etag` is empty or current, EtagMismatch."""
        await self.get(vector_store_id)
        async with self._database.transaction() as connection:
            store = await self._records.lock(connection, vector_store_id)
            if store is None:
                raise VectorStoreNotFound(vector_store_id)
            if etag not in ("", store.etag):
                raise EtagMismatch
            await self._records.change(connection, vector_store_id, change)
        return await self.get(vector_store_id)

    async def delete(self, vector_store_id: str, *, force: bool) -> None:
        """Hide it with all its documents and have them removed. Raises VectorStoreNotFound, VectorStoreInUse."""
        if vector_store_id == DEFAULT_ID:
            raise VectorStoreInUse("The default vector store cannot be deleted.", vector_store_id=vector_store_id)
        async with self._database.transaction() as connection:
            store = await self._records.lock(connection, vector_store_id)
            if store is None:
                raise VectorStoreNotFound(vector_store_id)
            if store.document_count and not force:
                message = f"It holds {store.document_count} documents; set force to delete them too."
                raise VectorStoreInUse(message, vector_store_id=vector_store_id)
            await self._deletions.hide(connection, vector_store_id)
            await self._queue.enqueue(connection, [history.job(DELETE_VECTOR_STORE, vector_store_id)])
