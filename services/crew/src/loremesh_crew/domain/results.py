"""How a crew's run ends, and what readers are shown of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from loremesh_crew.domain import tells
from loremesh_crew.domain.crew_state import CrewState, Item, Origin
from loremesh_crew.domain.crew_turn import BUDGET
from loremesh_crew.domain.definitions import Crew, Process
from loremesh_crew.domain.machine import End, RunStatus, TaskStatus, View


def ending(crew: Crew, items: Sequence[Item]) -> End:
    """How a run ends of which everything has ended: whole, in part, or without a result."""
    tasks = [item for item in items if item.origin is Origin.TASK]
    short = [item for item in tasks if item.status is not TaskStatus.COMPLETED]
    output, output_json = _result(crew, tasks)
    if not short:
        return End(status=RunStatus.COMPLETED, output=output, output_json=output_json)
    reason, message = _why(short)
    if any(item.done for item in tasks):
        return End(status=RunStatus.INCOMPLETE, output=output, output_json=output_json, reason=reason, message=message)
    return End(status=RunStatus.FAILED, reason=reason, message=message)


def shown(crew: Crew, state: CrewState) -> View:
    """What readers are shown: each item behind the one it comes from."""
    files = {task.name: task.output_file for task in crew.tasks}
    behind: dict[str, list[Item]] = {}
    for item in state.items:
        behind.setdefault(item.parent, []).append(item)
    ordered: list[Item] = []
    waiting = behind.get("", [])[::-1]
    while waiting:
        item = waiting.pop()
        ordered.append(item)
        waiting.extend(behind.get(item.name, [])[::-1])
    end = state.end or End(status=state.status)
    return View(
        status=state.status,
        tasks=tuple(tells.view(item, file=files.get(item.name, "")) for item in ordered),
        usage=state.usage,
        output=end.output,
        output_json=end.output_json,
        reason=end.reason,
        message=end.message,
    )


def _why(short: Sequence[Item]) -> tuple[str, str]:
    """Why not everything succeeded: the budget before failures, those before what is only cut."""
    spent = [item for item in short if item.reason == BUDGET]
    if spent:
        return BUDGET, spent[0].message
    failed = [item for item in short if item.status in (TaskStatus.FAILED, TaskStatus.CANCELLED)]
    if failed:
        return "TASK_FAILED", f"The task {failed[0].name} failed: {failed[0].message or failed[0].reason}"
    return short[0].reason, short[0].message


def _result(crew: Crew, tasks: Sequence[Item]) -> tuple[str, Mapping[str, Any] | None]:
    """The output of a run: of its last task that has one; in a parallel one of all on which nobody depends."""
    made = [item for item in tasks if item.done and (item.output or item.output_json is not None)]
    if crew.process is Process.PARALLEL:
        needed = {name for task in crew.tasks for name in task.depends_on}
        sinks = [item for item in tasks if item.name not in needed]
        last = [item for item in made if item.name not in needed]
        if len(sinks) > 1 and last:
            return "\n\n".join(f"## {item.name}\n\n{item.output}" for item in last), None
        made = last or made
    return (made[-1].output, made[-1].output_json) if made else ("", None)
