"""What searches may show, in Postgres: one statement by primary keys, since every search asks."""

from collections.abc import Sequence

from loremesh_kit.postgres import Database

from loremesh_ingestion.adapters.postgres_rows import LIVE
from loremesh_ingestion.records import Live

_RESOLVE = """
WITH store AS (
    SELECT line.vector_store_id AS id, line.embedding_model, line.generation
    FROM vector_stores JOIN index_generations AS line ON line.vector_store_id = vector_stores.id
        AND line.generation = coalesce(nullif(%(generation)s, 0), vector_stores.generation)
    WHERE vector_stores.id = %(vector_store_id)s AND NOT deleting
)
SELECT generation, embedding_model, coalesce(
    (SELECT jsonb_object_agg(documents.id, version) FROM documents
     WHERE documents.id = ANY(%(document_ids)s) AND vector_store_id = store.id
        AND documents.generation = store.generation AND state <> 'DELETING' AND version > 0),
    '{}'
) AS versions
FROM store
"""

_ANY_STORE = f"""
SELECT 0::bigint AS generation, '' AS embedding_model, coalesce(jsonb_object_agg(id, version), '{{}}') AS versions
FROM documents WHERE id = ANY(%(document_ids)s) AND {LIVE} AND state <> 'DELETING' AND version > 0
"""  # noqa: S608 - made of constants


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
