"""A document's events, past and to come, up to its terminal one."""

from collections.abc import AsyncGenerator
from dataclasses import replace

from loremesh_kit import eventlog
from loremesh_kit.eventlog import Event, Heartbeat
from loremesh_kit.events import Bus
from loremesh_kit.postgres import Database

from loremesh_ingestion.domain.document import DocumentState
from loremesh_ingestion.engine.history import DELETED, FAILED, READY, STATE_CHANGED, TERMINAL
from loremesh_ingestion.errors import DocumentNotFound

_STATES = {READY: DocumentState.READY, FAILED: DocumentState.FAILED, DELETED: DocumentState.DELETED}
_HEARTBEAT_SECONDS = 10.0


class Watching:
    """The use case of WatchDocument."""

    def __init__(self, *, database: Database, bus: Bus | None) -> None:
        self._database = database
        self._bus = bus

    async def watch(self, document_id: str, *, after_seq: int) -> AsyncGenerator[Event | Heartbeat, None]:
        """Events after `after_seq`, the last of them terminal; raises DocumentNotFound before the first.

        What ended an earlier indexing was not the end when it was followed by another: it is told as a change of
        state. Where nothing is left to tell, the terminal event is told once more.
        """
        last = await self._last(document_id)
        if last is None:
            raise DocumentNotFound(document_id)
        if last.kind in TERMINAL and after_seq >= last.seq:
            yield last
            return
        events = eventlog.tail(
            self._database, self._bus, run_id=document_id, after_seq=after_seq, heartbeat=_HEARTBEAT_SECONDS
        )
        async for event in events:
            if isinstance(event, Event) and event.kind in TERMINAL and event.seq < last.seq:
                yield replace(event, kind=STATE_CHANGED, payload={"state": _STATES[event.kind]})
                continue
            yield event
            if isinstance(event, Event) and event.kind in TERMINAL:
                return

    async def _last(self, document_id: str) -> Event | None:
        rows = await self._database.fetch(
            "SELECT seq, time, kind, payload, attempt, path FROM events WHERE run_id = %s ORDER BY seq DESC LIMIT 1",
            [document_id],
        )
        return Event(**rows[0]) if rows else None
