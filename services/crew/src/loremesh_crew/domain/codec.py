"""Runs as text: what a machine remembers, decides on and decides, as JSON and back unchanged."""

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter

from loremesh_crew.domain import machine
from loremesh_crew.domain.machine import Command, Event, Pinned, Tell

_TYPE = "type"
_EVENTS: tuple[type[Event], ...] = (
    machine.Started,
    machine.TaskEnded,
    machine.TaskWaits,
    machine.TaskResumes,
    machine.DelegationAsked,
    machine.TimerFired,
    machine.ChildEnded,
    machine.SignalCame,
    machine.CancelAsked,
    machine.PauseAsked,
    machine.ResumeAsked,
)
_COMMANDS: tuple[type[Command], ...] = (
    machine.StartTask,
    machine.CancelTask,
    machine.AnswerDelegation,
    machine.StartTimer,
    machine.StartChild,
    machine.SteerChild,
)
_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}
_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (*_EVENTS, *_COMMANDS)}


def _adapter(kind: Any) -> TypeAdapter[Any]:
    # Each is made once: it is a program of its own.
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def text(value: Any) -> str:
    """JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def dump(value: Any) -> str:
    """A state, or what is pinned; without what is as it is by default."""
    return _adapter(type(value)).dump_json(value, exclude_defaults=True).decode()


def load(kind: type[Any], kept: str) -> Any:
    """What `dump` was given."""
    return _adapter(kind).validate_json(kept)


@lru_cache(maxsize=64)
def load_pinned(kept: str) -> Pinned:
    """What is pinned; it never changes, and is wanted at every event of a run."""
    pinned: Pinned = load(Pinned, kept)
    return pinned


def tagged(value: Event | Command) -> dict[str, Any]:
    """An event or a command as JSON, with its type.

    What a command tells is in the run's log: here it stands with its kind and place only.
    """
    if isinstance(value, Tell):
        return {_TYPE: "Tell", "kind": value.kind, "path": list(value.path), "attempt": value.attempt}
    return {_TYPE: type(value).__name__, **_adapter(type(value)).dump_python(value, mode="json")}


def untagged(kept: dict[str, Any]) -> Any:
    """The event or command of a `tagged` one, but for Tell."""
    fields = {name: value for name, value in kept.items() if name != _TYPE}
    return _adapter(_KINDS[kept[_TYPE]]).validate_python(fields)


def dump_commands(commands: Iterable[Command]) -> str:
    """Commands in their order."""
    return text([tagged(each) for each in commands])


def load_event(kept: str) -> Event:
    """An event."""
    event: Event = untagged(json.loads(kept))
    return event


def load_command(kept: str) -> Command:
    """One of `dump_commands`, but for Tell."""
    command: Command = untagged(json.loads(kept))
    return command
