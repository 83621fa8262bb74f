"""Forgetting in Postgres: hidden at once, purged from the index and then from the table, with a receipt that counts."""

from collections.abc import Mapping
from typing import Any, LiteralString

from loremesh_kit import jobs
from loremesh_kit.ids import new_id
from loremesh_kit.jobs import FenceLost, Job
from loremesh_kit.postgres import Database, Row
from psycopg import AsyncConnection

from loremesh_agent.domain.memories import Receipt

FORGET = "forget-memories"
_ATTEMPTS = 1000
_PURGED_AT_ONCE = 200

RECEIPT = "id, memories, index_count, postgres_count, create_time, finish_time"

_HIDE = "UPDATE memories SET receipt_id = %(receipt_id)s, vector_pending = false WHERE "

_INSERT = f"""
INSERT INTO memory_receipts (id, user_id, memories, finish_time)
VALUES (%(receipt_id)s, coalesce(%(user)s, ''), %(memories)s, CASE WHEN %(memories)s = 0 THEN now() END)
RETURNING {RECEIPT}
"""  # noqa: S608 - made of constants

# Shared: a claim by another waits for our commit, and the heartbeat of our own worker passes over a locked row.
_OURS = """
SELECT 1 AS ours FROM jobs
WHERE id = %(id)s AND tenant = %(tenant)s AND fence = %(fence)s AND state = 'RUNNING' FOR SHARE
"""

_REMOVE_VECTORS = """
WITH gone AS (
    DELETE FROM memory_vectors USING memories
    WHERE memories.receipt_id = %(receipt_id)s AND memory_vectors.memory_id = memories.id RETURNING 1
)
UPDATE memory_receipts SET index_count = index_count + (SELECT count(*) FROM gone) WHERE id = %(receipt_id)s
"""

_REMOVE_MEMORIES = """
WITH gone AS (DELETE FROM memories WHERE receipt_id = %(receipt_id)s RETURNING 1)
UPDATE memory_receipts SET postgres_count = postgres_count + (SELECT count(*) FROM gone), finish_time = now()
WHERE id = %(receipt_id)s
"""

_EXPIRED = {
    "memories": """
        SELECT tenant, memory_id AS id FROM memory_expiries WHERE valid_until < now() - interval '1 day' LIMIT %s
    """,
    "receipts": "SELECT tenant, id FROM memory_receipts WHERE create_time < now() - interval '90 days' LIMIT %s",
}

_PURGE = {
    "memories": "DELETE FROM memories WHERE id = ANY(%s)",
    "receipts": "DELETE FROM memory_receipts WHERE id = ANY(%s)",
}


class PostgresMemoryWork:
    """What workers write of memories; see ports.MemoryWork."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def remove_vectors(self, job: Job) -> None:
        """See ports.MemoryWork."""
        async with self._database.transaction() as connection:
            parameters = {"id": job.id, "tenant": job.tenant, "fence": job.fence}
            if await (await connection.execute(_OURS, parameters)).fetchone() is None:
                raise FenceLost(job.id)
            await connection.execute(_REMOVE_VECTORS, {"receipt_id": job.subject_id})

    async def remove_memories(self, job: Job) -> None:
        """See ports.MemoryWork."""
        async with self._database.transaction() as connection:
            await connection.execute(_REMOVE_MEMORIES, {"receipt_id": job.subject_id})
            await jobs.complete(connection, job)

    async def complete(self, job: Job) -> None:
        """See ports.MemoryWork."""
        async with self._database.transaction() as connection:
            await jobs.complete(connection, job)


async def forget(connection: AsyncConnection[Row], target: LiteralString, parameters: Mapping[str, Any]) -> Receipt:
    """Hide the memories that fulfil the condition `target`, and have them purged."""
    values = {**parameters, "receipt_id": new_id()}
    hidden = (await connection.execute(_HIDE + target, values)).rowcount
    made = await (await connection.execute(_INSERT, {**values, "memories": hidden})).fetchone()
    if hidden:
        await jobs.enqueue(connection, kind=FORGET, payload={}, subject_id=values["receipt_id"], max_attempts=_ATTEMPTS)
    return receipt(made or {})


async def purge_expired(database: Database) -> int:
    """Remove what is older than it is kept; how many rows there were."""
    removed = 0
    for name, expired in _EXPIRED.items():
        rows = await database.fetch_across_tenants(expired, [_PURGED_AT_ONCE])
        for tenant in {row["tenant"] for row in rows}:
            ids = [row["id"] for row in rows if row["tenant"] == tenant]
            await database.fetch(_PURGE[name], [ids], tenant=tenant)
        removed += len(rows)
    return removed


def receipt(row: Row) -> Receipt:
    """Of the columns in RECEIPT."""
    return Receipt(
        id=row["id"],
        memories=row["memories"],
        stores={"index": row["index_count"], "postgres": row["postgres_count"]},
        create_time=row["create_time"],
        finish_time=row["finish_time"],
    )
