"""The way of a version from bytes to READY, in Postgres. Every write asks whether the version is still wanted."""

from collections.abc import Sequence
from dataclasses import asdict

from loremesh_kit.postgres import Database

from loremesh_ingestion.adapters.postgres_rows import DOCUMENT, VERSION, document, json
from loremesh_ingestion.adapters.postgres_rows import version as version_of
from loremesh_ingestion.domain.chunking import Chunk
from loremesh_ingestion.domain.document import Document, DocumentState, Failure
from loremesh_ingestion.domain.version import Version
from loremesh_ingestion.records import Connection, Parse

_LOAD = f"""
SELECT {DOCUMENT}, {VERSION} FROM documents
LEFT JOIN document_versions ON document_versions.document_id = documents.id AND document_versions.version = %s
WHERE documents.id = %s
"""  # noqa: S608 - made of constants, as all statements here

_WANTED = """
id = %(document_id)s AND latest_version = %(version)s
    AND state IN ('UPLOADED', 'PARSING', 'CHUNKING', 'EMBEDDING', 'INDEXING')
"""

_ENTER = f"""
UPDATE documents SET state = %(state)s, batches_total = %(batches_total)s, revision = revision + 1, update_time = now()
WHERE {_WANTED}
"""  # noqa: S608

_SAVE_PARSE = """
UPDATE document_versions SET
    text_key = %(text_key)s, text_landmarks = %(text_landmarks)s, text_chars = %(text_chars)s,
    media_type = %(media_type)s, title = %(title)s, page_count = %(page_count)s, chunk_count = %(chunk_count)s,
    token_count = %(token_count)s, metadata_revision = %(metadata_revision)s
WHERE document_id = %(document_id)s AND version = %(version)s
"""

_SAVE_CHUNKS = """
INSERT INTO chunks (document_id, version, index, content, start_char, end_char, page, heading_path, token_count)
SELECT %(document_id)s, %(version)s, index, text, start, "end", page, heading_path, token_count
FROM jsonb_to_recordset(%(chunks)s) AS chunk (
    index integer, text text, start bigint, "end" bigint, page integer, heading_path text[], token_count integer
)
"""

_CHUNKS = """
SELECT index, content AS text, start_char AS start, end_char AS end, page, heading_path, token_count FROM chunks
WHERE document_id = %s AND version = %s AND index >= %s ORDER BY index LIMIT %s
"""

# A version deleted meanwhile has no row: the batch is then not counted, and its writer takes back what it wrote.
_MARK_BATCH = """
INSERT INTO finished_batches (document_id, version, batch)
SELECT document_id, version, %(batch)s FROM document_versions
WHERE document_id = %(document_id)s AND version = %(version)s FOR KEY SHARE
ON CONFLICT DO NOTHING
"""

_COUNT_BATCH = f"""
UPDATE documents SET batches_done = batches_done + %(more)s, revision = revision + 1, update_time = now()
WHERE {_WANTED} RETURNING {DOCUMENT}
"""  # noqa: S608

_PUBLISH = f"""
UPDATE documents SET
    state = 'READY', version = found.version, batches_done = greatest(batches_total, 1),
    batches_total = greatest(batches_total, 1), media_type = found.media_type,
    title = CASE WHEN title_given THEN documents.title ELSE coalesce(nullif(found.title, ''), filename) END,
    chunk_count = found.chunk_count, token_count = found.token_count, page_count = found.page_count,
    text_chars = found.text_chars, revision = revision + 1, update_time = now()
FROM (
    SELECT * FROM document_versions WHERE document_id = %(document_id)s AND version = %(version)s
) AS found
WHERE id = %(document_id)s AND latest_version = %(version)s
    AND state IN ('UPLOADED', 'PARSING', 'CHUNKING', 'EMBEDDING', 'INDEXING')
RETURNING {DOCUMENT}
"""  # noqa: S608

