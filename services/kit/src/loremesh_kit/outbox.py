"""The outbox: messages written with the change they tell of, and the relay that hands them to JetStream."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from loremesh_kit import identity
from loremesh_kit.errors import DependencyUnavailable
from loremesh_kit.events import Bus, Outgoing, check_name, subject
from loremesh_kit.ids import new_id
from loremesh_kit.loops import repeat, unless
from loremesh_kit.postgres import Database, Row, touch
from loremesh_kit.telemetry import metrics, traces

OUTBOX = "outbox"
_BATCH = 200
_LARGEST_PAYLOAD = 64 * 1024
_POLL_SECONDS = 1.0

_EMIT = """
INSERT INTO outbox (tenant, id, subject, data, headers, keep)
VALUES (%(tenant)s, %(id)s, %(subject)s, %(data)s, %(headers)s, true)
"""

# Held for a while instead of locked: no transaction stays open while the broker takes its time. Nothing of this has to
# outlive a loss of power: what is sent twice has one effect.
_HOLD = """
WITH unsent AS (
    SELECT tenant, id FROM outbox
    WHERE sent_at IS NULL AND (held_until IS NULL OR held_until < now())
    ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE outbox SET held_until = now() + interval '15 s'
FROM unsent WHERE outbox.tenant = unsent.tenant AND outbox.id = unsent.id
RETURNING outbox.tenant, outbox.id, subject, data, headers
"""

_SETTLE = """
WITH sent AS (SELECT * FROM unnest(%(tenants)s::text[], %(ids)s::text[]) AS sent (tenant, id)),
deleted AS (
    DELETE FROM outbox USING sent WHERE outbox.tenant = sent.tenant AND outbox.id = sent.id AND NOT keep
)
UPDATE outbox SET sent_at = now(), held_until = NULL
FROM sent WHERE outbox.tenant = sent.tenant AND outbox.id = sent.id AND keep
"""

_LET_GO = """
UPDATE outbox SET held_until = NULL
FROM unnest(%(tenants)s::text[], %(ids)s::text[]) AS unsent (tenant, id)
WHERE outbox.tenant = unsent.tenant AND outbox.id = unsent.id AND sent_at IS NULL
"""

# Clocks differ; what is sent once more has one effect.
_SEND_AGAIN = "UPDATE outbox SET sent_at = NULL WHERE sent_at < %(made)s::timestamptz + interval '1 min'"


async def emit(connection: AsyncConnection[Row], *, name: str, payload: Mapping[str, Any]) -> str:
    """Publish the fact `name` if this transaction commits, and return its message id.

    `payload` holds ids, not content. Raises ValueError for a name or a payload the broker would refuse.
    """
    check_name(name)
    if len(json.dumps(payload)) > _LARGEST_PAYLOAD:
        message = f"the payload of {name} is larger than a message should be"
        raise ValueError(message)
    caller, message_id = identity.current(), new_id()
    headers = {
        identity.TENANT_HEADER: caller.tenant,
        identity.PRINCIPAL_HEADER: caller.principal,
        identity.REQUEST_ID_HEADER: caller.request_id,
        traces.TRACEPARENT: traces.current_traceparent(),
    }
    await connection.execute(
        _EMIT,
        {
            "tenant": caller.tenant,
            "id": message_id,
            "subject": f"events.{name}",
            "data": Jsonb(dict(payload)),
            "headers": Jsonb({key: value for key, value in headers.items() if value}),
        },
    )
    touch(connection, OUTBOX)
    return message_id


class Relay:
    """Hands the outbox to JetStream; any number may run, in every process that writes to it."""

    def __init__(self, *, database: Database, bus: Bus, service: str) -> None:
        """`service` gives the subjects their prefix."""
        self._database = database
        self._bus = bus
        self._service = service
        self._written = asyncio.Event()
        self._beginnings = 0
        database.listen(self._hear)

    async def run(self, stop: asyncio.Event) -> None:
        """Relay until `stop`; woken by commits in this process, and once a second for those of others."""
        await repeat(lambda: self._pass(stop), stop=stop, name="outbox relay")

    def _hear(self, topic: str) -> None:
        if topic == OUTBOX:
            self._written.set()

    async def _pass(self, stop: asyncio.Event) -> None:
        self._written.clear()
        # What is written meanwhile says so.
        if await self.relay() < _BATCH:
            await unless(stop, self._wait())

    async def relay(self) -> int:
        """Send one batch and return its size; raises DependencyUnavailable when some of it was not taken."""
        self._bus.require_connection()
        await self._send_again_what_a_lost_stream_held()
        rows = await self._database.fetch_across_tenants(_HOLD, {"limit": _BATCH}, lasting=False)
        if not rows:
            return 0
        unsent = {row["id"]: row["tenant"] for row in rows}
        try:
            sent = {id_: unsent.pop(id_) for id_ in await self._bus.publish_all([self._outgoing(row) for row in rows])}
            await self._database.fetch_across_tenants(_SETTLE, _columns(sent), lasting=False)
            metrics.OUTBOX_SENT.inc(len(sent))
        finally:
            if unsent:
                await self._database.fetch_across_tenants(_LET_GO, _columns(unsent), lasting=False)
        if unsent:
            await self._bus.ensure_service_stream()
            raise DependencyUnavailable("nats")
        return len(rows)

    def _outgoing(self, row: Row) -> Outgoing:
        return Outgoing(
            subject=subject(self._service, row["subject"]),
            data=json.dumps(row["data"]).encode(),
            message_id=row["id"],
            headers=row["headers"],
        )

    async def _send_again_what_a_lost_stream_held(self) -> None:
        """Whoever made a new one, and whatever became of them: it holds nothing that was sent before."""
        beginnings = self._bus.beginnings
        if beginnings != self._beginnings and (made := await self._bus.service_stream_made()):
            await self._database.fetch_across_tenants(_SEND_AGAIN, {"made": made})
            self._beginnings = beginnings

    async def _wait(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_POLL_SECONDS):
                await self._written.wait()


def _columns(tenant_of: Mapping[str, str]) -> dict[str, list[str]]:
    return {"tenants": list(tenant_of.values()), "ids": list(tenant_of)}
