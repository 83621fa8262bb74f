"""Vector stores in Postgres."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from loremesh_kit.pages import Position
from loremesh_kit.postgres import Database, Row

from loremesh_ingestion.adapters.postgres_rows import INDEX_PLACES, json, strategy
from loremesh_ingestion.domain.chunking import ChunkingStrategy
from loremesh_ingestion.domain.deletion import IndexPlace
from loremesh_ingestion.domain.vector_store import VectorStore, VectorStoreChange
from loremesh_ingestion.records import Connection

_COUNT = """
(SELECT count(*) FROM documents
 WHERE documents.vector_store_id = vector_stores.id AND documents.generation = vector_stores.generation
    AND documents.state <> 'DELETING') AS document_count
"""
_COLUMNS = ", ".join(
    _COUNT if field.name == "document_count" else f"vector_stores.{field.name}" for field in fields(VectorStore)
)

_GET = f"SELECT {_COLUMNS} FROM vector_stores WHERE id = %s AND NOT deleting"  # noqa: S608 - made of constants

_PAGE = f"""
SELECT {_COLUMNS} FROM vector_stores
WHERE NOT deleting AND (create_time, id) < (%s, %s) ORDER BY create_time DESC, id DESC LIMIT %s
"""  # noqa: S608

_INSERT = """
WITH store AS (
    INSERT INTO vector_stores (id, display_name, description, embedding_model, chunking_strategy, attributes)
    VALUES (%(id)s, %(display_name)s, %(description)s, %(embedding_model)s, %(chunking_strategy)s, %(attributes)s)
    ON CONFLICT DO NOTHING RETURNING id, generation, embedding_model, chunking_strategy
)
INSERT INTO index_generations (vector_store_id, generation, embedding_model, chunking_strategy, activate_time)
SELECT id, generation, embedding_model, chunking_strategy, now() FROM store
"""

_LOCK = "SELECT id FROM vector_stores WHERE id = %s AND NOT deleting FOR UPDATE"

_CHANGE = """
WITH line AS (
    UPDATE index_generations SET chunking_strategy = %(chunking_strategy)s
    WHERE vector_store_id = %(id)s AND %(chunking_strategy)s::jsonb IS NOT NULL
        AND generation = (SELECT generation FROM vector_stores WHERE id = %(id)s)
)
UPDATE vector_stores SET
    display_name = coalesce(%(display_name)s, display_name), description = coalesce(%(description)s, description),
    chunking_strategy = coalesce(%(chunking_strategy)s, chunking_strategy),
    attributes = coalesce(%(attributes)s, attributes), revision = revision + 1, update_time = now()
WHERE id = %(id)s
"""

_HIDE = f"""
WITH store AS (
    UPDATE vector_stores SET deleting = true WHERE id = %(id)s
), hidden AS (
    UPDATE documents SET state = 'DELETING', failure = NULL, revision = revision + 1, update_time = now()
    WHERE vector_store_id = %(id)s AND state <> 'DELETING' RETURNING id, vector_store_id
)
INSERT INTO deletions (id, document_id, vector_store_id, indexes)
SELECT gen_random_uuid()::text, id, vector_store_id, {INDEX_PLACES}
FROM (SELECT DISTINCT id, vector_store_id FROM hidden) AS documents
ON CONFLICT (tenant, document_id) DO NOTHING
"""  # noqa: S608

_PLACES = """
SELECT generation, embedding_model FROM index_generations WHERE vector_store_id = %(id)s
UNION SELECT documents.generation, embedding_model
FROM document_versions JOIN documents ON documents.key = document_versions.document_id
WHERE documents.vector_store_id = %(id)s
UNION SELECT (place ->> 0)::bigint, place ->> 1 FROM deletions, jsonb_array_elements(indexes) AS place
WHERE deletions.vector_store_id = %(id)s
"""

_DOOMED = "SELECT DISTINCT id FROM documents WHERE vector_store_id = %s AND state = 'DELETING' ORDER BY id LIMIT %s"

_REMOVE = "DELETE FROM vector_stores WHERE id = %s AND deleting"


class PostgresVectorStores:
    """The table `vector_stores`."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def get(self, vector_store_id: str) -> VectorStore | None:
        """With its documents counted."""
        rows = await self._database.fetch(_GET, [vector_store_id])
        return _store(rows[0]) if rows else None

    async def page(self, *, after: Position | None, limit: int) -> Sequence[VectorStore]:
        """The position's sort key is the creation time in ISO 8601; raises ValueError when it is not."""
        after = after or Position(sort_key="9999-12-31T23:59:59+00:00", id="")
        rows = await self._database.fetch(_PAGE, [datetime.fromisoformat(after.sort_key), after.id, limit])
        return [_store(row) for row in rows]

    async def insert(self, connection: Connection, store: VectorStore) -> bool:
        """False also for one that is being deleted: its index is not clean yet."""
        parameters = {
            "id": store.id,
            "display_name": store.display_name,
            "description": store.description,
            "embedding_model": store.embedding_model,
            "chunking_strategy": json(store.chunking_strategy),
            "attributes": json(store.attributes),
        }
        return (await connection.execute(_INSERT, parameters)).rowcount == 1

    async def lock(self, connection: Connection, vector_store_id: str) -> VectorStore | None:
        """Two statements: the second counts the documents of those whom the lock had to wait for."""
        await connection.execute(_LOCK, [vector_store_id])
        row = await (await connection.execute(_GET, [vector_store_id])).fetchone()
        return None if row is None else _store(row)

    async def change(self, connection: Connection, vector_store_id: str, change: VectorStoreChange) -> None:
        """Set what is not None."""
        parameters = {
            "id": vector_store_id,
            "display_name": change.display_name,
            "description": change.description,
            "chunking_strategy": json(change.chunking_strategy),
            "attributes": json(change.attributes),
        }
        await connection.execute(_CHANGE, parameters)

    async def hide(self, connection: Connection, vector_store_id: str) -> None:
        """The store and all its documents in one statement, with a receipt for each document."""
        await connection.execute(_HIDE, {"id": vector_store_id})

    async def places(self, vector_store_id: str) -> list[IndexPlace]:
        """The live one, and those of versions made under another, also of deleted documents."""
        return [IndexPlace(**row) for row in await self._database.fetch(_PLACES, {"id": vector_store_id})]

    async def doomed(self, vector_store_id: str, *, limit: int) -> list[str]:
        """Oldest first."""
        return [row["id"] for row in await self._database.fetch(_DOOMED, [vector_store_id, limit])]

    async def remove(self, connection: Connection, vector_store_id: str) -> None:
        """Only one that is being deleted; its documents must be gone."""
        await connection.execute(_REMOVE, [vector_store_id])


def _store(row: Mapping[str, Any] | Row) -> VectorStore:
    return VectorStore(**{**row, "chunking_strategy": strategy(row["chunking_strategy"]) or ChunkingStrategy()})
