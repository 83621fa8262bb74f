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
# How long a message may be on its way.
_PATIENCE = 10.0
_PURGE_SECONDS = 60.0
_UNKNOWN = 2**62

# Announces, each with a new message id: jobs whose lease ran out, whose time has come, or whose message was lost. A
# message stands for any one job, so none is lost as long as there are as many messages as jobs waiting.
_ANNOUNCE = """
WITH lost AS (
    SELECT tenant, id FROM jobs
    WHERE state = 'QUEUED' AND announced_at < now() - make_interval(secs => %(patience)s)
    OFFSET %(messages)s + (SELECT count(*) FROM outbox WHERE sent_at IS NULL) LIMIT %(limit)s
), due AS (
    SELECT tenant, id, state, announced_at FROM jobs
    WHERE (state = 'RUNNING' AND lease_until < now())
        OR (state = 'QUEUED' AND announced_at IS NULL AND due_at <= now())
        OR (
            state = 'QUEUED' AND announced_at < now() - make_interval(secs => %(patience)s)
            AND (tenant, id) IN (SELECT tenant, id FROM lost)
        )
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
    """
    DELETE FROM jobs WHERE finished_at < now() - interval '7 days' AND NOT EXISTS (
        SELECT FROM dead_letters WHERE dead_letters.tenant = jobs.tenant AND dead_letters.id = jobs.id
    )
    """,
    # The job of a letter that is never answered goes with it.
    "DELETE FROM dead_letters WHERE died_at < now() - interval '30 days'",
    "DELETE FROM outbox WHERE sent_at < now() - interval '1 day'",
    # Longer than the broker keeps a message.
    "DELETE FROM inbox WHERE received_at < now() - interval '2 days'",
    # Row-level security shows this scope expired rows only.
    "DELETE FROM idempotency",
)

_OLD_RUNS = """
SELECT tenant, array_agg(run_id) AS run_ids FROM (
    SELECT tenant, run_id FROM event_heads
    WHERE last_at < now() - interval '30 days' AND first_seq <= last_seq LIMIT %s
) AS old GROUP BY tenant
"""

# The head stays and goes on counting, so no number is given out twice.
_FORGET_EVENTS = """
WITH old AS (
    UPDATE event_heads SET first_seq = last_seq + 1
    WHERE run_id = ANY(%s) AND last_at < now() - interval '30 days'
    RETURNING tenant, run_id, last_seq
)
DELETE FROM events USING old
WHERE events.tenant = old.tenant AND events.run_id = old.run_id AND seq <= old.last_seq
"""

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
        parameters = {"patience": _PATIENCE, "messages": await self._messages(), "limit": _BATCH}
        rows = await self._database.fetch_across_tenants(_ANNOUNCE, parameters)
        for row in rows:
            metrics.JOBS_SWEPT.labels(row["why"]).inc(row["jobs"])
            _log.info("jobs announced again", why=row["why"], jobs=row["jobs"])
        if rows:
            self._database.tell(OUTBOX)
        return sum(row["jobs"] for row in rows)

    async def _messages(self) -> int:
        """How many messages the broker has still to deliver; more than there can be jobs while nobody can tell."""
        try:
            backlog = await self._bus.backlog(stream_of(self._service), JOBS_CONSUMER)
        except DependencyUnavailable:
            backlog = None
        return _UNKNOWN if backlog is None else backlog

    async def _purge(self) -> None:
        if time.monotonic() - self._purged_at < _PURGE_SECONDS:
            return
        self._purged_at = time.monotonic()
        for statement in _PURGES:
            await self._database.fetch_across_tenants(statement)
        for row in await self._database.fetch_across_tenants(_OLD_RUNS, [_BATCH]):
            await self._database.fetch(_FORGET_EVENTS, [row["run_ids"]], tenant=row["tenant"])
