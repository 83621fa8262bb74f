"""Runs that go on from where another was, with something changed."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from loremesh_kit import identity
from loremesh_kit.ids import new_id

from loremesh_crew.domain.definitions import Crew, CrewAgent, Flow
from loremesh_crew.domain.forking import Changes, Redecided, changed_crew, changed_flow, described, redecide
from loremesh_crew.domain.machine import Pinned, RunKind, StartTimer
from loremesh_crew.engine.kickoff import Kickoff, checked
from loremesh_crew.engine.replaying import history_of
from loremesh_crew.engine.running import Running
from loremesh_crew.errors import CrewInvalid, InputInvalid, SeqUnknown
from loremesh_crew.ports import (
    AgentRegistry,
    Decision,
    Due,
    Errand,
    KeptDecision,
    NewRecord,
    RunCopies,
    RunRecord,
    RunViews,
)


class Forking:
    """Begins runs with what others did."""

    def __init__(
        self,
        *,
        views: RunViews,
        copies: RunCopies,
        running: Running,
        kickoff: Kickoff,
        agents: AgentRegistry,
    ) -> None:
        self._views = views
        self._copies = copies
        self._running = running
        self._kickoff = kickoff
        self._agents = agents

    async def fork(self, run_id: str, *, after_seq: int, changes: Changes) -> str:
        """Begin a new run that goes on from another; its id. Child runs that were over by then become its own.

        Raises RunNotFound, EngineVersionUnknown, SeqUnknown, InputInvalid, InputMissing, CrewInvalid, RunsFull.
        """
        run = await self._views.get(run_id)
        if after_seq > run.last_seq:
            raise SeqUnknown(run.last_seq)
        await self._vet(run.pinned, changes)
        new = _new(run, after_seq=after_seq, changes=changes)
        kept = await self._until(run_id, after_seq)
        if not kept:
            async with self._kickoff.room(1) as connection:
                await self._running.begin(connection, new)
            return new.pinned.run_id
        now = self._running.now()
        # Long histories are many decisions, and others want to be served.
        done = await asyncio.to_thread(
            redecide,
            self._running.machine(run),
            new.pinned,
            [(each.event, each.commands) for each in kept],
            of=run_id,
            later=now - kept[-1].event.time,
        )
        due = _due(done, new.pinned.run_id, now=now) if done.state.end is None else []
        async with self._kickoff.room(1) as connection:
            await self._running.adopt(connection, new, of=run, state=done.state, decisions=_decisions(done), due=due)
            if done.children:
                children = [each.replace(new.pinned.run_id, run_id, 1) for each in done.children]
                await self._copies.copy(connection, of=run, to=new.pinned.run_id, children=children)
        return new.pinned.run_id

    async def _vet(self, pinned: Pinned, changes: Changes) -> None:
        """Raise InputInvalid for a description of nothing, and CrewInvalid for a model there is not."""
        definition = pinned.crew or pinned.flow
        for place in changes.descriptions:
            if definition and not await self._is_described(definition, place, pinned):
                raise InputInvalid(f"there is no task {place!r}.", field="descriptions")
        if changes.model:
            anybody = CrewAgent(name="anybody", role="Anybody.", model=changes.model)
            if found := await self._agents.faults(anybody):
                raise CrewInvalid(found)

    async def _is_described(self, definition: Crew | Flow, place: str, pinned: Pinned) -> bool:
        """Whether there is a task at `TASK`, or below a flow at `STATE/TASK`."""
        name, _, rest = place.partition("/")
        if not rest:
            return name in described(definition)
        states = definition.states if isinstance(definition, Flow) else ()
        state = next((each for each in states if each.id == name), None)
        if state is None or not (state.crew or state.flow):
            return False
        if state.crew:
            kind, id_, revision = RunKind.CREW, state.crew.crew_id, state.crew.revision
        elif state.flow:
            kind, id_, revision = RunKind.FLOW, state.flow.flow_id, state.flow.revision
        pin = pinned.pins.get(f"{kind.lower()}:{id_}", 0)
        return await self._is_described(await self._kickoff.definition(kind, id_, revision or pin), rest, pinned)

    async def _until(self, run_id: str, seq: int) -> list[KeptDecision]:
        """The decisions up to the one that told the event; a decision is made as a whole or not at all."""
        kept: list[KeptDecision] = []
        async for each in history_of(self._views, run_id):
            if each.last_seq > seq and (not kept or kept[-1].last_seq >= seq):
                break
            kept.append(each)
        return kept


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
        inputs = checked(of, inputs)
    return replace(
        pinned,
        run_id=run_id,
        root_run_id=run_id,
        crew=crew,
        flow=flow,
        inputs=inputs,
        depth=0,
        model=changes.model or pinned.model,
        descriptions={**pinned.descriptions, **changes.descriptions},
    )


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
