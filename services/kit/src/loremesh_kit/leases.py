"""The worker's side of the jobs table: claim, hold on, give back, give up. Each statement states the fence it needs."""

from collections.abc import Awaitable, Callable, Collection

from psycopg import AsyncConnection

from loremesh_kit.errors import ServiceError
from loremesh_kit.jobs import FenceLost, Job
from loremesh_kit.postgres import Database, Row

OnDead = Callable[[AsyncConnection[Row], Job, ServiceError], Awaitable[None]]

_CLAIM = """
SELECT id, tenant, principal, request_id, kind, payload, attempt, fence, max_attempts, subject_id, deadline, traceparent
FROM claim_jobs(%(last)s, %(limit)s, %(lease)s)
"""

_ANY_DUE = """
SELECT 1 FROM jobs WHERE state = 'QUEUED' AND announced_at IS NOT NULL
ORDER BY tenant, priority DESC, due_at, id LIMIT 1
"""

# A row locked by its own handler's commit is still ours, but waiting for it would let the others' leases run out.
_EXTEND = """
WITH held AS MATERIALIZED (
    SELECT jobs.tenant, jobs.id FROM jobs
    JOIN unnest(%(tenants)s::text[], %(ids)s::text[], %(fences)s::bigint[]) AS mine (tenant, id, fence)
        ON jobs.tenant = mine.tenant AND jobs.id = mine.id AND jobs.fence = mine.fence
    WHERE state = 'RUNNING'
), free AS (
    SELECT jobs.tenant, jobs.id FROM jobs JOIN held ON jobs.tenant = held.tenant AND jobs.id = held.id
    FOR UPDATE OF jobs SKIP LOCKED
), extended AS (
    UPDATE jobs SET lease_until = now() + make_interval(secs => %(lease)s)
    FROM free WHERE jobs.tenant = free.tenant AND jobs.id = free.id
)
SELECT id FROM held
"""

_RETRY = """
UPDATE jobs SET
    state = 'QUEUED', lease_until = NULL, announced_at = NULL,
    due_at = now() + make_interval(secs => %(delay)s), error_reason = %(reason)s,
    max_attempts = max_attempts + CASE WHEN %(counts)s THEN 0 ELSE 1 END
WHERE tenant = %(tenant)s AND id = %(id)s AND fence = %(fence)s AND state = 'RUNNING'
RETURNING id
"""

_HAND_BACK = """
UPDATE jobs SET state = 'QUEUED', lease_until = NULL, announced_at = NULL, attempt = attempt - 1
FROM unnest(%(tenants)s::text[], %(ids)s::text[], %(fences)s::bigint[]) AS mine (tenant, id, fence)
WHERE jobs.tenant = mine.tenant AND jobs.id = mine.id AND jobs.fence = mine.fence AND state = 'RUNNING'
"""

_GIVE_UP = """
WITH failed AS (
    UPDATE jobs SET state = 'FAILED', lease_until = NULL, finished_at = now(), error_reason = %(reason)s
    WHERE tenant = %(tenant)s AND id = %(id)s AND fence = %(fence)s AND state = 'RUNNING'
    RETURNING tenant, id, kind, subject_id, attempt
)
INSERT INTO dead_letters (tenant, id, kind, subject_id, attempt, reason, message)
SELECT tenant, id, kind, subject_id, attempt, %(reason)s, %(message)s FROM failed
"""


class Leases:
    """Claims and keeps jobs for one worker."""

    def __init__(self, *, database: Database, seconds: float) -> None:
        """`seconds` is how long a claim holds without a word from the worker."""
        self._database = database
        self.seconds = seconds
        self._last_tenant = ""

    async def claim(self, limit: int) -> list[Job]:
        """Take up to `limit` jobs that are due in one round trip: tenants in turns, the urgent before the old."""
        parameters = {"last": self._last_tenant, "limit": limit, "lease": self.seconds}
        jobs = [Job(**row) for row in await self._database.fetch_across_tenants(_CLAIM, parameters)]
        if jobs:
            self._last_tenant = jobs[-1].tenant
        return jobs

    async def any_due(self) -> bool:
        """Whether there are jobs that could be claimed, or are being claimed by others right now."""
        return bool(await self._database.fetch_across_tenants(_ANY_DUE))

    async def extend(self, jobs: Collection[Job]) -> set[str]:
        """Extend every lease in one statement; the ids of the jobs that are still ours."""
        rows = await self._database.fetch_across_tenants(_EXTEND, {**_columns(jobs), "lease": self.seconds})
        return {row["id"] for row in rows}

    async def hand_back(self, jobs: Collection[Job]) -> None:
        """Let others take the jobs at once; the attempt does not count."""
        await self._database.fetch_across_tenants(_HAND_BACK, _columns(jobs))

    async def retry(self, job: Job, error: ServiceError, *, delay: float, counts: bool = True) -> None:
        """Have the job tried again after `delay` seconds, once more than it may where this attempt does not count.

        Raises FenceLost.
        """
        parameters = {**_key(job), "delay": delay, "reason": error.reason, "counts": counts}
        if not await self._database.fetch(_RETRY, parameters):
            raise FenceLost(job.id)

    async def give_up(self, job: Job, error: ServiceError, on_dead: OnDead) -> None:
        """Write the dead letter, and in the same transaction what `on_dead` has to say; raises FenceLost."""
        async with self._database.transaction() as connection:
            parameters = {**_key(job), "reason": error.reason, "message": error.message}
            cursor = await connection.execute(_GIVE_UP, parameters)
            if cursor.rowcount != 1:
                raise FenceLost(job.id)
            await on_dead(connection, job, error)


def _key(job: Job) -> dict[str, object]:
    return {"tenant": job.tenant, "id": job.id, "fence": job.fence}


def _columns(jobs: Collection[Job]) -> dict[str, list[object]]:
    return {
        "tenants": [job.tenant for job in jobs],
        "ids": [job.id for job in jobs],
        "fences": [job.fence for job in jobs],
    }
