"""The event log of anything long-running: numbered without gaps, kept, and resumable from any number."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from loremesh_kit import identity
from loremesh_kit.events import Bus
from loremesh_kit.postgres import Database, Row, touch

_PAGE = 100
_POLL_SECONDS = 1.0

# Locking the head until the commit makes numbers visible in order: nobody sees 8 before 7.
_APPEND = """
WITH head AS (
    INSERT INTO event_heads (tenant, run_id, last_seq) VALUES (%(tenant)s, %(run_id)s, 1)
    ON CONFLICT (tenant, run_id) DO UPDATE SET last_seq = event_heads.last_seq + 1
    RETURNING last_seq
)
INSERT INTO events (tenant, run_id, seq, kind, payload, attempt, path)
SELECT %(tenant)s, %(run_id)s, last_seq, %(kind)s, %(payload)s, %(attempt)s, %(path)s FROM head
RETURNING seq
"""

_READ = """
SELECT seq, time, kind, payload, attempt, path FROM events
WHERE tenant = %(tenant)s AND run_id = %(run_id)s AND seq > %(after_seq)s
ORDER BY seq LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; `path` leads from the run to the part it happened in."""

    seq: int
    time: datetime
    kind: str
    payload: dict[str, Any]
    attempt: int
    path: list[str]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing happened for a while, and the log is still being watched."""


async def append(
    connection: AsyncConnection[Row],
    *,
    run_id: str,
    kind: str,
    payload: Mapping[str, Any],
    attempt: int = 1,
    path: Sequence[str] = (),
) -> int:
    """Write the next event of a run of the caller's tenant, in the caller's transaction; returns its number."""
    cursor = await connection.execute(
        _APPEND,
        {
            "tenant": identity.current().tenant,
            "run_id": run_id,
            "kind": kind,
            "payload": Jsonb(dict(payload)),
            "attempt": attempt,
            "path": list(path),
        },
    )
    row = await cursor.fetchone()
    touch(connection, _topic(run_id))
    return int(row["seq"]) if row else 0


async def read(connection: AsyncConnection[Row], *, run_id: str, after_seq: int, limit: int) -> list[Event]:
    """Up to `limit` events after `after_seq` (0: from the start), in order."""
    cursor = await connection.execute(_READ, _parameters(run_id, after_seq, limit))
    return [Event(**row) for row in await cursor.fetchall()]


async def tail(
    database: Database,
    bus: Bus | None,
    *,
    run_id: str,
    after_seq: int,
    heartbeat: float,
) -> AsyncIterator[Event | Heartbeat]:
    """Every event after `after_seq`, past and to come, for ever; a Heartbeat after each `heartbeat` quiet seconds.

    The caller stops at the event it knows to be the last. Woken by the nudge of each commit where the writer's
    database listens to its bus, and otherwise each second.
    """
    quiet_since = time.monotonic()
    async with _nudges(bus, run_id) as nudged:
        while True:
            nudged.clear()
            rows = await database.fetch(_READ, _parameters(run_id, after_seq, _PAGE))
            for row in rows:
                yield Event(**row)
                after_seq, quiet_since = row["seq"], time.monotonic()
            if not rows:
                await _wait(nudged, heartbeat - (time.monotonic() - quiet_since))
            if time.monotonic() - quiet_since >= heartbeat:
                yield Heartbeat()
                quiet_since = time.monotonic()


async def _wait(nudged: asyncio.Event, until_heartbeat: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(min(_POLL_SECONDS, max(0.0, until_heartbeat))):
            await nudged.wait()


@asynccontextmanager
async def _nudges(bus: Bus | None, run_id: str) -> AsyncIterator[asyncio.Event]:
    if bus is None:
        yield asyncio.Event()
        return
    async with bus.nudges(_topic(run_id)) as nudged:
        yield nudged


def _parameters(run_id: str, after_seq: int, limit: int) -> dict[str, Any]:
    return {"tenant": identity.current().tenant, "run_id": run_id, "after_seq": after_seq, "limit": limit}


def _topic(run_id: str) -> str:
    return f"runs.{run_id}"
