"""Runs as their owners see and steer them."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime

from loremesh_kit import eventlog
from loremesh_kit.errors import AfterSeqOutOfRange
from loremesh_kit.events import Bus
from loremesh_kit.ids import new_id
from loremesh_kit.loops import repeat, unless
from loremesh_kit.pages import Position
from loremesh_kit.postgres import Database, Row
from psycopg import AsyncConnection

from loremesh_crew.domain.flow_checks import signals
from loremesh_crew.domain.flow_machine import full
from loremesh_crew.domain.flow_state import FlowRunState
from loremesh_crew.domain.inputs import held_against
from loremesh_crew.domain.machine import (
    CancelAsked,
    Event,
    PauseAsked,
    ResumeAsked,
    RunKind,
    RunStatus,
    SignalCame,
    TaskView,
    View,
)
from loremesh_crew.engine.running import Running
from loremesh_crew.errors import (
    FileNotFound,
    NotAFlow,
    RunFinished,
    RunNotFound,
    SignalsFull,
    SignalUnknown,
    VisitNotFound,
)
from loremesh_crew.ports import ListedRun, RunRecord, RunViews

TREE_LIMIT = 1000
_PURGE_SECONDS = 600.0
HEARTBEAT = "heartbeat"
_TERMINAL = frozenset({"completed", "incomplete", "failed", "cancelled", "expired"})

Shown = tuple[RunRecord, View]


class Runs:
    """The use cases of RunService, but for those that decide a run anew."""

    def __init__(
        self, *, database: Database, bus: Bus | None, views: RunViews, running: Running, heartbeat: float
    ) -> None:
        """`heartbeat` is how many seconds a stream may be silent."""
        self._database = database
        self._bus = bus
        self._views = views
        self._running = running
        self._heartbeat = heartbeat

    async def get(self, run_id: str) -> Shown:
        """A run and what is shown of it; raises RunNotFound."""
        return self._shown(await self._views.get(run_id))

    def _shown(self, run: RunRecord) -> Shown:
        return run, self._running.machine(run).view(run.pinned, run.state)

    async def page(
        self, *, after: Position | None, limit: int, definition_id: str, status: RunStatus | None, children: bool
    ) -> Sequence[ListedRun]:
        """Newest first, without tasks."""
        return await self._views.page(
            after=after, limit=limit, definition_id=definition_id, status=status, children=children
        )

    async def tree(self, run_id: str) -> Sequence[Shown]:
        """The run, and those below it, oldest first; raises RunNotFound."""
        top = await self._views.get(run_id)
        runs = await self._views.tree(top.pinned.root_run_id, limit=TREE_LIMIT)
        below = {run_id}
        kept = [top]
        for run in runs:
            if run.parent_run_id in below and run.id not in below:
                below.add(run.id)
                kept.append(run)
        return [self._shown(run) for run in kept]

    async def file(self, run_id: str, name: str) -> TaskView:
        """The last task with an output that is offered by this name; raises RunNotFound, FileNotFound."""
        _, view = await self.get(run_id)
        for task in reversed(view.tasks):
            if task.file == name and task.output:
                return task
        raise FileNotFound(run_id, name)

    async def events(self, run_id: str, *, after_seq: int, limit: int) -> tuple[Sequence[eventlog.Event], int]:
        """Events up to now, and the number of the last there is; raises RunNotFound, AfterSeqOutOfRange."""
        _, last_seq = await self._standing(run_id, after_seq=after_seq)
        return await self._views.events(run_id, after_seq=after_seq, limit=limit), last_seq

    async def watch(self, run_id: str, *, after_seq: int) -> AsyncGenerator[eventlog.Event, None]:
        """Events past and to come, up to the terminal one; nothing where that was the last one seen.

        Raises, before the first event, AfterSeqOutOfRange, and at any time RunNotFound: it may be deleted.
        """
        status, last_seq = await self._standing(run_id, after_seq=after_seq)
        if status.finished and after_seq == last_seq:
            return
        async for event in eventlog.tail(
            self._database, self._bus, run_id=run_id, after_seq=after_seq, heartbeat=self._heartbeat
        ):
            if isinstance(event, eventlog.Heartbeat):
                await self._views.standing(run_id)
                yield eventlog.Event(seq=0, time=datetime.now(UTC), kind=HEARTBEAT, payload={}, attempt=0, path=[])
                continue
            yield event
            if event.kind in _TERMINAL:
                return

    async def cancel(self, run_id: str, *, comment: str) -> Shown:
        """Have it end as CANCELLED, unless it has ended; raises RunNotFound."""
        return await self._steer(run_id, CancelAsked(time=self._running.now(), comment=comment), finished=True)

    async def pause(self, run_id: str) -> Shown:
        """Let nothing new begin; raises RunNotFound, RunFinished."""
        return await self._steer(run_id, PauseAsked(time=self._running.now()))

    async def resume(self, run_id: str) -> Shown:
        """Let it go on; raises RunNotFound, RunFinished."""
        return await self._steer(run_id, ResumeAsked(time=self._running.now()))

    async def signal(self, run_id: str, *, signal: str, signal_id: str, payload: object) -> Shown:
        """Give it a signal; raises RunNotFound, RunFinished, SignalUnknown, SignalsFull, InputInvalid."""
        run = await self._views.get(run_id)
        if run.pinned.flow is None or signal not in signals(run.pinned.flow):
            raise SignalUnknown(signal)
        kept = held_against({"payload": payload}, schema=None, needed=(), field="payload")
        event = SignalCame(
            time=self._running.now(), signal=signal, signal_id=signal_id or new_id(), payload=kept["payload"]
        )
        async with self._database.transaction() as connection:
            before = await self._apply(connection, run_id, event)
            if isinstance(before.state, FlowRunState) and full(before.pinned, before.state, event):
                raise SignalsFull(signal)
        return await self.get(run_id)

    async def explain(self, run_id: str, *, state: str, visit: int) -> dict[str, object]:
        """The report of how a state was left, as proto JSON; raises RunNotFound, NotAFlow, VisitNotFound."""
        run, view = await self.get(run_id)
        if run.pinned.kind is not RunKind.FLOW:
            raise NotAFlow(run_id)
        for report in reversed(view.reports):
            if (not state or report.get("from") == state) and (not visit or report.get("visit") == visit):
                return dict(report)
        raise VisitNotFound(state, visit)

    async def _steer(self, run_id: str, event: Event, *, finished: bool = False) -> Shown:
        async with self._database.transaction() as connection:
            await self._apply(connection, run_id, event, finished=finished)
        return await self.get(run_id)

    async def _apply(
        self, connection: AsyncConnection[Row], run_id: str, event: Event, *, finished: bool = False
    ) -> RunRecord:
        """The run as it was before."""
        before = await self._running.apply_in(connection, run_id, [event])
        if before is None:
            raise RunNotFound(run_id)
        if before.status.finished and not finished:
            raise RunFinished(run_id, before.status)
        return before

    async def _standing(self, run_id: str, *, after_seq: int) -> tuple[RunStatus, int]:
        status, last_seq = await self._views.standing(run_id)
        if after_seq > last_seq:
            raise AfterSeqOutOfRange(last_seq)
        return status, last_seq


class Purge:
    """Removes runs once their days are over; any number may run."""

    def __init__(self, *, views: RunViews) -> None:
        self._views = views

    async def run(self, stop: asyncio.Event) -> None:
        """Purge until `stop`."""

        async def step() -> None:
            if await self._views.purge() == 0:
                await unless(stop, asyncio.sleep(_PURGE_SECONDS))

        await repeat(step, stop=stop, name="run purge")
