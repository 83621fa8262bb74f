"""The event log of anything long-running: numbered without gaps, kept, and resumable from any number."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from loremesh_kit import identity
from loremesh_kit.errors import AfterSeqOutOfRange
from loremesh_kit.events import Bus
from loremesh_kit.postgres import Database, Row, touch

LAST_EVENT_ID = "last-event-id"
_SEQ = re.compile(r"[0-9]{1,18}", re.ASCII)
_PAGE = 100
_POLL_SECONDS = 1.0

# Locking the head until the commit makes numbers visible in order: nobody sees 8 before 7.
_APPEND = """
WITH head AS (
    INSERT INTO event_heads (tenant, run_id, last_seq) VALUES (%(tenant)s, %(run_id)s, 1)
    ON CONFLICT (tenant, run_id) DO UPDATE SET last_seq = event_heads.last_seq + 1, last_at = now()
    RETURNING last_seq
)
INSERT INTO events (tenant, run_id, seq, kind, payload, attempt, path)
SELECT %(tenant)s, %(run_id)s, last_seq, %(kind)s, %(payload)s, %(attempt)s, %(path)s FROM head
RETURNING seq
"""

# Several at once, numbered in their order, and nothing to wait for.
_APPEND_ALL = """
WITH head AS (
    INSERT INTO event_heads (tenant, run_id, last_seq) VALUES (%(tenant)s, %(run_id)s, %(count)s)
    ON CONFLICT (tenant, run_id) DO UPDATE SET last_seq = event_heads.last_seq + %(count)s, last_at = now()
    RETURNING last_seq
)
INSERT INTO events (tenant, run_id, seq, kind, payload, attempt, path)
SELECT %(tenant)s, %(run_id)s, last_seq - %(count)s + number, kind, payload, attempt, path
FROM head, jsonb_to_recordset(%(entries)s) AS entry (number bigint, kind text, payload jsonb, attempt int, path text[])
"""

_READ = """
SELECT seq, time, kind, payload, attempt, path FROM events
WHERE tenant = %(tenant)s AND run_id = %(run_id)s AND seq > %(after_seq)s
ORDER BY seq LIMIT %(limit)s
"""


_POLL = """
SELECT head.first_seq, head.last_seq, event.* FROM event_heads AS head
LEFT JOIN LATERAL (
    SELECT seq, time, kind, payload, attempt, path FROM events
    WHERE events.tenant = head.tenant AND events.run_id = head.run_id AND seq > %(after_seq)s
    ORDER BY seq LIMIT %(limit)s
) AS event ON true
WHERE head.tenant = %(tenant)s AND head.run_id = %(run_id)s
ORDER BY event.seq
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An event to be written."""

    kind: str
    payload: Mapping[str, Any]
    attempt: int = 1
    path: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Events in order. `cut` tells that those right after the number asked for are not kept: show a snapshot first."""

    events: Sequence[Event]
    last_seq: int
    cut: bool


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


async def append_all(connection: AsyncConnection[Row], *, run_id: str, entries: Sequence[Entry]) -> None:
    """Write the next events of a run as `append` would one after the other, in one statement without an answer."""
    if not entries:
        return
    rows = [
        {"number": number, "kind": each.kind, "payload": each.payload, "attempt": each.attempt, "path": list(each.path)}
        for number, each in enumerate(entries, start=1)
    ]
    await connection.execute(
        _APPEND_ALL,
        {"tenant": identity.current().tenant, "run_id": run_id, "count": len(rows), "entries": Jsonb(rows)},
    )
    touch(connection, _topic(run_id))


async def read(connection: AsyncConnection[Row], *, run_id: str, after_seq: int, limit: int) -> list[Event]:
    """Up to `limit` events after `after_seq` (0: from the start), in order."""
    cursor = await connection.execute(_READ, _parameters(run_id, after_seq, limit))
    return [Event(**row) for row in await cursor.fetchall()]


async def poll(database: Database, *, run_id: str, after_seq: int, limit: int) -> Page:
    """Up to `limit` events after `after_seq`, and what there is beside them, in one round trip.

    With `limit` 0 it is the check before a `tail`. Raises AfterSeqOutOfRange.
    """
    rows = await database.fetch(_POLL, _parameters(run_id, after_seq, limit))
    heads = [(row.pop("first_seq"), row.pop("last_seq")) for row in rows]
    first_seq, last_seq = heads[0] if heads else (1, 0)
    if after_seq > last_seq:
        raise AfterSeqOutOfRange(last_seq)
    events = [Event(**row) for row in rows if row["seq"] is not None]
    return Page(events=events, last_seq=last_seq, cut=after_seq + 1 < first_seq)


def resume_after(after_seq: int, metadata: Iterable[tuple[str, str | bytes]] | None) -> int:
    """The number a call goes on from: the request's own, else that of a browser which reconnects, else 0."""
    for key, value in metadata or ():
        if not after_seq and key == LAST_EVENT_ID and isinstance(value, str) and _SEQ.fullmatch(value):
            after_seq = int(value)
    return after_seq


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
            if len(rows) < _PAGE:
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
