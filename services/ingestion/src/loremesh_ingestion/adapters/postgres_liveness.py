"""What searches may show, in Postgres: one statement by primary keys, since every search asks."""

from collections.abc import Sequence

from loremesh_kit.postgres import Database

from loremesh_ingestion.adapters.postgres_generations import DOCUMENT_GENERATION, DOCUMENT_ID, LIVE_GENERATION
from loremesh_ingestion.records import Live

_RESOLVE = f"""
WITH store AS (
    SELECT id, embedding_model, {LIVE_GENERATION} AS generation FROM vector_stores
    WHERE id = %(vector_store_id)s AND NOT deleting AND %(generation)s IN (0, {LIVE_GENERATION})
)
SELECT generation, embedding_model, coalesce(
    (SELECT jsonb_object_agg({DOCUMENT_ID}, version) FROM documents
     WHERE {DOCUMENT_ID} = ANY(%(document_ids)s) AND vector_store_id = store.id
        AND {DOCUMENT_GENERATION} = store.generation AND state <> 'DELETING' AND version > 0),
    '{{}}'
) AS versions
FROM store
"""  # noqa: S608 - made of constants

_ANY_STORE = f"""
SELECT 0::bigint AS generation, '' AS embedding_model,
    coalesce(jsonb_object_agg({DOCUMENT_ID}, version), '{{}}') AS versions
FROM documents WHERE {DOCUMENT_ID} = ANY(%(document_ids)s) AND state <> 'DELETING' AND version > 0
"""  # noqa: S608


class PostgresLiveness:
    """Reads the rows that every publication, switch and deletion writes."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def resolve(self, vector_store_id: str, generation: int, document_ids: Sequence[str]) -> Live | None:
        """One round trip. The documents of a vector store being deleted are so themselves."""
        parameters = {
            "vector_store_id": vector_store_id,
            "generation": generation,
            "document_ids": list(document_ids),
        }
        rows = await self._database.fetch(_RESOLVE if vector_store_id else _ANY_STORE, parameters)
        return Live(**rows[0]) if rows else None