_FAIL = f"""
UPDATE documents SET state = 'FAILED', failure = %(failure)s, revision = revision + 1, update_time = now()
WHERE {_WANTED}
"""  # noqa: S608

_OUTDATED = """
WITH versions AS (
    SELECT version, unnest(ARRAY[object_key, text_key]) AS key FROM document_versions
    WHERE document_id = %(document_id)s
)
SELECT DISTINCT key FROM versions WHERE version < %(before_version)s AND key IS NOT NULL
    AND key NOT IN (SELECT key FROM versions WHERE version >= %(before_version)s AND key IS NOT NULL)
"""

_FORGET = "DELETE FROM document_versions WHERE document_id = %s AND version < %s"


class PostgresIndexing:
    """The tables `document_versions`, `chunks` and `finished_batches`, and what they make of a document."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def load(self, document_id: str, version: int) -> tuple[Document | None, Version | None]:
        """Both in one round trip."""
        rows = await self._database.fetch(_LOAD, [version, document_id])
        if not rows:
            return None, None
        found = rows[0]["version_version"] is not None
        return document(rows[0]), version_of(rows[0]) if found else None

    async def enter(
        self, connection: Connection, document_id: str, version: int, state: DocumentState, *, batches_total: int = 0
    ) -> bool:
        """Only forward, which the caller knows from what it loaded."""
        parameters = {
            "document_id": document_id,
            "version": version,
            "state": state,
            "batches_total": batches_total,
        }
        return (await connection.execute(_ENTER, parameters)).rowcount == 1

    async def save_parse(self, connection: Connection, document_id: str, version: int, parse: Parse) -> None:
        """Into the version's row."""
        parameters = asdict(parse) | {"document_id": document_id, "version": version}
        await connection.execute(_SAVE_PARSE, parameters)

    async def save_chunks(
        self, connection: Connection, document_id: str, version: int, chunks: Sequence[Chunk]
    ) -> None:
        """One statement for all of them; COPY does not work under row-level security."""
        rows = json([asdict(chunk) for chunk in chunks])
        await connection.execute(_SAVE_CHUNKS, {"document_id": document_id, "version": version, "chunks": rows})

    async def chunks(self, document_id: str, version: int, *, start: int, limit: int) -> list[Chunk]:
        """In order."""
        rows = await self._database.fetch(_CHUNKS, [document_id, version, start, limit])
        return [Chunk(**{**row, "heading_path": tuple(row["heading_path"])}) for row in rows]

    async def finish_batch(self, connection: Connection, document_id: str, version: int, batch: int) -> Document | None:
        """The mark makes a batch done twice count once; the document's row lock gives concurrent ones an order."""
        parameters = {"document_id": document_id, "version": version, "batch": batch}
        marked = (await connection.execute(_MARK_BATCH, parameters)).rowcount
        row = await (await connection.execute(_COUNT_BATCH, {**parameters, "more": marked})).fetchone()
        return None if row is None else document(row)

    async def publish(self, connection: Connection, document_id: str, version: int) -> Document | None:
        """State, version and what the version is like change together."""
        cursor = await connection.execute(_PUBLISH, {"document_id": document_id, "version": version})
        row = await cursor.fetchone()
        return None if row is None else document(row)

    async def fail(self, connection: Connection, document_id: str, version: int, failure: Failure) -> bool:
        """The version that searches see, if there is one, stays."""
        parameters = {"document_id": document_id, "version": version, "failure": json(failure)}
        return (await connection.execute(_FAIL, parameters)).rowcount == 1

    async def outdated_keys(self, document_id: str, before_version: int) -> list[str]:
        """The bytes are shared by all versions made from them, and by their texts where bytes and text are the same."""
        rows = await self._database.fetch(_OUTDATED, {"document_id": document_id, "before_version": before_version})
        return [row["key"] for row in rows]

    async def forget(self, connection: Connection, document_id: str, before_version: int) -> None:
        """Chunks and marks go with their versions."""
        await connection.execute(_FORGET, [document_id, before_version])
