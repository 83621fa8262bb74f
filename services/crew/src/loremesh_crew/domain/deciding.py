"""Decisions one after the other, and what every kind of run has in common."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

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


def remembering(run: Pinned) -> tuple[str, ...]:
    """The crews whose short-term memories a run may have, as agents' ids."""
    crews = [name.removeprefix("crew:") for name in run.pins if name.startswith("crew:")]
    if run.crew and run.crew.memory:
        crews.append(run.crew.id)
    return tuple(dict.fromkeys(f"crew.{each}" for each in crews if each))
