"""Documents in Postgres. Row-level security adds the tenant to every statement."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from json import dumps
from typing import Any

from loremesh_kit import identity
from loremesh_kit.postgres import Database

from loremesh_ingestion.adapters.postgres_filter import compile_filter
from loremesh_ingestion.adapters.postgres_rows import DOCUMENT, LIVE, document, flat, json
from loremesh_ingestion.domain.attributes import times
from loremesh_ingestion.domain.chunking import ChunkingStrategy
from loremesh_ingestion.domain.document import Document
from loremesh_ingestion.records import Connection, DocumentQuery, NewContent, NewDocument

# Statements are made of constants; what comes from outside is a parameter.
_GET = f"SELECT {DOCUMENT} FROM documents WHERE id = %s AND state <> 'DELETING' AND {LIVE}"  # noqa: S608

_LOCK = f"SELECT {DOCUMENT} FROM documents WHERE key = %s FOR UPDATE"  # noqa: S608

# Once the rows that were there are locked no generation can be built with the document: the second statement sees all.
_LOCK_FIRST = "SELECT key FROM documents WHERE id = %s ORDER BY key FOR UPDATE"
_LOCK_ALL = f"SELECT {DOCUMENT} FROM documents WHERE id = %s ORDER BY live DESC, key FOR UPDATE"  # noqa: S608

# Of documents just alike that come in at the same time the second finds the first. In the order of the keys, lest two
# transactions wait for each other.
_LOCK_CONTENT = "SELECT pg_advisory_xact_lock(key) FROM unnest(%s::bigint[]) AS key"

# Keeps a deletion of the store away until the documents are there to be deleted with it, and a new generation until
# they are there to be put into it.
_LOCK_STORES = "SELECT id FROM vector_stores WHERE id = ANY(%s) AND NOT deleting ORDER BY id FOR KEY SHARE"

_INSERT = f"""
WITH given AS (
    SELECT * FROM jsonb_to_recordset(%(documents)s) AS given (
        id text, vector_store_id text, title text, filename text, media_type text, size_bytes bigint, sha256 text,
        object_key text, attributes jsonb, attribute_times jsonb, chunking_strategy jsonb
    )
), line AS (
    SELECT vector_store_id, line.generation, line.embedding_model, line.chunking_strategy AS default_strategy,
        line.generation = store.generation AS is_live
    FROM index_generations AS line JOIN vector_stores AS store ON store.id = vector_store_id AND NOT deleting
    WHERE vector_store_id IN (SELECT vector_store_id FROM given)
), twin AS (
    SELECT DISTINCT ON (given.id) given.id AS given_id, {DOCUMENT}
    FROM given JOIN documents ON documents.vector_store_id = given.vector_store_id
        AND documents.sha256 = given.sha256 AND documents.filename = given.filename
        AND documents.title_given = (given.title <> '') AND given.title IN ('', documents.title)
        AND documents.attributes = given.attributes
        AND documents.chunking_strategy IS NOT DISTINCT FROM given.chunking_strategy
    WHERE documents.sha256 = ANY(%(hashes)s) AND documents.state NOT IN ('FAILED', 'DELETING') AND {LIVE}
    ORDER BY given.id, documents.id
), fresh AS MATERIALIZED (
    SELECT given.*, generation, embedding_model, default_strategy,
        CASE WHEN is_live THEN given.id ELSE gen_random_uuid()::text END AS key
    FROM given JOIN line USING (vector_store_id)
    WHERE given.id NOT IN (SELECT given_id FROM twin)
), version AS (
    INSERT INTO document_versions (document_id, version, object_key, embedding_model, chunking_strategy)
    SELECT key, 1, object_key, embedding_model, coalesce(chunking_strategy, default_strategy) FROM fresh
), inserted AS (
    INSERT INTO documents (
        key, id, vector_store_id, generation, title, title_given, filename, media_type, size_bytes, sha256, attributes,
        attribute_times, chunking_strategy, state
    )
    SELECT key, id, vector_store_id, generation, coalesce(nullif(title, ''), filename), title <> '', filename,
        media_type, size_bytes, sha256, attributes, attribute_times, chunking_strategy, 'UPLOADED'
    FROM fresh
    RETURNING id AS given_id, {DOCUMENT}
)
SELECT * FROM twin UNION ALL SELECT * FROM inserted ORDER BY live DESC
"""  # noqa: S608

_BEGIN_VERSION = f"""
UPDATE documents SET
    state = 'UPLOADED', failure = NULL, latest_version = latest_version + 1, batches_done = 0, batches_total = 0,
    chunking_strategy = coalesce(%(strategy)s, chunking_strategy), sha256 = coalesce(%(sha256)s, sha256),
    size_bytes = coalesce(%(size_bytes)s, size_bytes), media_type = coalesce(%(media_type)s, media_type),
    filename = coalesce(nullif(%(filename)s, ''), filename), revision = revision + 1, update_time = now()
