"""What clients are told fits the protos."""

import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, Phase, given, settings
from loremesh.crew.v1 import run_pb2
from loremesh_crew.domain.definitions import Guardrail, Process
from loremesh_crew.domain.machine import (
    CancelAsked,
    PauseAsked,
    ResumeAsked,
    TaskResumes,
    TaskStatus,
    TaskWaits,
    Tell,
    Usage,
)

from .crew_runs import Run, agent, crew, task
from .test_crew_histories import History, histories

pytestmark = pytest.mark.unit

KINDS = {
    "run_started",
    "task_started",
    "task_waiting",
    "task_resumed",
    "task_retried",
    "task_finished",
    "plan_made",
    "plan_refused",
    "work_delegated",
    "paused",
    "resumed",
    "cancelling",
}


def event(tell: Tell) -> run_pb2.RunEvent:
    told = {tell.kind: tell.data, "path": list(tell.path), "attempt": tell.attempt}
    return json_format.ParseDict(told, run_pb2.RunEvent())


def test_every_kind_of_event_is_one_of_the_protos():
    agents = (agent("boss"), agent("ann", allow_delegation=True, verbose=True), agent("ben"))
    run = Run.started(
        crew(
            task("one", guardrails=(Guardrail(min_length=3),)),
            agents=agents,
            manager="boss",
            process=Process.HIERARCHICAL,
        )
    )
    run.ends("manager/plan-1", "No plan.")
    piece = {"name": "a", "agent": "ann", "description": "Do it.", "depends_on": []}
    run.ends(
        "manager/plan-1", output_json={"tasks": [piece, piece | {"name": "b", "agent": "ben", "depends_on": ["a"]}]}
    )
    run.delegates("plan-1/a", "ben")
    run.send(TaskWaits, task_id=run.id_of("plan-1/a"), approval_id="approval-1")
    run.send(TaskResumes, task_id=run.id_of("plan-1/a"))
    run.ends(
        "plan-1/a/ben-1",
        "Done.",
        output_json={"a": [1.5, None, {"b": "c"}]},
        usage=Usage(input_tokens=2**40, tool_calls=1),
        sources=({"document_id": "d", "title": "T", "content": "c", "score": 0.5},),
    )
    run.fails("plan-1/a", retryable=True)
    run.send(PauseAsked)
    run.send(ResumeAsked)
    run.send(CancelAsked, comment="Enough.")
    assert {each.kind for each in run.tells} == KINDS
    for each in run.tells:
        assert event(each).WhichOneof("payload") == each.kind


def test_events_say_what_happened_where_and_in_which_attempt():
    run = Run.started(crew(task("one"), task("two")))
    started = event(run.told("run_started")[0])
    assert started.run_started.kind == run_pb2.RUN_KIND_CREW
    assert (started.run_started.definition_id, list(started.run_started.names)) == ("team", ["one", "two"])
    run.fails("one", retryable=True)
    retried = event(run.told("task_retried")[0])
    assert (list(retried.path), retried.attempt, retried.task_retried.reason) == (["one"], 1, "TOOL_FAILED")
    assert retried.task_retried.next_time.ToDatetime(run.time.tzinfo) > run.time
    run.fires()
    run.ends("one", "Good.", usage=Usage(input_tokens=5))
    finished = event(run.told("task_finished")[0])
    assert finished.attempt == 2
    assert finished.task_finished.status == run_pb2.TASK_STATUS_COMPLETED
    assert (finished.task_finished.output, finished.task_finished.usage.input_tokens) == ("Good.", 5)


def test_every_status_of_a_task_is_one_of_the_protos():
    assert {f"TASK_STATUS_{each}" for each in TaskStatus} < set(run_pb2.TaskStatus.keys())


@settings(
    max_examples=20,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(histories())
def test_whatever_is_told_in_any_history_can_be_read(history: History):
    for each in history.run.tells:
        assert event(each).WhichOneof("payload") == each.kind
        assert each.kind in KINDS
