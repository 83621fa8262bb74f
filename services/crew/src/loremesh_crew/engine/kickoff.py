"""Runs are accepted: everything they may come to is looked up, pinned and checked before the first of them begins."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from loremesh_kit import identity
from loremesh_kit.ids import new_id
from loremesh_kit.postgres import Database, Row
from psycopg import AsyncConnection

from loremesh_crew.domain import flow_checks
from loremesh_crew.domain.definitions import Crew, CrewAgent, Flow, RunLimits
from loremesh_crew.domain.forking import below, changed
from loremesh_crew.domain.inputs import check_inputs
from loremesh_crew.domain.machine import Pinned, RunKind, StartChild
from loremesh_crew.engine.running import Running
from loremesh_crew.errors import AgentUnknown, RunsFull
from loremesh_crew.ports import AgentRegistry, Library, NewRecord, NewRun, RunRecord, RunViews

# Kickoffs of a tenant in the same moment, at most.
_AT_ONCE = 100


class Kickoff:
    """See ports.Kickoffs; and it makes child runs."""

    def __init__(
        self,
        *,
        database: Database,
        library: Library,
        agents: AgentRegistry,
        running: Running,
        views: RunViews,
        limit: int,
    ) -> None:
        """At most `limit` runs of a tenant are in progress, child runs not counted."""
        self._database = database
        self._library = library
        self._agents = agents
        self._running = running
        self._views = views
        self._limit = limit

    async def start(self, runs: Sequence[NewRun]) -> Sequence[str]:
        """See ports.Kickoffs."""
        found: dict[tuple[RunKind, str, int], tuple[Crew | Flow, Mapping[str, int]]] = {}
        records = []
        for run in runs:
            key = (run.kind, run.definition_id, run.revision)
            if key not in found:
                definition = await self.definition(*key)
                found[key] = definition, await self._pins(definition)
            definition, pins = found[key]
            records.append(_record(definition, run, pins=pins))
        async with self.room(len(records)) as connection:
            for record in records:
                await self._running.begin(connection, record)
        return [record.pinned.run_id for record in records]

    @asynccontextmanager
    async def room(self, runs: int) -> AsyncIterator[AsyncConnection[Row]]:
        """A transaction in which so many runs are begun; the caller's, or one of its own. Raises RunsFull.

        Near the limit it is looked at once more at the end, one kickoff of the tenant after the other. Far from it
        nobody waits for anybody: to overstep it from there takes more kickoffs in the same moment than there are
        connections to the database.
        """
        at_work = await self._views.at_work(limit=self._limit)
        if at_work + runs > self._limit:
            raise RunsFull(self._limit)
        async with self._database.transaction() as connection:
            yield connection
            near = at_work + _AT_ONCE * runs > self._limit
            if near and await self._views.at_work_alone(connection, limit=self._limit + 1) > self._limit:
                raise RunsFull(self._limit)

    async def child(self, parent: RunRecord, command: StartChild) -> NewRecord:
        """A run below another, with what was pinned for it; raises what `start` raises."""
        pinned = parent.pinned
        definition: Crew | Flow | None = command.crew
        changes = below(pinned, command.state)
        if definition is None:
            kind = "crew" if command.kind is RunKind.CREW else "flow"
            revision = command.revision or pinned.pins.get(f"{kind}:{command.definition_id}", 0)
            definition = await self.definition(command.kind, command.definition_id, revision)
            definition = changed(definition, changes)
        return NewRecord(
            pinned=Pinned(
                run_id=command.child_run_id,
                root_run_id=pinned.root_run_id,
                kind=command.kind,
                crew=definition if isinstance(definition, Crew) else None,
                flow=definition if isinstance(definition, Flow) else None,
                inputs=checked(definition, _asked_for(definition, command.inputs)),
                limits=smaller(definition.limits, command.limits),
                pins=pinned.pins,
                depth=pinned.depth + 1,
                model=changes.model,
                descriptions=changes.descriptions,
            ),
            name=definition.name or definition.id or command.state,
            principal=parent.principal,
            definition_id=definition.id,
            revision=definition.revision,
            parent_run_id=parent.id,
            parent_state=command.state,
        )

    async def definition(self, kind: RunKind, definition_id: str, revision: int) -> Crew | Flow:
        """A crew or flow as it is, or as it was; raises what a library raises."""
        if kind is RunKind.CREW:
            return await self._library.crew(definition_id, revision=revision)
        return await self._library.flow(definition_id, revision=revision)

    async def _pins(self, definition: Crew | Flow) -> Mapping[str, int]:
        """The revisions of all that a definition may come to; raises AgentUnknown and what a library raises."""
        pins = _Pins()
        await self._pin(definition, pins)
        return pins.revisions

    async def _pin(self, definition: Crew | Flow, pins: "_Pins") -> None:
        if isinstance(definition, Crew):
            for agent in definition.agents:
                await self._pin_agent(agent, pins)
            return
        for state in definition.states:
            if state.agent:
                await self._pin_agent(state.agent.agent, pins)
            elif state.crew:
                await self._pin_below(RunKind.CREW, state.crew.crew_id, state.crew.revision, pins)
            elif state.flow:
                await self._pin_below(RunKind.FLOW, state.flow.flow_id, state.flow.revision, pins)

    async def _pin_below(self, kind: RunKind, definition_id: str, revision: int, pins: "_Pins") -> None:
        key = f"{kind.lower()}:{definition_id}"
        if key in pins.revisions and not revision:
            return
        definition = await self.definition(kind, definition_id, revision)
        if not revision:
            pins.revisions[key] = definition.revision
        # One that is asked for by its number needs no pin, but what it comes to does.
        if (key, definition.revision) not in pins.seen:
            pins.seen.add((key, definition.revision))
            await self._pin(definition, pins)

    async def _pin_agent(self, agent: CrewAgent, pins: "_Pins") -> None:
        if not agent.agent_id:
            return
        key = f"agent:{agent.agent_id}"
        if key in pins.revisions and not agent.agent_revision:
            return
        revision = await self._agents.revision(agent.agent_id, revision=agent.agent_revision)
        if revision is None:
            raise AgentUnknown(agent.agent_id)
        if not agent.agent_revision:
            pins.revisions[key] = revision


@dataclass(slots=True)
class _Pins:
    """Revisions as Pinned has them, and what was looked at for them."""

    revisions: dict[str, int] = field(default_factory=dict)
    seen: set[tuple[str, int]] = field(default_factory=set)


def smaller(one: RunLimits, other: RunLimits) -> RunLimits:
    """Both limits together."""
    return RunLimits(
        max_tokens=_smaller(one.max_tokens, other.max_tokens),
        max_cost_micros=_smaller(one.max_cost_micros, other.max_cost_micros),
        max_tool_calls=_smaller(one.max_tool_calls, other.max_tool_calls),
        max_seconds=_smaller(one.max_seconds or 0.0, other.max_seconds or 0.0) or None,
    )


def _smaller(one: Any, other: Any) -> Any:
    return min(one, other) if one and other else one or other


def checked(definition: Crew | Flow, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a run as they are kept; raises InputMissing, InputInvalid, VariableInvalid."""
    if isinstance(definition, Crew):
        return check_inputs(definition, inputs)
    return flow_checks.check_inputs(definition, inputs)


def _asked_for(definition: Crew | Flow, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The inputs without those that a definition says it does not take: a state passes on all there are."""
    schema = definition.inputs_schema or {}
    if schema.get("additionalProperties") is not False or "patternProperties" in schema:
        return inputs
    return {name: value for name, value in inputs.items() if name in schema.get("properties", {})}


def _record(definition: Crew | Flow, run: NewRun, *, pins: Mapping[str, int]) -> NewRecord:
    run_id = new_id()
    return NewRecord(
        pinned=Pinned(
            run_id=run_id,
            root_run_id=run_id,
            kind=run.kind,
            crew=definition if isinstance(definition, Crew) else None,
            flow=definition if isinstance(definition, Flow) else None,
            inputs=checked(definition, run.inputs),
            limits=smaller(definition.limits, run.limits),
            pins=pins,
        ),
        name=definition.name or definition.id,
        principal=identity.current().principal,
        definition_id=definition.id,
        revision=definition.revision,
    )
