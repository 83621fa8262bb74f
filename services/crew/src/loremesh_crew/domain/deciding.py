"""Decisions one after the other, and what every kind of run has in common."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from loremesh_crew.domain.composing import spec_id
from loremesh_crew.domain.definitions import Crew
from loremesh_crew.domain.machine import Command, End, Event, Machine, Pinned, RunKind, Tell, View


def decide(
    machine: Machine[Any], run: Pinned, state: Any, events: Sequence[Event]
) -> tuple[Any, list[tuple[Event, tuple[Command, ...]]]]:
    """The state after events, and those that meant something with their commands; nothing does after the end."""
    decided: list[tuple[Event, tuple[Command, ...]]] = []
    for event in events:
        if state.end is not None:
            break
        after, commands = machine.decide(run, state, event)
        if commands or after != state:
            decided.append((event, tuple(commands)))
            state = after
    return state, decided


def latest(machines: Mapping[tuple[RunKind, int], Machine[Any]], kind: RunKind) -> Machine[Any]:
    """The machine that new runs get."""
    return machines[kind, max(version for each, version in machines if each is kind)]


def terminal(end: End, view: View) -> Tell:
    """The last event of a run."""
    data = {"output": end.output, "reason": end.reason, "message": end.message, "usage": asdict(view.usage)}
    return Tell(kind=end.status.lower(), data=data)


def remembering(crew: Crew) -> tuple[str, ...]:
    """Whose short-term memories runs of a crew have, as agents' ids."""
    if crew.memory and crew.id:
        return (f"crew.{crew.id}",)
    mine = (each for each in crew.agents if crew.memory or each.memory is not None)
    return tuple(each.agent_id or spec_id(crew.id, each.name) for each in mine)


def may_remember(run: Pinned) -> bool:
    """Whether a run or one below it may have any."""
    states = run.flow.states if run.flow else ()
    below = any(each.crew or each.flow or (each.agent and each.agent.agent.memory) for each in states)
    return below or bool(run.crew and remembering(run.crew))
