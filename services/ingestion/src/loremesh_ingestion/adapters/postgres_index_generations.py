"""Generations in Postgres. What is decided about one is decided while its vector store is locked."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from loremesh_kit.postgres import Database

from loremesh_ingestion.adapters.postgres_rows import DOCUMENT, LIVE, document, json, strategy
from loremesh_ingestion.domain.chunking import ChunkingStrategy
from loremesh_ingestion.domain.document import Document
from loremesh_ingestion.domain.generation import Generation
from loremesh_ingestion.records import Connection

# `seen` is the document as it is live, `other` in the generation. Nothing that searches see may be lost by a switch,
# but for what cannot be read, nor give way to an older version; and what is on its way in both may go on in either.
_MISSING = """
other.key IS NULL OR seen.version > 0 AND NOT (
    other.state = 'READY'
    OR other.state = 'FAILED' AND NOT (other.failure ->> 'retryable')::boolean
        AND (other.version = 0 OR other.version >= seen.version)
    OR seen.state <> 'READY' AND other.version >= seen.version
)
"""

# Statements are made of constants; what comes from outside is a parameter.
_ALL = f"""
SELECT line.vector_store_id, line.generation, line.embedding_model, line.chunking_strategy, line.create_time,
    line.activate_time, line.generation = store.generation AS live, counted.*
FROM index_generations AS line
JOIN vector_stores AS store ON store.id = line.vector_store_id AND NOT store.deleting
CROSS JOIN LATERAL (
    SELECT count(*) AS documents_total, count(*) FILTER (WHERE other.state = 'READY') AS documents_ready,
        count(*) FILTER (WHERE other.state = 'FAILED') AS documents_failed,
        count(*) FILTER (WHERE {_MISSING}) AS missing
    FROM documents AS seen
    LEFT JOIN documents AS other ON other.id = seen.id AND other.generation = line.generation
    WHERE seen.vector_store_id = store.id AND seen.generation = store.generation AND seen.state <> 'DELETING'
) AS counted
WHERE line.vector_store_id = %s ORDER BY line.generation DESC
"""  # noqa: S608

_INSERT = """
WITH store AS (
    UPDATE vector_stores SET last_generation = last_generation + 1 WHERE id = %(id)s RETURNING id, last_generation
)
INSERT INTO index_generations (vector_store_id, generation, embedding_model, chunking_strategy)
SELECT id, last_generation, %(embedding_model)s, %(strategy)s FROM store RETURNING generation
"""

# A document that comes to its end in this very moment is waited for, and later ones wait: each end is told once.
_QUIESCE = """
SELECT key FROM documents WHERE vector_store_id = %s AND generation = %s
    AND state IN ('UPLOADED', 'PARSING', 'CHUNKING', 'EMBEDDING', 'INDEXING')
ORDER BY key FOR UPDATE
"""

_ACTIVATE = """
WITH line AS (
    UPDATE index_generations SET activate_time = now() WHERE vector_store_id = %(id)s AND generation = %(generation)s
    RETURNING embedding_model, chunking_strategy
)
UPDATE vector_stores SET generation = %(generation)s, embedding_model = line.embedding_model,
    chunking_strategy = line.chunking_strategy, revision = revision + 1, update_time = now()
FROM line WHERE id = %(id)s
"""

_ENDED = f"""
SELECT {DOCUMENT} FROM documents
JOIN documents AS before ON before.id = documents.id AND before.generation = %(before)s
WHERE documents.vector_store_id = %(id)s AND documents.generation = %(generation)s
    AND documents.state IN ('READY', 'FAILED') AND before.state <> documents.state
"""  # noqa: S608

# The store stays as it is, and nobody else builds.
_LOCK_LINE = """
SELECT line.generation FROM index_generations AS line JOIN vector_stores AS store ON store.id = line.vector_store_id
WHERE line.vector_store_id = %(id)s AND line.generation = %(generation)s AND NOT store.deleting
FOR KEY SHARE OF store FOR NO KEY UPDATE OF line
"""

# Waits for whoever replaces or deletes one of them, and is waited for.
_ABSENT = f"""
SELECT id FROM documents
WHERE vector_store_id = %(id)s AND id > %(after)s AND {LIVE} AND state <> 'DELETING' AND NOT EXISTS (
    SELECT 1 FROM documents AS other WHERE other.id = documents.id AND other.generation = %(generation)s
)
ORDER BY id LIMIT %(limit)s FOR KEY SHARE OF documents
"""  # noqa: S608

_BUILD = f"""
WITH source AS MATERIALIZED (
    SELECT documents.*, gen_random_uuid()::text AS new_key, versions.object_key, line.embedding_model,
        line.generation AS new_generation, coalesce(documents.chunking_strategy, line.chunking_strategy) AS strategy
    FROM documents
    JOIN document_versions AS versions
        ON versions.document_id = documents.key AND versions.version = documents.latest_version
    JOIN index_generations AS line
        ON line.vector_store_id = documents.vector_store_id AND line.generation = %(generation)s
    WHERE documents.id = ANY(%(ids)s) AND {LIVE}
), version AS (
    INSERT INTO document_versions (document_id, version, object_key, embedding_model, chunking_strategy)
    SELECT new_key, latest_version, object_key, embedding_model, strategy FROM source
)
INSERT INTO documents (
    key, id, vector_store_id, generation, title, title_given, filename, media_type, size_bytes, sha256, attributes,
    attribute_times, chunking_strategy, state, latest_version, metadata_revision, revision, create_time
)
SELECT new_key, id, vector_store_id, new_generation, title, title_given, filename, media_type, size_bytes, sha256,
    attributes, attribute_times, chunking_strategy, 'UPLOADED', latest_version, metadata_revision, revision, create_time
