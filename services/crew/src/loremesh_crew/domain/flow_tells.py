"""What clients are told of a flow's run: payloads of RunEvent as proto JSON with the proto's own field names."""

from datetime import UTC, datetime
from typing import Any

from loremesh_crew.domain.definitions import Flow
from loremesh_crew.domain.flow_state import Visit
from loremesh_crew.domain.machine import TaskView


def timestamp(time: datetime) -> str:
    """The time as a Timestamp of proto JSON."""
    return time.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def run_started(flow: Flow) -> dict[str, Any]:
    """A RunStarted."""
    return {
        "kind": "RUN_KIND_FLOW",
        "definition_id": flow.id,
        "revision": flow.revision,
        "names": [state.id for state in flow.states],
    }


def task_finished(visit: Visit) -> dict[str, Any]:
    """A TaskResult: of a tool that was called, and of a wait."""
    told: dict[str, Any] = {
        "name": visit.state,
        "status": f"TASK_STATUS_{visit.status}",
        "output": visit.output,
        "output_json": visit.output_json,
        "attempts": 1,
        "reason": visit.reason,
        "message": visit.message,
        "start_time": visit.start_time and timestamp(visit.start_time),
        "finish_time": visit.finish_time and timestamp(visit.finish_time),
        "agent_run_id": visit.agent_run_id,
        "visit": visit.number,
    }
    return {name: value for name, value in told.items() if value not in (None, "")}


def view(visit: Visit) -> TaskView:
    """The visit as readers see it."""
    return TaskView(
        name=visit.state,
        agent=visit.agent,
        status=visit.status,
        output=visit.output,
        output_json=visit.output_json,
        attempts=1 if visit.start_time else 0,
        usage=visit.usage,
        reason=visit.reason,
        message=visit.message,
        start_time=visit.start_time,
        finish_time=visit.finish_time,
        agent_run_id=visit.agent_run_id,
        child_run_id=visit.child_run_id,
        model=visit.model,
        approval_id=visit.approval_id,
        visit=visit.number,
    )
