"""Jobs: work accepted with the change that asks for it, done by whichever worker holds the lease."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from psycopg import AsyncConnection, AsyncCursor
from psycopg.types.json import Jsonb

from loremesh_kit import identity
from loremesh_kit.events import check_name
from loremesh_kit.ids import new_id
from loremesh_kit.outbox import OUTBOX
from loremesh_kit.postgres import Row, Taker, afterwards, taker_of, touch
from loremesh_kit.telemetry import traces

# The topic of cancellations: workers then look at once whether their jobs are still theirs.
CANCELLED = "jobs.cancelled"

# A job with a delay is announced by the sweeper when it is due. One that a worker of this process begins is committed
# as claimed by it and needs no message; should that worker die first, its lease runs out.
_ENQUEUE = """
WITH job AS (
    INSERT INTO jobs (
        tenant, id, kind, subject_id, principal, request_id, traceparent, payload, priority, max_attempts,
        due_at, deadline, state, announced_at, announcements, attempt, fence, lease_until
    ) VALUES (
        %(tenant)s, %(id)s, %(kind)s, %(subject_id)s, %(principal)s, %(request_id)s, %(traceparent)s, %(payload)s,
        %(priority)s, %(max_attempts)s, now() + make_interval(secs => %(delay)s), %(deadline)s, %(state)s,
        CASE WHEN %(announced)s THEN now() END, %(announced)s::int, %(claims)s, %(claims)s,
        now() + make_interval(secs => %(lease)s)
    )
)
INSERT INTO outbox (tenant, id, subject, data, keep)
SELECT %(tenant)s, %(id)s || '.1', 'jobs.' || %(kind)s,
    jsonb_build_object('tenant', %(tenant)s::text, 'job_id', %(id)s::text), false
WHERE %(announced)s
"""

_COMPLETE = """
UPDATE jobs SET state = 'SUCCEEDED', lease_until = NULL, finished_at = now()
WHERE tenant = %s AND id = %s AND fence = %s AND state = 'RUNNING' RETURNING id
"""

_CANCEL = """
UPDATE jobs SET state = 'CANCELLED', fence = fence + 1, lease_until = NULL, finished_at = now()
WHERE tenant = %s AND id = %s AND state IN ('QUEUED', 'RUNNING', 'PARKED')
"""

# What comes after a wait is begun afresh: the claims so far led somewhere.
_PARK = """
UPDATE jobs SET state = 'PARKED', lease_until = NULL, announced_at = NULL, attempt = 0
WHERE tenant = %s AND id = %s AND fence = %s AND state = 'RUNNING'
"""

# Who parks it now is waited for: otherwise its commit would come after ours, and nobody would take the job up again.
_HOLD = "SELECT state FROM jobs WHERE tenant = %s AND id = %s FOR UPDATE"

_UNPARK = """
WITH job AS (
    UPDATE jobs SET
        state = 'QUEUED', deadline = %(deadline)s, due_at = now(), announced_at = now(),
        announcements = announcements + 1
    WHERE tenant = %(tenant)s AND id = %(id)s AND state = 'PARKED'
    RETURNING tenant, id, kind, announcements
)
INSERT INTO outbox (tenant, id, subject, data, keep)
SELECT tenant, id || '.' || announcements, 'jobs.' || kind, jsonb_build_object('tenant', tenant, 'job_id', id), false
FROM job
"""

_WAITING = """
SELECT count(*) AS jobs FROM (
    SELECT 1 FROM jobs WHERE tenant = %(tenant)s AND state = 'QUEUED' AND announced_at IS NOT NULL
    UNION ALL SELECT 1 FROM jobs WHERE tenant = %(tenant)s AND state = 'QUEUED' AND announced_at IS NULL
    LIMIT %(limit)s
) AS waiting
"""


class FenceLost(Exception):
    """The job went to another worker or was cancelled; whatever this one would commit must not count."""


@dataclass(slots=True)
class Progress:
    """What a worker needs to know of how its handler got on, and the handler of how its job was accepted."""

    completed: bool = False
    # What whoever accepted the job hands its handler in memory; None where it was claimed from the table.
    known: Any = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """One claim of a job: the fence is this claim's own, and only its holder may commit."""

    id: str
    tenant: str
    principal: str
    request_id: str
    kind: str
    payload: dict[str, Any]
    attempt: int
    fence: int
    max_attempts: int
    subject_id: str
    deadline: datetime | None = None
    traceparent: str = ""
    progress: Progress = field(default_factory=Progress, compare=False, repr=False)


class Accepted(NamedTuple):
    """A job's id, and its first claim where a worker of this process begins it as soon as it is committed."""

    job_id: str
    claim: Job | None


