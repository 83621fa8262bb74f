"""The kit's queue, outbox and event log for many documents at once: one statement each, whatever their number.

What one statement costs is mostly the way to Postgres and back, so work that ends at the same time is committed
together. Rows are exactly those of the kit's own `enqueue`, `emit` and `append`.
"""

from collections.abc import Sequence

from loremesh_kit.ids import new_id
from loremesh_kit.outbox import OUTBOX
from loremesh_kit.postgres import Database, touch

from loremesh_ingestion.adapters.postgres_rows import LIVE, flat, json
from loremesh_ingestion.records import Connection, NewEvent, NewFact, NewJob

_ENQUEUE = """
WITH given AS (
    SELECT * FROM jsonb_to_recordset(%(jobs)s) AS given (
        id text, kind text, subject_id text, payload jsonb, principal text, request_id text, traceparent text,
        max_attempts integer, priority smallint
    )
), job AS (
    INSERT INTO jobs (
        tenant, id, kind, subject_id, principal, request_id, traceparent, payload, max_attempts, priority,
        announced_at, announcements
    )
    SELECT current_setting('app.tenant'), id, kind, subject_id, principal, request_id, traceparent, payload,
        max_attempts, priority, now(), 1
    FROM given
)
INSERT INTO outbox (tenant, id, subject, data, keep)
SELECT current_setting('app.tenant'), id || '.1', 'jobs.' || kind,
    jsonb_build_object('tenant', current_setting('app.tenant'), 'job_id', id), false
FROM given
"""

_WAITING = """
SELECT count(*) AS jobs FROM (
    SELECT 1 FROM jobs WHERE tenant = current_setting('app.tenant') AND state = 'QUEUED' LIMIT %s
) AS waiting
"""

_APPEND = f"""
WITH given AS (
    SELECT *, row_number() OVER (PARTITION BY run_id ORDER BY position) AS number
    FROM jsonb_to_recordset(%(events)s) AS given (
        position integer, run_id text, kind text, payload jsonb, attempt integer, path text[], key text
    )
    WHERE key = '' OR EXISTS (SELECT 1 FROM documents WHERE documents.key = given.key AND {LIVE})
), head AS (
    INSERT INTO event_heads (tenant, run_id, last_seq)
    SELECT current_setting('app.tenant'), run_id, count(*) FROM given GROUP BY run_id ORDER BY run_id
    ON CONFLICT (tenant, run_id) DO UPDATE
        SET last_seq = event_heads.last_seq + excluded.last_seq, last_at = now()
    RETURNING run_id, last_seq
), more AS (
    SELECT run_id, count(*) AS events FROM given GROUP BY run_id
)
INSERT INTO events (tenant, run_id, seq, kind, payload, attempt, path)
SELECT current_setting('app.tenant'), run_id, last_seq - events + number, kind, payload, attempt, path
FROM given JOIN head USING (run_id) JOIN more USING (run_id)
"""  # noqa: S608 - made of constants

_EMIT = """
INSERT INTO outbox (tenant, id, subject, data, headers, keep)
SELECT current_setting('app.tenant'), id, 'events.' || name, payload, headers, true
FROM jsonb_to_recordset(%(facts)s) AS given (id text, name text, payload jsonb, headers jsonb)
"""


class PostgresQueue:
    """Writes in the caller's transaction; a list may be empty."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def enqueue(self, connection: Connection, new_jobs: Sequence[NewJob]) -> list[str]:
        """One job each, announced at the commit; their ids."""
        ids = [new_id() for _ in new_jobs]
        if ids:
            rows = [{"id": id_, **flat(job)} for id_, job in zip(ids, new_jobs, strict=True)]
            await connection.execute(_ENQUEUE, {"jobs": json(rows)})
            touch(connection, OUTBOX)
        return ids

    async def waiting(self, *, limit: int) -> int:
        """Counts no further than `limit`."""
        (row,) = await self._database.fetch(_WAITING, [limit])
        return int(row["jobs"])

    async def append(self, connection: Connection, events: Sequence[NewEvent], *, watched: bool = True) -> None:
        """The next events of their runs, in this order; who watches them is woken by the commit."""
        if events:
            rows = [{"position": position, **flat(event)} for position, event in enumerate(events)]
            await connection.execute(_APPEND, {"events": json(rows)})
            for run_id in {event.run_id for event in events} if watched else ():
                touch(connection, f"runs.{run_id}")

    async def emit(self, connection: Connection, facts: Sequence[NewFact]) -> None:
        """Facts to publish after the commit."""
        if facts:
            rows = [{"id": new_id(), **flat(fact)} for fact in facts]
            await connection.execute(_EMIT, {"facts": json(rows)})
            touch(connection, OUTBOX)
