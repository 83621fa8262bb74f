"""A document's events: listened to up to the terminal one, or asked for."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime

from loremesh_kit import eventlog
from loremesh_kit.errors import AfterSeqOutOfRange
from loremesh_kit.eventlog import Event, Heartbeat, Page
from loremesh_kit.events import Bus
from loremesh_kit.postgres import Database

from loremesh_ingestion.domain.document import DocumentState
from loremesh_ingestion.engine.history import DELETED, FAILED, READY, SNAPSHOT, STATE_CHANGED, TERMINAL, ending
from loremesh_ingestion.errors import DocumentNotFound
from loremesh_ingestion.records import DocumentRecords

_STATES = {READY: DocumentState.READY, FAILED: DocumentState.FAILED, DELETED: DocumentState.DELETED}
_HEARTBEAT_SECONDS = 10.0


class Watching:
    """The use cases of WatchDocument and ListDocumentEvents."""

    def __init__(self, *, database: Database, bus: Bus | None, documents: DocumentRecords) -> None:
        self._database = database
        self._bus = bus
        self._documents = documents

    async def watch(self, document_id: str, *, after_seq: int) -> AsyncGenerator[Event | Heartbeat, None]:
        """Events after `after_seq`, the last of them terminal; where they are not kept any more a snapshot comes first.

        What ended an earlier indexing was not the end when it was followed by another: it is told as a change of
        state. Nothing is told where the terminal event was the last one seen. Raises DocumentNotFound and
        AfterSeqOutOfRange before the first.
        """
        page = await self._page(document_id, after_seq=after_seq, limit=0)
        last = await self._last(document_id)
        if page.cut:
            snapshot = await self._snapshot(document_id, page)
            yield snapshot
            after_seq = page.last_seq
            last = last or _ended(snapshot)
        if last is None:
            raise DocumentNotFound(document_id)
        if last.kind in TERMINAL and after_seq >= last.seq:
            if page.cut:
                yield last
            return
        events = eventlog.tail(
            self._database, self._bus, run_id=document_id, after_seq=after_seq, heartbeat=_HEARTBEAT_SECONDS
        )
        async for event in events:
            yield _told(event, last_seq=last.seq) if isinstance(event, Event) else event
            if isinstance(event, Event) and event.kind in TERMINAL and event.seq >= last.seq:
                return

    async def history(self, document_id: str, *, after_seq: int, limit: int) -> Page:
        """Up to `limit` events after `after_seq`, or a snapshot where they are not kept any more.

        Raises DocumentNotFound and AfterSeqOutOfRange.
        """
        page = await self._page(document_id, after_seq=after_seq, limit=limit)
        if page.cut:
            return replace(page, events=[await self._snapshot(document_id, page)])
        return replace(page, events=[_told(event, last_seq=page.last_seq) for event in page.events])

    async def _page(self, document_id: str, *, after_seq: int, limit: int) -> Page:
        try:
            page = await eventlog.poll(self._database, run_id=document_id, after_seq=after_seq, limit=limit)
        except AfterSeqOutOfRange as error:
            if error.metadata["last_seq"] == "0":
                raise DocumentNotFound(document_id) from error
            raise
        if page.last_seq == 0:
            raise DocumentNotFound(document_id)
        return page

    async def _snapshot(self, document_id: str, page: Page) -> Event:
        document = await self._documents.get(document_id)
        if document is None:
            raise DocumentNotFound(document_id)
        return Event(
            seq=page.last_seq,
            time=datetime.now(UTC),
            kind=SNAPSHOT,
            payload={"document": document},
            attempt=1,
            path=[str(document.latest_version)],
        )

    async def _last(self, document_id: str) -> Event | None:
        rows = await self._database.fetch(
            "SELECT seq, time, kind, payload, attempt, path FROM events WHERE run_id = %s ORDER BY seq DESC LIMIT 1",
            [document_id],
        )
        return Event(**rows[0]) if rows else None


def _ended(snapshot: Event) -> Event:
    # Nothing happened to it for so long that nothing is kept: it is at rest.
    kind, payload = ending(snapshot.payload["document"])
    return replace(snapshot, kind=kind, payload=dict(payload))


def _told(event: Event, *, last_seq: int) -> Event:
    if event.kind in TERMINAL and event.seq < last_seq:
        return replace(event, kind=STATE_CHANGED, payload={"state": _STATES[event.kind]})
    return event
