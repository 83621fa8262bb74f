"""Runs decided anew: compared with what was decided then, or as the beginning of new ones."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from loremesh_kit import identity
from loremesh_kit.ids import new_id
from loremesh_kit.postgres import Database

from loremesh_crew.domain import codec
from loremesh_crew.domain.forking import Changes, Redecided, changed_crew, changed_flow, described, redecide
from loremesh_crew.domain.machine import Pinned, StartTimer
from loremesh_crew.engine.kickoff import checked
from loremesh_crew.engine.running import Running
from loremesh_crew.errors import InputInvalid, RunsFull, SeqUnknown
from loremesh_crew.ports import Decision, Due, Errand, KeptDecision, NewRecord, RunRecord, RunViews

_PAGE = 200
_MOST_DIFFERENCES = 100
_SHOWN_CHARS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A decision that comes out differently; texts are JSON, cut."""

    decision: int
    event: str
    recorded: str
    replayed: str


class Replaying:
    """The use cases of RunService that decide a run anew."""

    def __init__(self, *, database: Database, views: RunViews, running: Running, limit: int) -> None:
        """At most `limit` runs of a tenant are in progress."""
        self._database = database
        self._views = views
        self._running = running
        self._limit = limit

    async def replay(self, run_id: str) -> tuple[int, list[Difference]]:
        """How many decisions there are, and which of them come out differently, the first hundred.

        Raises RunNotFound, EngineVersionUnknown.
        """
        run = await self._views.get(run_id)
        machine = self._running.machine(run)
        differences: list[Difference] = []
        state, number = machine.begin(run.pinned), 0
        async for kept in self._history(run_id):
            number = kept.number
            state, commands = machine.decide(run.pinned, state, kept.event)
            now = [codec.tagged(each) for each in commands]
            if now != kept.commands and len(differences) < _MOST_DIFFERENCES:
                differences.append(_difference(kept, now))
            # Long histories are many decisions, and others want to be served.
            await asyncio.sleep(0)
        return number, differences

    async def fork(self, run_id: str, *, after_seq: int, changes: Changes) -> str:
        """Begin a new run that goes on from another; its id.

        Raises RunNotFound, EngineVersionUnknown, SeqUnknown, InputInvalid, InputMissing, RunsFull.
        """
        run = await self._views.get(run_id)
        if after_seq > run.last_seq:
            raise SeqUnknown(run.last_seq)
        new = _new(run, after_seq=after_seq, changes=changes)
        if await self._views.at_work(limit=self._limit) >= self._limit:
            raise RunsFull(self._limit)
        kept = await self._until(run_id, after_seq)
        async with self._database.transaction() as connection:
            if not kept:
                await self._running.begin(connection, new)
                return new.pinned.run_id
            now = self._running.now()
            done = redecide(
                self._running.machine(run),
                new.pinned,
                [(each.event, each.commands) for each in kept],
                of=run_id,
                later=now - kept[-1].event.time,
            )
            due = _due(done, new.pinned.run_id, now=now) if done.state.end is None else []
            await self._running.adopt(connection, new, of=run, state=done.state, decisions=_decisions(done), due=due)
        return new.pinned.run_id

    async def _until(self, run_id: str, seq: int) -> list[KeptDecision]:
        """The decisions up to the one that told the event; a decision is made as a whole or not at all."""
        kept: list[KeptDecision] = []
        async for each in self._history(run_id):
            if each.last_seq > seq and (not kept or kept[-1].last_seq >= seq):
                break
            kept.append(each)
        return kept

    async def _history(self, run_id: str) -> AsyncIterator[KeptDecision]:
        after = 0
        while page := await self._views.history(run_id, after=after, limit=_PAGE):
            for each in page:
                yield each
            after = page[-1].number


def _difference(kept: KeptDecision, now: list[dict[str, object]]) -> Difference:
    return Difference(
        decision=kept.number,
        event=type(kept.event).__name__,
        recorded=codec.text(list(kept.commands))[:_SHOWN_CHARS],
        replayed=codec.text(now)[:_SHOWN_CHARS],
    )


def _new(run: RunRecord, *, after_seq: int, changes: Changes) -> NewRecord:
    return NewRecord(
        pinned=_changed(run.pinned, changes),
        name=run.name,
        principal=identity.current().principal,
        definition_id=run.definition_id,
        revision=run.revision,
        forked_from=run.id,
        forked_after_seq=after_seq,
    )


def _changed(pinned: Pinned, changes: Changes) -> Pinned:
    run_id = new_id()
    crew = changed_crew(pinned.crew, changes) if pinned.crew else None
    flow = changed_flow(pinned.flow, changes) if pinned.flow else None
    inputs: Mapping[str, Any] = {**pinned.inputs, **changes.inputs}
    if of := crew or flow:
        if unknown := changes.descriptions.keys() - described(of):
            raise InputInvalid(f"there is no task {min(unknown)!r}.", field="descriptions")
        inputs = checked(of, inputs)
    return replace(pinned, run_id=run_id, root_run_id=run_id, crew=crew, flow=flow, inputs=inputs, depth=0)


def _decisions(done: Redecided) -> list[Decision]:
    return [Decision(event=event, commands=commands) for event, commands in done.decisions]


def _due(done: Redecided, run_id: str, *, now: datetime) -> list[Due]:
    """What is under way is begun again; of timers, what is left."""
    return [
        Due(
            errand=Errand(run_id=run_id, number=number, index=index),
            command=command,
            delay=max(0.0, command.seconds - (now - time).total_seconds()) if isinstance(command, StartTimer) else 0.0,
        )
        for number, index, time, command in done.under_way.values()
    ]
