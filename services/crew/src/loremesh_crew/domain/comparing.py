"""What differs between two runs, and how one looks drawn."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from loremesh_crew.domain.machine import Pinned, RunKind, TaskStatus, TaskView, View

_MISSING = ""
_CLASSES: Mapping[TaskStatus, str] = {
    TaskStatus.COMPLETED: "done",
    TaskStatus.INCOMPLETE: "done",
    TaskStatus.IN_PROGRESS: "busy",
    TaskStatus.RETRYING: "busy",
    TaskStatus.WAITING: "waits",
    TaskStatus.FAILED: "failed",
    TaskStatus.CANCELLED: "failed",
}
_STYLES = (
    "classDef done fill:#d7f5dd,stroke:#2a7d3f",
    "classDef busy fill:#dbe9ff,stroke:#2f5fb3",
    "classDef waits fill:#fff3cd,stroke:#9a7b1c",
    "classDef failed fill:#fbdcdc,stroke:#a33030",
)

Difference = tuple[str, str, str]


def differences(left: tuple[Pinned, View], right: tuple[Pinned, View]) -> list[Difference]:
    """Field, the one's, the other's; in the order of the fields of Run."""
    one, other = dict(_facts(*left)), dict(_facts(*right))
    names = [*one, *(name for name in other if name not in one)]
    return [
        (name, one.get(name, _MISSING), other.get(name, _MISSING))
        for name in names
        if one.get(name, _MISSING) != other.get(name, _MISSING)
    ]


def mermaid(pinned: Pinned, view: View) -> str:
    """A Mermaid graph: tasks and what they wait for, or states in the order they were visited."""
    lines = ["graph TD"]
    nodes = {_key(task): f"n{number}" for number, task in enumerate(view.tasks, start=1)}
    for task in view.tasks:
        style = _CLASSES.get(task.status)
        node = f'    {nodes[_key(task)]}["{_label(task)}"]'
        lines.append(f"{node}:::{style}" if style else node)
    lines += _arrows(pinned, view, nodes)
    return "\n".join([*lines, *(f"    {style}" for style in _STYLES), ""])


def _arrows(pinned: Pinned, view: View, nodes: Mapping[tuple[str, int], str]) -> Iterator[str]:
    if pinned.kind is RunKind.FLOW:
        ids = list(nodes.values())
        yield from (f"    {one} --> {other}" for one, other in pairwise(ids))
        return
    named = {name: node for (name, _), node in nodes.items()}
    for task in view.tasks:
        before = [*task.depends_on, *([task.delegated_by] if task.delegated_by else [])]
        yield from (f"    {named[name]} --> {nodes[_key(task)]}" for name in before if name in named)


def _label(task: TaskView) -> str:
    who = f"<br/>{_escaped(task.agent)}" if task.agent else ""
    visit = f" ({task.visit})" if task.visit > 1 else ""
    return f"{_escaped(task.name)}{visit}{who}<br/>{task.status}"


def _escaped(text: str) -> str:
    """Nobody's text ends a label, or begins anything."""
    return "".join(each if each.isalnum() or each in " .,-_" else f"#{ord(each)};" for each in text)


def _key(task: TaskView) -> tuple[str, int]:
    return task.name, task.visit


def _facts(pinned: Pinned, view: View) -> Iterator[tuple[str, str]]:
    definition = pinned.crew or pinned.flow
    if definition:
        yield "definition_id", definition.id
        yield "revision", str(definition.revision)
    yield "status", view.status
    yield from ((f"inputs.{name}", _text(value)) for name, value in pinned.inputs.items())
    yield "output", view.output
    yield "reason", view.reason
    yield from ((f"limits.{name}", _text(value)) for name, value in asdict(pinned.limits).items())
    yield from _of_crew(pinned)
    yield from _of_flow(pinned)
    for task in view.tasks:
        name = f"tasks.{task.name}.{task.visit}" if task.visit else f"tasks.{task.name}"
        yield f"{name}.status", task.status
        yield f"{name}.agent", task.agent
        yield f"{name}.model", task.model
        yield f"{name}.attempts", str(task.attempts)
        yield f"{name}.reason", task.reason
        yield f"{name}.output", task.output
    yield from ((f"variables.{name}", _text(value)) for name, value in view.variables.items())
    yield from ((f"usage.{name}", str(value)) for name, value in asdict(view.usage).items())


def _of_crew(pinned: Pinned) -> Iterator[tuple[str, str]]:
    if pinned.crew is None:
        return
    for agent in pinned.crew.agents:
        yield f"agents.{agent.name}.model", agent.model
    for task in pinned.crew.tasks:
        yield f"tasks.{task.name}.description", task.description


def _of_flow(pinned: Pinned) -> Iterator[tuple[str, str]]:
    if pinned.flow is None:
        return
    for state in pinned.flow.states:
        if state.agent:
            yield f"states.{state.id}.model", state.agent.agent.model
            yield f"states.{state.id}.description", state.agent.task.description
    # Of what is below it.
    yield "model", pinned.model
    yield from ((f"descriptions.{place}", text) for place, text in pinned.descriptions.items() if "/" in place)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
