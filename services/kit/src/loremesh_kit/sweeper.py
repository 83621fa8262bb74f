"""The sweeper: no job is forgotten, whoever died holding it and whatever the broker lost."""

import asyncio
import time

import structlog

from loremesh_kit.errors import DependencyUnavailable
from loremesh_kit.events import Bus, stream_of
from loremesh_kit.loops import repeat, unless
from loremesh_kit.outbox import OUTBOX
from loremesh_kit.postgres import Database
from loremesh_kit.telemetry import metrics

JOBS_CONSUMER = "jobs"
_SECONDS = 1.0
_BATCH = 500
# How long an announced job may wait before its message counts as lost: shortly when the broker says it has delivered
# all it had, and longer and longer when the job may just be waiting its turn.
_PATIENCE_WHEN_IDLE = 10.0
_PATIENCE_IN_A_QUEUE = 60.0
_DOUBLINGS = 6
_PURGE_SECONDS = 60.0

# Announces, each with a new message id: jobs whose lease ran out, whose time has come, or whose message was lost.
_ANNOUNCE = """
WITH due AS (
    SELECT tenant, id, state, announced_at FROM jobs
    WHERE (state = 'RUNNING' AND lease_until < now())
        OR (state = 'QUEUED' AND due_at <= now() AND (
            announced_at IS NULL
            OR announced_at < now() - make_interval(
                secs => %(patience)s * power(2, least(announcements - 1, %(doublings)s))
            )
        ))
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), announced AS (
    UPDATE jobs SET state = 'QUEUED', lease_until = NULL, announced_at = now(), announcements = announcements + 1
    FROM due WHERE jobs.tenant = due.tenant AND jobs.id = due.id
    RETURNING jobs.tenant, jobs.id, kind, announcements
), written AS (
    INSERT INTO outbox (tenant, id, subject, data, keep)
    SELECT tenant, id || '.' || announcements, 'jobs.' || kind,
        jsonb_build_object('tenant', tenant, 'job_id', id), false
    FROM announced
)
SELECT CASE WHEN state = 'RUNNING' THEN 'lease_expired' WHEN announced_at IS NULL THEN 'due' ELSE 'message_lost' END
    AS why, count(*) AS jobs
FROM due GROUP BY why
"""

_PURGES = (
    "DELETE FROM jobs WHERE finished_at < now() - interval '7 days'",
    "DELETE FROM outbox WHERE sent_at < now() - interval '1 day'",
    # Longer than the broker keeps a message.
    "DELETE FROM inbox WHERE received_at < now() - interval '2 days'",
    # Row-level security shows this scope expired rows only.
    "DELETE FROM idempotency",
)

_log = structlog.get_logger(__name__)


class Sweeper:
    """Looks every second for jobs nobody will do unless they are announced again; any number may run."""

    def __init__(self, *, database: Database, bus: Bus, service: str) -> None:
        """`service` names the stream whose backlog tells lost messages from waiting ones."""
        self._database = database
        self._bus = bus
        self._service = service
        self._purged_at = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Sweep until `stop`."""

        async def step() -> None:
            await self.sweep()
            await self._purge()
            await unless(stop, asyncio.sleep(_SECONDS))

        await repeat(step, stop=stop, name="job sweeper")

    async def sweep(self) -> int:
        """Announce what is due, and return how many jobs that were."""
        patience, doublings = await self._patience()
        parameters = {"patience": patience, "doublings": doublings, "limit": _BATCH}
        rows = await self._database.fetch_across_tenants(_ANNOUNCE, parameters)
        for row in rows:
            metrics.JOBS_SWEPT.labels(row["why"]).inc(row["jobs"])
            _log.info("jobs announced again", why=row["why"], jobs=row["jobs"])
        if rows:
            self._database.tell(OUTBOX)
        return sum(row["jobs"] for row in rows)

    async def _patience(self) -> tuple[float, int]:
        try:
            backlog = await self._bus.backlog(stream_of(self._service), JOBS_CONSUMER)
        except DependencyUnavailable:
            backlog = None
        return (_PATIENCE_WHEN_IDLE, 0) if backlog == 0 else (_PATIENCE_IN_A_QUEUE, _DOUBLINGS)

    async def _purge(self) -> None:
        if time.monotonic() - self._purged_at < _PURGE_SECONDS:
            return
        self._purged_at = time.monotonic()
        for statement in _PURGES:
            await self._database.fetch_across_tenants(statement)