WHERE key = %(key)s
RETURNING {DOCUMENT}
"""  # noqa: S608

_INSERT_VERSION = """
INSERT INTO document_versions (document_id, version, object_key, embedding_model, chunking_strategy)
SELECT documents.key, documents.latest_version, coalesce(%(object_key)s, previous.object_key), line.embedding_model,
    coalesce(documents.chunking_strategy, line.chunking_strategy)
FROM documents
JOIN index_generations AS line
    ON line.vector_store_id = documents.vector_store_id AND line.generation = documents.generation
JOIN document_versions AS previous
    ON previous.document_id = documents.key AND previous.version = documents.latest_version - 1
WHERE documents.key = %(key)s
"""

_CHANGE = f"""
UPDATE documents SET
    title = CASE
        WHEN %(title)s::text IS NULL THEN title
        WHEN %(title)s <> '' THEN %(title)s::text
        ELSE coalesce(nullif(
            (SELECT found.title FROM document_versions AS found
             WHERE found.document_id = documents.key AND found.version = documents.version), ''), filename)
    END,
    title_given = CASE WHEN %(title)s::text IS NULL THEN title_given ELSE %(title)s <> '' END,
    attributes = coalesce(%(attributes)s, attributes),
    attribute_times = coalesce(%(attribute_times)s, attribute_times),
    metadata_revision = metadata_revision + 1, revision = revision + 1, update_time = now()
WHERE key = %(key)s
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

    async def lock(self, connection: Connection, key: str) -> Document | None:
        """FOR UPDATE: whoever would change it, or publish a version of it, waits."""
        row = await (await connection.execute(_LOCK, [key])).fetchone()
        return None if row is None else document(row)

    async def lock_all(self, connection: Connection, document_id: str) -> list[Document]:
        """One round trip."""
        async with connection.pipeline():
            await connection.execute(_LOCK_FIRST, [document_id])
            cursor = await connection.execute(_LOCK_ALL, [document_id])
        return [document(row) for row in await cursor.fetchall()]

    async def insert(self, connection: Connection, documents: Sequence[NewDocument]) -> dict[str, list[Document]]:
        """All documents and first versions in one statement, which sees what others did before it got the locks."""
        alike: dict[str, list[NewDocument]] = defaultdict(list)
        for each in documents:
            alike[_likeness(each)].append(each)
        first = [group[0] for group in alike.values()]
        rows = [flat(each) | {"attribute_times": times(each.attributes)} for each in first]
        hashes = [each.sha256 for each in first]
        async with connection.pipeline():
            await connection.execute(_LOCK_STORES, [sorted({each.vector_store_id for each in first})])
            await connection.execute(_LOCK_CONTENT, [sorted({_content_key(each) for each in first})])
            cursor = await connection.execute(_INSERT, {"documents": json(rows), "hashes": hashes})
        found: dict[str, list[Document]] = defaultdict(list)
        for row in await cursor.fetchall():
            found[row["given_id"]].append(document(row))
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
        parameters = {"key": document.key, "strategy": json(strategy), **_content(content)}
        begun = await _one(connection, _BEGIN_VERSION, parameters)
        await connection.execute(_INSERT_VERSION, parameters)
        return begun or document

    async def change(
        self, connection: Connection, document: Document, *, title: str | None, attributes: Mapping[str, Any] | None
    ) -> Document:
        """The index is to follow: `metadata_revision` tells that it has not yet."""
        parameters = {
            "key": document.key,
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
    conditions, parameters = ["state <> 'DELETING'", LIVE], []
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
