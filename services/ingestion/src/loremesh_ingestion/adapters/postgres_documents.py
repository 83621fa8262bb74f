"""Documents in Postgres. Row-level security adds the tenant to every statement."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from json import dumps
from typing import Any

from loremesh_kit import identity
from loremesh_kit.postgres import Database

from loremesh_ingestion.adapters.postgres_filter import compile_filter
from loremesh_ingestion.adapters.postgres_rows import DOCUMENT, document, flat, json
from loremesh_ingestion.domain.attributes import times
from loremesh_ingestion.domain.chunking import ChunkingStrategy
from loremesh_ingestion.domain.document import Document
from loremesh_ingestion.records import Connection, DocumentQuery, NewContent, NewDocument

# Statements are made of constants; what comes from outside is a parameter.
_GET = f"SELECT {DOCUMENT} FROM documents WHERE id = %s AND state <> 'DELETING'"  # noqa: S608

_LOCK = f"SELECT {DOCUMENT} FROM documents WHERE id = %s FOR UPDATE"  # noqa: S608

# Of documents just alike that come in at the same time the second finds the first. In the order of the keys, lest two
# transactions wait for each other.
_LOCK_CONTENT = "SELECT pg_advisory_xact_lock(key) FROM unnest(%s::bigint[]) AS key"

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
), twin AS (
    SELECT DISTINCT ON (given.id) given.id AS given_id, {DOCUMENT}
    FROM given JOIN documents ON documents.vector_store_id = given.vector_store_id
        AND documents.sha256 = given.sha256 AND documents.filename = given.filename
        AND documents.title_given = (given.title <> '') AND given.title IN ('', documents.title)
        AND documents.attributes = given.attributes
        AND documents.chunking_strategy IS NOT DISTINCT FROM given.chunking_strategy
    WHERE documents.sha256 = ANY(%(hashes)s) AND documents.state NOT IN ('FAILED', 'DELETING')
    ORDER BY given.id, documents.id
), fresh AS (
    SELECT given.*, embedding_model, default_strategy FROM given JOIN store USING (vector_store_id)
    WHERE given.id NOT IN (SELECT given_id FROM twin)
), version AS (
    INSERT INTO document_versions (document_id, version, object_key, embedding_model, chunking_strategy)
    SELECT id, 1, object_key, embedding_model, coalesce(chunking_strategy, default_strategy) FROM fresh
), inserted AS (
    INSERT INTO documents (
        id, vector_store_id, title, title_given, filename, media_type, size_bytes, sha256, attributes, attribute_times,
        chunking_strategy, state
    )
    SELECT id, vector_store_id, coalesce(nullif(title, ''), filename), title <> '', filename, media_type, size_bytes,
        sha256, attributes, attribute_times, chunking_strategy, 'UPLOADED'
    FROM fresh
    RETURNING id AS given_id, {DOCUMENT}
)
SELECT * FROM twin UNION ALL SELECT * FROM inserted
"""  # noqa: S608

_BEGIN_VERSION = f"""
UPDATE documents SET
    state = 'UPLOADED', failure = NULL, latest_version = latest_version + 1, batches_done = 0, batches_total = 0,
    chunking_strategy = coalesce(%(strategy)s, chunking_strategy), sha256 = coalesce(%(sha256)s, sha256),
    size_bytes = coalesce(%(size_bytes)s, size_bytes), media_type = coalesce(%(media_type)s, media_type),
    filename = coalesce(nullif(%(filename)s, ''), filename), revision = revision + 1, update_time = now()
WHERE id = %(id)s
RETURNING {DOCUMENT}
"""  # noqa: S608

_INSERT_VERSION = """
INSERT INTO document_versions (document_id, version, object_key, embedding_model, chunking_strategy)
SELECT documents.id, documents.latest_version, coalesce(%(object_key)s, previous.object_key), store.embedding_model,
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
        """All documents and first versions in one statement, which sees what others did before it got the locks."""
        alike: dict[str, list[NewDocument]] = defaultdict(list)
        for each in documents:
            alike[_likeness(each)].append(each)
        first = [group[0] for group in alike.values()]
        rows = [flat(each) | {"attribute_times": times(each.attributes)} for each in first]
        hashes = [each.sha256 for each in first]
        async with connection.pipeline():
            await connection.execute(_LOCK_CONTENT, [sorted({_content_key(each) for each in first})])
            cursor = await connection.execute(_INSERT, {"documents": json(rows), "hashes": hashes})
        found = {row["given_id"]: document(row) for row in await cursor.fetchall()}
        return {each.id: found[group[0].id] for group in alike.values() if group[0].id in found for each in group}

    async def begin_version(
        self,
        connection: Connection,
        document: Document,
        *,
        strategy: ChunkingStrategy | None,
        content: NewContent | None = None,
    ) -> Document:
        """Two statements: the second sees the number that the first has made."""
        parameters = {"id": document.id, "strategy": json(strategy), **_content(content)}
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


def _likeness(new: NewDocument) -> str:
    """The same for documents of which one is enough."""
    values = {name: value for name, value in flat(new).items() if name not in ("id", "object_key", "media_type")}
    return dumps(values, default=flat, sort_keys=True)


def _content_key(new: NewDocument) -> int:
    name = f"{identity.current().tenant}/{new.vector_store_id}/{new.sha256}"
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), signed=True)


def _content(new: NewContent | None) -> dict[str, Any]:
    if new is None:
        return dict.fromkeys(("filename", "media_type", "sha256", "size_bytes", "object_key"))
    return {"filename": new.filename, "media_type": new.media_type, **flat(new.stored)}


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
