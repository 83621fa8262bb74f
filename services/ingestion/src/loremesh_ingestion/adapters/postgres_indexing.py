"""The way of a version from bytes to READY, in Postgres. Every write asks whether the version is still wanted."""

from collections.abc import Sequence

from loremesh_kit import identity
from loremesh_kit.postgres import Database, Row

from loremesh_ingestion.adapters.postgres_rows import DOCUMENT, VERSION, document, flat, json
from loremesh_ingestion.adapters.postgres_rows import version as version_of
from loremesh_ingestion.domain.chunking import Chunk
from loremesh_ingestion.domain.document import UNDERWAY, Document, DocumentState, Failure, may_enter
from loremesh_ingestion.domain.version import Version
from loremesh_ingestion.engine.batching import Batcher
from loremesh_ingestion.records import Connection, Parse, Publication, Written

_LOADS_AT_ONCE = 64

_LOAD = f"""
SELECT wanted.place, {DOCUMENT}, {VERSION}
FROM unnest(%(ids)s::text[], %(versions)s::bigint[]) WITH ORDINALITY AS wanted (id, version, place)
JOIN documents ON documents.key = wanted.id
LEFT JOIN document_versions
    ON document_versions.document_id = documents.key AND document_versions.version = wanted.version
    AND document_versions.document_id = ANY(%(ids)s)
WHERE documents.key = ANY(%(ids)s)
"""  # noqa: S608 - made of constants, as all statements here

_UNDERWAY = "documents.state IN ('UPLOADED', 'PARSING', 'CHUNKING', 'EMBEDDING', 'INDEXING')"

_WANTED = f"key = %(document_id)s AND latest_version = %(version)s AND {_UNDERWAY}"

_ENTER = f"""
UPDATE documents SET state = %(state)s, batches_total = %(batches_total)s, revision = revision + 1, update_time = now()
WHERE {_WANTED} AND state = ANY(%(origins)s)
"""  # noqa: S608

_SAVE_PARSE = """
UPDATE document_versions SET
    text_key = %(text_key)s, text_landmarks = %(text_landmarks)s, text_chars = %(text_chars)s,
    media_type = %(media_type)s, title = %(title)s, embedded_title = %(embedded_title)s,
    page_count = %(page_count)s, chunk_count = %(chunk_count)s, token_count = %(token_count)s,
    metadata_revision = %(metadata_revision)s
WHERE document_id = %(document_id)s AND version = %(version)s
"""

_SAVE_CHUNKS = """
INSERT INTO chunks (document_id, version, index, content, start_char, end_char, page, heading_path, token_count)
SELECT document_id, version, index, text, start, "end", page, heading_path, token_count
FROM jsonb_to_recordset(%(chunks)s) AS given (
    document_id text, version bigint, index integer, text text, start bigint, "end" bigint, page integer,
    heading_path text[], token_count integer
)
"""

_CHUNK = "index, content AS text, start_char AS start, end_char AS end, page, heading_path, token_count"

_CHUNKS = f"""
SELECT {_CHUNK} FROM chunks WHERE document_id = %s AND version = %s AND index >= %s ORDER BY index LIMIT %s
"""  # noqa: S608

_PAGES = """
SELECT
    coalesce(max(start_char) FILTER (WHERE page < %(first)s), 0) AS start,
    min(start_char) FILTER (WHERE page > %(last)s) AS "end"
FROM chunks WHERE document_id = %(key)s AND version = %(version)s
"""

_CHUNKS_READING = f"""
SELECT {_CHUNK} FROM chunks WHERE document_id = %s AND version = %s AND content = ANY(%s) ORDER BY index
"""  # noqa: S608

# A version deleted meanwhile has no row: the batch is then not counted, and its writer takes back what it wrote.
_MARK_BATCH = """
INSERT INTO finished_batches (document_id, version, batch, embedded, kept, recurring)
SELECT document_id, version, %(batch)s, %(embedded)s, %(kept)s, %(recurring)s FROM document_versions
WHERE document_id = %(document_id)s AND version = %(version)s FOR KEY SHARE
ON CONFLICT DO NOTHING
"""

_COUNT_BATCH = f"""
UPDATE documents SET batches_done = batches_done + %(more)s, revision = revision + 1, update_time = now()
WHERE {_WANTED} RETURNING {DOCUMENT}
"""  # noqa: S608

_WRITTEN = """
SELECT coalesce(sum(embedded), 0)::integer AS embedded, coalesce(sum(kept), 0)::integer AS kept, ARRAY(
    SELECT DISTINCT unnest(recurring) FROM finished_batches
    WHERE document_id = %(document_id)s AND version = %(version)s
) AS recurring
FROM finished_batches WHERE document_id = %(document_id)s AND version = %(version)s
"""

