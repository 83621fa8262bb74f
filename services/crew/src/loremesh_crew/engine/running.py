"""Runs go on: an event, the machine's decision on it, and what follows, in one transaction."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakValueDictionary

from loremesh_kit import identity, jobs
from loremesh_kit.clock import Clock
from loremesh_kit.jobs import Job
from loremesh_kit.postgres import Database, Row
from psycopg import AsyncConnection

from loremesh_crew.domain.deciding import decide, latest, may_remember, terminal
from loremesh_crew.domain.machine import Event, Machine, RunStatus, Started, TaskEnded
from loremesh_crew.errors import EngineVersionUnknown
from loremesh_crew.ports import Change, Decision, Due, Machines, NewRecord, RunRecord, RunStore


@dataclass(slots=True, eq=False)
class _Told:
    """What somebody has to tell a run, and the job that is done once it is decided."""

    events: Sequence[Event]
    job: Job | None
    done: bool = False


@dataclass(slots=True, weakref_slot=True)
class _Gate:
    """Through which one at a time comes to a run, and takes with it what waits."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: list[_Told] = field(default_factory=list)


class Running:
    """Decides runs. Any number of these may, in any number of processes: the run's row is locked meanwhile.

    No transaction ever holds two runs' rows, so none waits for another in a circle.
    """

    def __init__(self, *, database: Database, store: RunStore, machines: Machines, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._machines = machines
        self._clock = clock
        # For as long as anybody holds one.
        self._gates: WeakValueDictionary[tuple[str, str], _Gate] = WeakValueDictionary()

    def now(self) -> datetime:
        """What events made now have as their time."""
        return self._clock.now()

    async def begin(self, connection: AsyncConnection[Row], new: NewRecord) -> bool:
        """Keep a run and start it; False where there is one of its id: nothing is changed then."""
        machine, now = latest(self._machines, new.pinned.kind), self._clock.now()
        run = record_of(new, state=machine.begin(new.pinned), version=machine.version, now=now)
        if not await self._store.insert(connection, run):
            return False
        await self._decide(connection, run, machine, [Started(time=now)])
        return True

    async def adopt(
        self,
        connection: AsyncConnection[Row],
        new: NewRecord,
        *,
        of: RunRecord,
        state: Any,
        decisions: Sequence[Decision],
        due: Sequence[Due],
    ) -> None:
        """Keep a run that takes decisions as made, by the machine of another, and have what is due carried out."""
        machine = self.machine(of)
        run = record_of(new, state=state, version=machine.version, now=self._clock.now())
        await self._store.insert(connection, run)
        await self._store.write(connection, self._change(run, machine, state, decisions, discarded=True))
        await self._store.issue(connection, run, due)

    async def apply(self, run_id: str, events: Sequence[Event], *, job: Job | None = None) -> None:
        """Decide on events in a transaction of their own, which completes `job`; not inside of another.

        What comes to a run meanwhile waits here, not at its row with a connection in hand, and is decided together.
        Nothing where there is no such run, or where they mean nothing to it. Raises FenceLost, which undoes it all.
        """
        told = _Told(events, job)
        gate = self._gates.setdefault((identity.current().tenant, run_id), _Gate())
        gate.waiting.append(told)
        try:
            async with gate.lock:
                if not told.done:
                    await self._decide_together(run_id, gate, told)
        finally:
            if told in gate.waiting:
                # Cancelled as they waited: what they would have told is told by whoever takes up their job.
                gate.waiting.remove(told)

    async def _decide_together(self, run_id: str, gate: "_Gate", mine: "_Told") -> None:
        """All that waits in one transaction; where that cannot be, `mine` alone, and the others are on their own."""
        batch, gate.waiting = gate.waiting, []
        try:
            await self._write(run_id, batch)
        except Exception:
            # Whosever fault it is, it is not to be everybody's.
            if len(batch) == 1:
                raise
            await self._write(run_id, [mine])
        finally:
            gate.waiting[:0] = [each for each in batch if not each.done and each is not mine]

    async def _write(self, run_id: str, batch: Sequence["_Told"]) -> None:
        async with self._database.pipeline() as connection:
            await self.apply_in(connection, run_id, [event for each in batch for event in each.events])
            completed = [(await jobs.completion(connection, each.job), each.job) for each in batch if each.job]
            for cursor, job in completed:
                await jobs.confirm(cursor, job)
        for each in batch:
            each.done = True

    async def apply_in(
        self, connection: AsyncConnection[Row], run_id: str, events: Sequence[Event]
    ) -> RunRecord | None:
        """The same in the caller's; the run as it was before, None where there is none."""
        run = await self._store.lock(connection, run_id)
        if run is None:
            return None
        await self._decide(connection, run, self.machine(run), events)
        return run

    def machine(self, run: RunRecord) -> Machine[Any]:
        """The one that decides a run; raises EngineVersionUnknown."""
        machine = self._machines.get((run.pinned.kind, run.engine_version))
        if machine is None:
            raise EngineVersionUnknown(run.engine_version)
        return machine

    async def _decide(
        self, connection: AsyncConnection[Row], run: RunRecord, machine: Machine[Any], events: Sequence[Event]
    ) -> None:
        ended = [event.task_id for event in events if isinstance(event, TaskEnded)]
        state, decided = decide(machine, run.pinned, run.state, events)
        if not decided:
            if ended:
                await self._store.forget_tasks(connection, ended)
            return
        decisions = [Decision(event=event, commands=commands) for event, commands in decided]
        await self._store.write(connection, self._change(run, machine, state, decisions, ended=ended))

    def _change(
        self,
        run: RunRecord,
        machine: Machine[Any],
        state: Any,
        decisions: Sequence[Decision],
        *,
        ended: Sequence[str] = (),
        discarded: bool = False,
    ) -> Change:
        view = machine.view(run.pinned, state)
        over = state.end is not None
        return Change(
            run=run,
            state=state,
            view=view,
            decisions=decisions,
            ended=ended,
            terminal=terminal(state.end, view) if over else None,
            finish_time=self._clock.now() if over else None,
            forgets=over and not run.parent_run_id and may_remember(run.pinned),
            discarded=discarded,
        )


def record_of(new: NewRecord, *, state: Any, version: int, now: datetime) -> RunRecord:
    """A run as it is kept at first."""
    seconds = new.pinned.limits.max_seconds
    return RunRecord(
        pinned=new.pinned,
        state=state,
        status=RunStatus.QUEUED,
        engine_version=version,
        name=new.name,
        principal=new.principal,
        revision=new.revision,
        definition_id=new.definition_id,
        parent_run_id=new.parent_run_id,
        parent_state=new.parent_state,
        forked_from=new.forked_from,
        forked_after_seq=new.forked_after_seq,
        create_time=now,
        expire_time=now + timedelta(seconds=seconds) if seconds else None,
    )