class Handler(Protocol):
    """Does one kind of job, at least once and in the end with one effect."""

    async def __call__(self, job: Job) -> None:
        """Do it, and call `complete` in the last transaction; raise a ServiceError to fail the attempt."""
        ...


async def enqueue(
    connection: AsyncConnection[Row],
    *,
    kind: str,
    payload: Mapping[str, Any],
    subject_id: str,
    priority: int = 0,
    delay: float = 0,
    max_attempts: int = 8,
    deadline: datetime | None = None,
    parked: bool = False,
) -> Accepted:
    """Accept a job in the caller's transaction, under the caller's identity.

    `payload` holds ids, not content; `subject_id` is the resource worked for; `delay` is in seconds. Once the
    transaction commits the job will be done or dead-lettered, whatever dies meanwhile; `parked` it waits for `unpark`
    first. Raises ValueError for a kind that cannot be part of a subject.
    """
    check_name(kind)
    caller, at_once = identity.current(), not parked and delay == 0
    job = Job(
        id=new_id(),
        tenant=caller.tenant,
        principal=caller.principal,
        request_id=caller.request_id,
        kind=kind,
        payload=dict(payload),
        attempt=1,
        fence=1,
        max_attempts=max_attempts,
        subject_id=subject_id,
        deadline=deadline,
        traceparent=traces.current_traceparent(),
    )
    taker = _reserved(connection, job) if at_once else None
    announced = at_once and not taker
    await connection.execute(
        _ENQUEUE,
        {
            "tenant": job.tenant,
            "id": job.id,
            "kind": kind,
            "subject_id": subject_id,
            "principal": job.principal,
            "request_id": job.request_id,
            "traceparent": job.traceparent,
            "payload": Jsonb(job.payload),
            "priority": priority,
            "max_attempts": max_attempts,
            "delay": float(delay),
            "deadline": deadline,
            "state": "PARKED" if parked else "RUNNING" if taker else "QUEUED",
            "claims": 1 if taker else 0,
            "lease": taker.lease if taker else None,
            "announced": announced,
        },
    )
    if announced:
        touch(connection, OUTBOX)
    return Accepted(job.id, job if taker else None)


def _reserved(connection: AsyncConnection[Row], job: Job) -> Taker | None:
    """Who begins it as soon as it is committed, if anybody does."""
    taker = taker_of(connection)
    if taker is None or not taker.reserve():
        return None
    afterwards(connection, lambda committed: taker.take(job if committed else None))
    return taker


async def complete(connection: AsyncConnection[Row], job: Job) -> None:
    """Mark the job done, in the transaction of its effect; raises FenceLost, which undoes the effect."""
    await confirm(await completion(connection, job), job)


async def completion(connection: AsyncConnection[Row], job: Job) -> AsyncCursor[Row]:
    """The first half of `complete`: in a pipeline more may be sent before `confirm` waits."""
    return await connection.execute(_COMPLETE, [job.tenant, job.id, job.fence])


async def confirm(completed: AsyncCursor[Row], job: Job) -> None:
    """The other half."""
    if await completed.fetchone() is None:
        raise FenceLost(job.id)
    job.progress.completed = True


async def park(connection: AsyncConnection[Row], job: Job) -> None:
    """Let go of the job until somebody calls `unpark`, in the transaction that says what it waits for.

    No worker holds it meanwhile, and its deadline does not pass. Raises FenceLost, which undoes the transaction.
    """
    cursor = await connection.execute(_PARK, [job.tenant, job.id, job.fence])
    if cursor.rowcount != 1:
        raise FenceLost(job.id)
    job.progress.completed = True


async def unpark(connection: AsyncConnection[Row], job_id: str, *, deadline: datetime | None) -> bool:
    """Have a parked job of the caller's tenant done by `deadline`; False where it is not parked.

    It is announced when the caller's transaction commits. A worker that is parking it at this moment is waited for.
    """
    tenant = identity.current().tenant
    await connection.execute(_HOLD, [tenant, job_id])
    cursor = await connection.execute(_UNPARK, {"tenant": tenant, "id": job_id, "deadline": deadline})
    if cursor.rowcount != 1:
        return False
    touch(connection, OUTBOX)
    return True


async def cancel(connection: AsyncConnection[Row], job_id: str) -> bool:
    """Cancel a job of the caller's tenant unless it is finished; its worker can commit nothing from then on."""
    cursor = await connection.execute(_CANCEL, [identity.current().tenant, job_id])
    touch(connection, CANCELLED)
    return cursor.rowcount == 1


async def waiting(connection: AsyncConnection[Row], *, limit: int) -> int:
    """How many jobs of the caller's tenant wait for a worker or for their time, counted up to `limit`."""
    cursor = await connection.execute(_WAITING, {"tenant": identity.current().tenant, "limit": limit})
    row = await cursor.fetchone()
    return int(row["jobs"]) if row else 0
