"""What searches may show at this instant."""

from collections.abc import Sequence

from loremesh_ingestion.engine.vector_stores import VectorStores
from loremesh_ingestion.errors import GenerationNotFound
from loremesh_ingestion.records import Live, LivenessRecords


class Liveness:
    """The use case of ResolveVersions."""

    def __init__(self, *, records: LivenessRecords, vector_stores: VectorStores) -> None:
        self._records = records
        self._vector_stores = vector_stores

    async def resolve(self, vector_store_id: str, *, generation: int, document_ids: Sequence[str]) -> Live:
        """Raises VectorStoreNotFound, GenerationNotFound; the default store is made if need be."""
        live = await self._records.resolve(vector_store_id, generation, document_ids)
        if live is None:
            await self._vector_stores.get(vector_store_id)
            live = await self._records.resolve(vector_store_id, generation, document_ids)
        if live is None:
            raise GenerationNotFound(vector_store_id, generation)
        return live
