"""Documents in Postgres. Row-level security adds the tenant to every statement."""

from collections.abc import Mapping, Sequence
from typing import Any

from loremesh_kit.postgres import Database

from loremesh_ingestion.adapters.postgres_filter import compile_filter
from loremesh_ingestion.adapters.postgres_rows import DOCUMENT, document, flat, json
from loremesh_ingestion.domain.attributes import times
from loremesh_ingestion.domain.chunking import ChunkingStrategy
from loremesh_ingestion.domain.document import Document
from loremesh_ingestion.records import Connection, DocumentQuery, NewDocument

# Statements are made of constants; what comes from outside is a parameter.
_GET = f"SELECT {DOCUMENT} FROM documents WHERE id = %s AND state <> 'DELETING'"  # noqa: S608

_LOCK = f"SELECT {DOCUMENT} FROM documents WHERE id = %s FOR UPDATE"  # noqa: S608

# The lock keeps a deletion of the store away until the documents are there to be deleted with it.
_INSERT = f"""
WITH given AS (
    SELECT * FROM jsonb_to_recordset(%(documents)s) AS given (
        id text, vector_store_id text, title text, filename text, media_type text, size_bytes bigint, sha256 text,
        object_key text, attributes jsonb, attribute_times jsonb, chunking_strategy jsonb
    )
), store AS (
    SELECT id AS vector_store_id, embedding_model, chunking_strategy AS default_strategy FROM vector_stores
    WHERE id IN (SELECT vector_store_id FROM given) AND NOT deleting FOR KEY SHARE
), version AS (
    INSERT INTO document_versions (document_id, version, object_key, embedding_model, chunking_strategy)
    SELECT id, 1, object_key, embedding_model, coalesce(chunking_strategy, default_strategy)
    FROM given JOIN store USING (vector_store_id)
)
INSERT INTO documents (
    id, vector_store_id, title, title_given, filename, media_type, size_bytes, sha256, attributes, attribute_times,
    chunking_strategy, state
)
SELECT id, vector_store_id, coalesce(nullif(title, ''), filename), title <> '', filename, media_type, size_bytes,
    sha256, attributes, attribute_times, chunking_strategy, 'UPLOADED'
FROM given JOIN store USING (vector_store_id)
RETURNING {DOCUMENT}
"""  # noqa: S608

_BEGIN_VERSION = f"""
UPDATE documents SET
    state = 'UPLOADED', failure = NULL, latest_version = latest_version + 1, batches_done = 0, batches_total = 0,
    chunking_strategy = coalesce(%(strategy)s, chunking_strategy), revision = revision + 1, update_time = now()
WHERE id = %(id)s
RETURNING {DOCUMENT}
"""  # noqa: S608

_INSERT_VERSION = """
INSERT INTO document_versions (document_id, version, object_key, embedding_model, chunking_strategy)
SELECT documents.id, documents.latest_version, previous.object_key, store.embedding_model,
    coalesce(documents.chunking_strategy, store.chunking_strategy)
FROM documents
JOIN vector_stores AS store ON store.id = documents.vector_store_id
JOIN document_versions AS previous
    ON previous.document_id = documents.id AND previous.version = documents.latest_version - 1
WHERE documents.id = %(id)s
"""

_CHANGE = f"""
UPDATE documents SET
    title = CASE
        WHEN %(title)s::text IS NULL THEN title
        WHEN %(title)s <> '' THEN %(title)s::text
        ELSE coalesce(nullif(
            (SELECT found.title FROM document_versions AS found
             WHERE found.document_id = documents.id AND found.version = documents.version), ''), filename)
    END,
    title_given = CASE WHEN %(title)s::text IS NULL THEN title_given ELSE %(title)s <> '' END,
    attributes = coalesce(%(attributes)s, attributes),
    attribute_times = coalesce(%(attribute_times)s, attribute_times),
    metadata_revision = metadata_revision + 1, revision = revision + 1, update_time = now()
WHERE id = %(id)s
RETURNING {DOCUMENT}
"""  # noqa: S608


class PostgresDocuments:
    """The table `documents`."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def get(self, document_id: str) -> Document | None:
        """One round trip."""
        rows = await self._database.fetch(_GET, [document_id])
        return document(rows[0]) if rows else None

    async def page(self, query: DocumentQuery, *, after: str, limit: int) -> list[Document]:
        """Ids are UUIDv7, so newest first is by id; every restriction is evaluated by Postgres."""
        conditions, parameters = _conditions(query, after)
        rows = await self._database.fetch(
            f"SELECT {DOCUMENT} FROM documents WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT %s",  # noqa: S608
            [*parameters, limit],
        )
        return [document(row) for row in rows]

    async def lock(self, connection: Connection, document_id: str) -> Document | None:
        """FOR UPDATE: whoever would change it, or publish a version of it, waits."""
        row = await (await connection.execute(_LOCK, [document_id])).fetchone()
        return None if row is None else document(row)

    async def insert(self, connection: Connection, documents: Sequence[NewDocument]) -> dict[str, Document]:
        """All documents and first versions in one statement."""
        rows = [flat(each) | {"attribute_times": times(each.attributes)} for each in documents]
        cursor = await connection.execute(_INSERT, {"documents": json(rows)})
        return {row["id"]: document(row) for row in await cursor.fetchall()}

    async def begin_version(
        self, connection: Connection, document: Document, strategy: ChunkingStrategy | None
    ) -> Document:
        """Two statements: the second sees the number that the first has made."""
        parameters = {"id": document.id, "strategy": json(strategy)}
        begun = await _one(connection, _BEGIN_VERSION, parameters)
        await connection.execute(_INSERT_VERSION, parameters)
        return begun or document

    async def change(
        self, connection: Connection, document: Document, *, title: str | None, attributes: Mapping[str, Any] | None
    ) -> Document:
        """The index is to follow: `metadata_revision` tells that it has not yet."""
        parameters = {
            "id": document.id,
            "title": title,
            "attributes": json(attributes),
            "attribute_times": None if attributes is None else json(times(attributes)),
        }
        return await _one(connection, _CHANGE, parameters) or document


def _conditions(query: DocumentQuery, after: str) -> tuple[list[str], list[Any]]:
    conditions, parameters = ["state <> 'DELETING'"], []
    for condition, value in (
        ("id < %s", after),
        ("vector_store_id = %s", query.vector_store_id),
        ("state = %s", query.state),
        ("sha256 = %s", query.sha256),
    ):
        if value:
            conditions.append(condition)
            parameters.append(value)
    if query.filter is not None:
        condition, more = compile_filter(query.filter)
        conditions.append(condition)
        parameters.extend(more)
    return conditions, parameters


async def _one(connection: Connection, statement: str, parameters: Mapping[str, Any]) -> Document | None:
    row = await (await connection.execute(statement, parameters)).fetchone()
    return None if row is None else document(row)