# Whoever holds the latest fence holds the job; the rows stay locked until the commit, so it cannot be lost on the way.
# The lists of ids repeat what the joins say: by them the planner knows that it is a matter of a few rows.
_PUBLISH = f"""
WITH given AS (
    SELECT * FROM jsonb_to_recordset(%(publications)s) AS given (
        job_id text, fence bigint, document_id text, version bigint, text_key text, text_landmarks bigint[],
        text_chars bigint, media_type text, title text, embedded_title text, page_count integer, chunk_count integer,
        token_count bigint, metadata_revision bigint, changes jsonb
    )
), held AS (
    SELECT given.* FROM given JOIN jobs ON jobs.id = given.job_id AND jobs.fence = given.fence
    WHERE jobs.state = 'RUNNING' AND jobs.id = ANY(%(job_ids)s) ORDER BY jobs.id FOR UPDATE OF jobs
), parsed AS (
    UPDATE document_versions SET
        text_key = held.text_key, text_landmarks = held.text_landmarks, text_chars = held.text_chars,
        media_type = held.media_type, title = held.title, embedded_title = held.embedded_title,
        page_count = held.page_count, chunk_count = held.chunk_count, token_count = held.token_count,
        metadata_revision = held.metadata_revision
    FROM held
    WHERE document_versions.document_id = held.document_id AND document_versions.version = held.version
        AND document_versions.document_id = ANY(%(document_ids)s)
), published AS (
    UPDATE documents SET
        state = 'READY', version = held.version, batches_done = greatest(batches_total, 1),
        batches_total = greatest(batches_total, 1), media_type = held.media_type,
        title = CASE WHEN title_given THEN documents.title ELSE coalesce(nullif(held.title, ''), filename) END,
        chunk_count = held.chunk_count, token_count = held.token_count, page_count = held.page_count,
        text_chars = held.text_chars, changes = held.changes, revision = revision + 1, update_time = now()
    FROM held
    WHERE documents.key = held.document_id AND documents.key = ANY(%(document_ids)s)
        AND latest_version = held.version AND {_UNDERWAY}
    RETURNING job_id AS completed_job_id, {DOCUMENT}
), completed AS (
    UPDATE jobs SET state = 'SUCCEEDED', lease_until = NULL, finished_at = now()
    FROM published WHERE jobs.id = completed_job_id AND jobs.id = ANY(%(job_ids)s)
)
SELECT held.job_id, published.* FROM held LEFT JOIN published ON completed_job_id = held.job_id
"""  # noqa: S608

_FAIL = f"""
UPDATE documents SET state = 'FAILED', failure = %(failure)s, revision = revision + 1, update_time = now()
WHERE {_WANTED}
"""  # noqa: S608

_EXISTS = "SELECT 1 FROM documents WHERE id = %s AND state <> 'DELETING' LIMIT 1"

# What any generation of the document may still read stays.
_OUTDATED = """
WITH versions AS (
    SELECT line.key AS line, versions.version >= line.version AS needed, unnest(ARRAY[object_key, text_key]) AS key,
        versions.version
    FROM documents AS line JOIN document_versions AS versions ON versions.document_id = line.key
    WHERE line.id = (SELECT id FROM documents WHERE key = %(key)s)
)
SELECT DISTINCT key FROM versions WHERE line = %(key)s AND version < %(before_version)s AND key IS NOT NULL
    AND key NOT IN (SELECT key FROM versions WHERE needed AND key IS NOT NULL)
"""

_FORGET = "DELETE FROM document_versions WHERE document_id = %s AND version < %s"