FROM source
RETURNING {DOCUMENT}
"""  # noqa: S608

_DROPPED = "SELECT key FROM documents WHERE vector_store_id = %s AND generation = %s ORDER BY key LIMIT %s"

_DROPPED_OBJECTS = """
WITH doomed AS (
    SELECT key, id FROM documents WHERE key = ANY(%(keys)s)
), needed AS (
    SELECT unnest(ARRAY[object_key, text_key]) AS key FROM documents AS other
    JOIN document_versions AS versions ON versions.document_id = other.key AND versions.version >= other.version
    WHERE other.id IN (SELECT id FROM doomed) AND other.key <> ALL(%(keys)s)
)
SELECT DISTINCT held.key FROM document_versions, unnest(ARRAY[object_key, text_key]) AS held (key)
WHERE document_id = ANY(%(keys)s) AND held.key IS NOT NULL
    AND held.key NOT IN (SELECT key FROM needed WHERE key IS NOT NULL)
"""


class PostgresIndexGenerations:
    """The table `index_generations`, and what a generation is of a store's documents."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def all(self, vector_store_id: str) -> list[Generation]:
        """With their documents counted, which takes a look at each."""
        return [_generation(row) for row in await self._database.fetch(_ALL, [vector_store_id])]

    async def quiesce(self, connection: Connection, vector_store_id: str, generation: int) -> list[Generation]:
        """All of them, the one named with no document that can come to its end before the transaction does."""
        await connection.execute(_QUIESCE, [vector_store_id, generation])
        rows = await (await connection.execute(_ALL, [vector_store_id])).fetchall()
        return [_generation(row) for row in rows]

    async def insert(
        self, connection: Connection, vector_store_id: str, *, embedding_model: str, strategy: ChunkingStrategy
    ) -> int:
        """A number that never was."""
        parameters = {"id": vector_store_id, "embedding_model": embedding_model, "strategy": json(strategy)}
        row = await (await connection.execute(_INSERT, parameters)).fetchone()
        return int(row["generation"]) if row else 0

    async def build(
        self, connection: Connection, vector_store_id: str, generation: int, *, after: str, limit: int
    ) -> list[Document]:
        """From the bytes of the live documents' latest versions; version numbers are the same in all generations."""
        parameters = {"id": vector_store_id, "generation": generation, "after": after, "limit": limit}
        if await (await connection.execute(_LOCK_LINE, parameters)).fetchone() is None:
            return []
        ids = [row["id"] for row in await (await connection.execute(_ABSENT, parameters)).fetchall()]
        rows = await (await connection.execute(_BUILD, {"generation": generation, "ids": ids})).fetchall()
        return sorted((document(row) for row in rows), key=lambda each: each.id)

    async def activate(
        self, connection: Connection, vector_store_id: str, generation: int, *, before: int
    ) -> list[Document]:
        """One row says which generation is live; the documents are those which end otherwise than they were seen."""
        parameters = {"id": vector_store_id, "generation": generation, "before": before}
        await connection.execute(_ACTIVATE, parameters)
        return [document(row) for row in await (await connection.execute(_ENDED, parameters)).fetchall()]

    async def delete(self, connection: Connection, vector_store_id: str, generation: int) -> None:
        """The rows of its documents are more than one transaction should take."""
        statement = "DELETE FROM index_generations WHERE vector_store_id = %s AND generation = %s"
        await connection.execute(statement, [vector_store_id, generation])

    async def dropped(self, vector_store_id: str, generation: int, *, limit: int) -> tuple[list[str], list[str]]:
        """Objects that another generation of the same document may still read are left out."""
        keys = [row["key"] for row in await self._database.fetch(_DROPPED, [vector_store_id, generation, limit])]
        objects = await self._database.fetch(_DROPPED_OBJECTS, {"keys": keys})
        return keys, [row["key"] for row in objects]

    async def drop(self, keys: Sequence[str]) -> None:
        """Versions, chunks and marks go with them."""
        await self._database.fetch("DELETE FROM documents WHERE key = ANY(%s)", [list(keys)])


def _generation(row: Mapping[str, Any]) -> Generation:
    values = {field.name: row[field.name] for field in fields(Generation)}
    return Generation(**values | {"chunking_strategy": strategy(row["chunking_strategy"]) or ChunkingStrategy()})
