"""What clients are told of a crew's run: payloads of RunEvent as proto JSON with the proto's own field names."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from loremesh_crew.domain.crew_state import Item, Origin
from loremesh_crew.domain.definitions import Crew
from loremesh_crew.domain.machine import TaskView, Usage
from loremesh_crew.domain.planning import Piece


def timestamp(time: datetime) -> str:
    """The time as a Timestamp of proto JSON."""
    return time.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def usage(used: Usage) -> dict[str, int]:
    """What something took."""
    return {name: value for name, value in asdict(used).items() if value}


def run_started(crew: Crew) -> dict[str, Any]:
    """A RunStarted."""
    return {
        "kind": "RUN_KIND_CREW",
        "definition_id": crew.id,
        "revision": crew.revision,
        "names": [task.name for task in crew.tasks],
    }


def task_started(item: Item, *, prompt: str) -> dict[str, Any]:
    """A TaskStarted."""
    return {"agent": item.agent, "prompt": prompt} if prompt else {"agent": item.agent}


def task_retried(reason: str, message: str, next_time: datetime) -> dict[str, Any]:
    """A TaskRetried."""
    return {"reason": reason, "message": message, "next_time": timestamp(next_time)}


def task_finished(view: TaskView) -> dict[str, Any]:
    """A TaskResult."""
    told: dict[str, Any] = {
        "name": view.name,
        "agent": view.agent,
        "status": f"TASK_STATUS_{view.status}",
        "output": view.output,
        "output_json": view.output_json,
        "attempts": view.attempts,
        "usage": usage(view.usage),
        "reason": view.reason,
        "message": view.message,
        "start_time": view.start_time and timestamp(view.start_time),
        "finish_time": view.finish_time and timestamp(view.finish_time),
        "agent_run_id": view.agent_run_id,
        "model": view.model,
        "sources": list(view.sources),
        "delegated_by": view.delegated_by,
        "description": view.description,
    }
    return {name: value for name, value in told.items() if value not in (None, "", 0, [], {})}


def plan_made(round_: int, pieces: Sequence[Piece], named: Mapping[str, str]) -> dict[str, Any]:
    """A PlanMade; `named`: what pieces are called in the run."""
    return {
        "round": round_,
        "tasks": [
            {
                "name": named[piece.name],
                "agent": piece.agent,
                "description": piece.description,
                "depends_on": [named[each] for each in piece.depends_on],
            }
            for piece in pieces
        ],
    }


def view(item: Item, *, file: str = "") -> TaskView:
    """The item as readers see it."""
    made_up = item.origin in (Origin.PLANNED, Origin.DELEGATED)
    return TaskView(
        name=item.name,
        agent=item.agent,
        status=item.status,
        output=item.output,
        output_json=item.output_json,
        attempts=item.attempts,
        usage=item.usage,
        reason=item.reason,
        message=item.message,
        start_time=item.start_time,
        finish_time=item.finish_time,
        agent_run_id=item.agent_run_id,
        model=item.model,
        sources=item.sources,
        approval_id=item.approval_id,
        delegated_by=item.delegated_by,
        description=item.description if made_up else "",
        file=file,
        depends_on=item.depends_on,
    )
