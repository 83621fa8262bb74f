"""Runs, as protobuf messages."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from google.protobuf import json_format
from loremesh.agent.v1 import chat_pb2
from loremesh.crew.v1 import run_pb2 as pb
from loremesh_kit import eventlog

from loremesh_crew.adapters.structs import enum_name, struct, timestamp
from loremesh_crew.crew_protos import run_limits
from loremesh_crew.domain.machine import RunStatus, TaskView, Usage, View
from loremesh_crew.ports import ListedRun, RunRecord

# Of runs that are shown whole in a tree.
_TREE_BYTES = 8 * 1024 * 1024
# Nothing that a browser runs: a model wrote it.
_MEDIA_TYPES = {
    "csv": "text/csv",
    "json": "application/json",
    "md": "text/markdown",
    "yaml": "application/yaml",
    "yml": "application/yaml",
}


def run(kept: RunRecord, view: View) -> pb.Run:
    """A run with its tasks."""
    proto = _run(kept, output=view.output, reason=view.reason, message=view.message, usage=view.usage)
    proto.tasks.extend(map(task, view.tasks))
    proto.files.extend(_files(view.tasks))
    proto.current_state = view.current_state
    if view.output_json is not None:
        proto.output_json.update(view.output_json)
    if view.variables:
        proto.variables.update(view.variables)
    return proto


def listed(kept: ListedRun) -> pb.Run:
    """A run without them."""
    return _run(kept, output=kept.output, reason=kept.reason, message=kept.message, usage=kept.usage)


def _run(kept: RunRecord | ListedRun, *, output: str, reason: str, message: str, usage: Usage) -> pb.Run:
    pinned = kept.pinned
    return pb.Run(
        id=pinned.run_id,
        kind=pb.RunKind.Value(f"RUN_KIND_{pinned.kind}"),
        definition_id=kept.definition_id,
        revision=kept.revision,
        name=kept.name,
        status=status_of(kept.status),
        inputs=struct(pinned.inputs),
        output=output,
        reason=reason,
        message=message,
        usage=usage_of(usage),
        limits=run_limits(pinned.limits),
        parent_run_id=kept.parent_run_id,
        root_run_id=pinned.root_run_id,
        parent_state=kept.parent_state,
        forked_from_run_id=kept.forked_from,
        forked_after_seq=kept.forked_after_seq,
        last_seq=kept.last_seq,
        engine_version=kept.engine_version,
        create_time=timestamp(kept.create_time),
        finish_time=timestamp(kept.finish_time),
        expire_time=timestamp(kept.expire_time),
    )


def task(view: TaskView) -> pb.TaskResult:
    """A task, or a visit to a state."""
    proto = pb.TaskResult(
        name=view.name,
        agent=view.agent,
        status=pb.TaskStatus.Value(f"TASK_STATUS_{view.status}"),
        output=view.output,
        output_json=struct(view.output_json),
        attempts=view.attempts,
        usage=usage_of(view.usage),
        reason=view.reason,
        message=view.message,
        start_time=timestamp(view.start_time),
        finish_time=timestamp(view.finish_time),
        agent_run_id=view.agent_run_id,
        child_run_id=view.child_run_id,
        model=view.model,
        approval_id=view.approval_id,
        delegated_by=view.delegated_by,
        visit=view.visit,
        description=view.description,
    )
    for source in view.sources:
        json_format.ParseDict(dict(source), proto.sources.add(), ignore_unknown_fields=True)
    return proto


def usage_of(usage: Usage) -> chat_pb2.Usage:
    """What something took."""
    names = (each.name for each in chat_pb2.Usage.DESCRIPTOR.fields)
    return chat_pb2.Usage(**{name: getattr(usage, name) for name in names})


def status_of(status: RunStatus) -> pb.RunStatus.ValueType:
    """Where a run stands."""
    return pb.RunStatus.Value(f"RUN_STATUS_{status}")


def read_status(status: pb.RunStatus.ValueType) -> RunStatus | None:
    """The same, read; None where it is unspecified."""
    name = enum_name(pb.RunStatus, status)
    return RunStatus(name) if name else None


def event(run_id: str, kept: eventlog.Event) -> pb.RunEvent:
    """An event of a run's log; heartbeats have seq 0."""
    proto = pb.RunEvent(run_id=run_id, seq=kept.seq, path=kept.path, attempt=kept.attempt)
    proto.time.FromDatetime(kept.time)
    # What a newer replica wrote of it beside what is known here is left out.
    json_format.ParseDict({kept.kind: kept.payload}, proto, ignore_unknown_fields=True)
    return proto


def report(plain: Mapping[str, Any]) -> pb.TransitionReport:
    """How the transitions out of a state were looked at."""
    return json_format.ParseDict(dict(plain), pb.TransitionReport(), ignore_unknown_fields=True)


def tree(shown: Sequence[tuple[RunRecord, View]]) -> pb.RunTree:
    """The first run, with those below it; past what one answer holds, without what they were given and made."""
    nodes: dict[str, pb.RunTree] = {}
    size = 0
    for kept, view in shown:
        proto = run(kept, view)
        size += proto.ByteSize()
        nodes[kept.id] = pb.RunTree(run=_bare(proto) if nodes and size > _TREE_BYTES else proto)
    # The youngest first: each is whole before it is copied into its parent.
    for kept, _ in reversed(shown[1:]):
        nodes[kept.parent_run_id].children.insert(0, nodes.pop(kept.id))
    return nodes[shown[0][0].id]


def _bare(proto: pb.Run) -> pb.Run:
    for field in ("inputs", "output", "output_json", "variables"):
        proto.ClearField(field)
    for each in proto.tasks:
        each.ClearField("output")
        each.ClearField("output_json")
        each.ClearField("sources")
        each.ClearField("description")
    return proto


def media_type(name: str) -> str:
    """By the file's name; text where it says nothing."""
    return _MEDIA_TYPES.get(name.rpartition(".")[2].lower(), "text/plain")


def _files(tasks: Iterable[TaskView]) -> list[pb.RunFile]:
    # Of two tasks with the same file the later one's is offered.
    offered = {each.file: each for each in tasks if each.file and each.output}
    return [
        pb.RunFile(name=name, task=each.name, media_type=media_type(name), size_bytes=len(each.output.encode()))
        for name, each in offered.items()
    ]