class PostgresIndexing:
    """The tables `document_versions`, `chunks` and `finished_batches`, and what they make of a document."""

    def __init__(self, *, database: Database) -> None:
        self._database = database
        self._loads: Batcher[str, tuple[str, int], tuple[Document | None, Version | None]] = Batcher(
            run=self._load, size=lambda _: 1, limit=_LOADS_AT_ONCE, at_once=1
        )

    async def exists(self, document_id: str) -> bool:
        """By the id that users know."""
        return bool(await self._database.fetch(_EXISTS, [document_id]))

    async def load(self, key: str, version: int) -> tuple[Document | None, Version | None]:
        """In one round trip, together with whatever else is asked for at the same time."""
        return await self._loads.submit(identity.current().tenant, (key, version))

    async def _load(
        self, tenant: str, wanted: Sequence[tuple[str, int]]
    ) -> Sequence[tuple[Document | None, Version | None]]:
        parameters = {"ids": [id_ for id_, _ in wanted], "versions": [version for _, version in wanted]}
        rows = {row["place"]: row for row in await self._database.fetch(_LOAD, parameters, tenant=tenant)}
        return [_loaded(rows.get(place)) for place in range(1, len(wanted) + 1)]

    async def enter(
        self, connection: Connection, key: str, version: int, state: DocumentState, *, batches_total: int = 0
    ) -> bool:
        """Only forward: by now another worker may be further than the caller, who does not know it has lost the job."""
        parameters = {
            "document_id": key,
            "version": version,
            "state": state,
            "origins": [origin for origin in UNDERWAY if origin is state or may_enter(origin, state)],
            "batches_total": batches_total,
        }
        return (await connection.execute(_ENTER, parameters)).rowcount == 1

    async def save_parse(self, connection: Connection, key: str, version: int, parse: Parse) -> None:
        """Into the version's row."""
        parameters = flat(parse) | {"document_id": key, "version": version}
        await connection.execute(_SAVE_PARSE, parameters)

    async def save_chunks(self, connection: Connection, chunks: Sequence[tuple[str, int, Chunk]]) -> None:
        """One statement for all of them; COPY does not work under row-level security."""
        if not chunks:
            return
        rows = [{"document_id": key, "version": version, **flat(chunk)} for key, version, chunk in chunks]
        await connection.execute(_SAVE_CHUNKS, {"chunks": json(rows)})

    async def chunks(self, key: str, version: int, *, start: int, limit: int) -> list[Chunk]:
        """In order."""
        rows = await self._database.fetch(_CHUNKS, [key, version, start, limit])
        return [_chunk(row) for row in rows]

    async def pages(self, key: str, version: int, *, first: int, last: int) -> tuple[int, int | None]:
        """All of its chunks are looked through."""
        (row,) = await self._database.fetch(_PAGES, {"key": key, "version": version, "first": first, "last": last})
        return row["start"], row["end"]

    async def chunks_reading(self, key: str, version: int, contents: Sequence[str]) -> list[Chunk]:
        """All of its chunks are looked through: some milliseconds for each batch of a long document."""
        rows = await self._database.fetch(_CHUNKS_READING, [key, version, list(contents)])
        return [_chunk(row) for row in rows]

    async def finish_batch(
        self, connection: Connection, key: str, version: int, batch: int, written: Written
    ) -> Document | None:
        """The mark makes a batch done twice count once; the document's row lock gives concurrent ones an order."""
        parameters = {"document_id": key, "version": version, "batch": batch}
        counts = {"embedded": written.embedded, "kept": written.kept, "recurring": sorted(written.recurring)}
        marked = (await connection.execute(_MARK_BATCH, parameters | counts)).rowcount
        row = await (await connection.execute(_COUNT_BATCH, {**parameters, "more": marked})).fetchone()
        return None if row is None else document(row)

    async def written(self, key: str, version: int) -> Written:
        """The same chunk of before may recur in several batches, and counts once."""
        (row,) = await self._database.fetch(_WRITTEN, {"document_id": key, "version": version})
        return Written(row["embedded"], row["kept"], frozenset(row["recurring"]))

    async def publish(self, connection: Connection, publications: Sequence[Publication]) -> dict[str, Document | None]:
        """Fence, parse, state, version and job in one statement: all of it or none."""
        rows = [
            {"job_id": each.job.id, "fence": each.job.fence, "document_id": each.document.key, "version": each.version}
            | flat(each.parse)
            | {"changes": each.changes}
            for each in publications
        ]
        parameters = {
            "publications": json(rows),
            "job_ids": [each.job.id for each in publications],
            "document_ids": [each.document.key for each in publications],
        }
        cursor = await connection.execute(_PUBLISH, parameters)
        return {
            row["job_id"]: None if row["completed_job_id"] is None else document(row) for row in await cursor.fetchall()
        }

    async def fail(self, connection: Connection, key: str, version: int, failure: Failure) -> bool:
        """The version that searches see, if there is one, stays."""
        parameters = {"document_id": key, "version": version, "failure": json(failure)}
        return (await connection.execute(_FAIL, parameters)).rowcount == 1

    async def outdated_keys(self, key: str, before_version: int) -> list[str]:
        """The bytes are shared by all versions made from them, and by their texts where bytes and text are the same."""
        rows = await self._database.fetch(_OUTDATED, {"key": key, "before_version": before_version})
        return [row["key"] for row in rows]

    async def forget(self, connection: Connection, key: str, before_version: int) -> None:
        """Chunks and marks go with their versions."""
        await connection.execute(_FORGET, [key, before_version])


def _chunk(row: Row) -> Chunk:
    return Chunk(**{**row, "heading_path": tuple(row["heading_path"])})


def _loaded(row: Row | None) -> tuple[Document | None, Version | None]:
    if row is None:
        return None, None
    return document(row), None if row["version_version"] is None else version_of(row)
