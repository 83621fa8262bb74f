"""Bad input, each through the API and with a reason of its own; definitions are refused whole, runs end."""

from collections.abc import Awaitable
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from grpc import aio
from loremesh.crew.v1 import crew_pb2, flow_pb2, flow_pb2_grpc
from loremesh.crew.v1 import run_pb2 as pb
from loremesh_crew.domain.machine import TaskOutcome, TaskRequest
from loremesh_kit.channel import reason_of

from .replicas import CREW, Mesh, Replica, outcome

pytestmark = [pytest.mark.steelthread, pytest.mark.usefixtures("who")]

WORK = {"id": "work", "initial": True, "agent": {"agent": {"name": "ann"}, "task": {"name": "t", "description": "Do."}}}
DONE = {"id": "done", "final": True}
TO_DONE = {"from": "work", "to": "done"}


def task(name: str, *depends_on: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "description": "Do it.", "depends_on": list(depends_on), **fields}


def flow(*states: dict[str, Any], ways: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": "f", "states": list(states), "transitions": ways}


def when(condition: dict[str, Any]) -> dict[str, Any]:
    return {**TO_DONE, "condition": condition}


async def refusal(call: Awaitable[Any]) -> tuple[str | None, set[tuple[str, str]]]:
    """Its reason, and its faults by field."""
    with pytest.raises(aio.AioRpcError) as refused:
        await call
    status = Status.FromString(dict(refused.value.trailing_metadata() or ())["grpc-status-details-bin"])
    bad = BadRequest()
    found = [each for detail in status.details if detail.Unpack(bad) for each in bad.field_violations]
    return reason_of(refused.value), {(each.field, each.reason) for each in found}


async def make(here: Replica, **fields: Any) -> crew_pb2.Crew:
    request = crew_pb2.CreateCrewRequest(crew=ParseDict({**CREW, **fields}, crew_pb2.Crew()))
    return await here.crews.CreateCrew(request)


async def flows(here: Replica, of: dict[str, Any]) -> flow_pb2_grpc.FlowServiceStub:
    stub = flow_pb2_grpc.FlowServiceStub(here.channel)
    await stub.CreateFlow(flow_pb2.CreateFlowRequest(flow=ParseDict(of, flow_pb2.Flow())))
    return stub


async def end(here: Replica, run_id: str) -> pb.Run:
    await here.watch(run_id)
    return await here.run(run_id)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        (
            {"process": "PROCESS_PARALLEL", "tasks": [task("a", "b"), task("b", "a")]},
            ("tasks[0].depends_on", "TASK_CYCLE"),
        ),
        ({"tasks": [task("a", "b"), task("b")]}, ("tasks[0].depends_on[0]", "TASK_CYCLE")),
        ({"tasks": [task("a", "a")]}, ("tasks[0].depends_on[0]", "TASK_CYCLE")),
        ({"agents": [{"name": "ann"}, {"name": "ann"}], "tasks": [task("a")]}, ("agents[1].name", "AGENT_REPEATED")),
        (
            {"tasks": [task("a")], "inputs_schema": {"type": "object", "properties": {"x": {}}}},
            ("agents[0].goal", "INPUT_UNKNOWN"),
        ),
    ],
)
async def test_a_crew_that_cannot_be_is_refused_with_each_fault(mesh: Mesh, fields: dict[str, Any], fault: Any):
    async with mesh.replica(role="server") as here:
        assert await refusal(make(here, **fields)) == ("CREW_INVALID", {fault})


async def test_a_thousand_tasks_are_too_many_however_they_come(mesh: Mesh):
    names = [f"t{number}" for number in range(1000)]
    yaml = "".join(f"{name}:\n  description: Do it.\n" for name in names)
    imported = crew_pb2.ImportCrewRequest(crew_id="i", agents_yaml="ann:\n  role: x\n", tasks_yaml=yaml)
    async with mesh.replica(role="server") as here:
        reason, faults = await refusal(make(here, tasks=[task(name) for name in names]))
        assert (reason, {field for field, _ in faults}) == ("INVALID_FIELD", {"crew.tasks"})
        assert (await refusal(here.crews.ImportCrew(imported)))[0] == "CREW_INVALID"


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        (flow(WORK, DONE, ways=[TO_DONE, {"from": "work", "to": "nowhere"}]), ("transitions[1].to", "STATE_UNKNOWN")),
        (flow(WORK, ways=[{"from": "work", "to": "work"}]), ("states", "FINAL_STATE_MISSING")),
        (
            flow(
                WORK,
                DONE,
                ways=[when({"and": {"conditions": [{"on_success": {}}, {"on_failure": {}}]}}), TO_DONE],
            ),
            ("transitions[0]", "TRANSITION_NEVER_HOLDS"),
        ),
    ],
)
async def test_a_flow_that_leads_nowhere_is_refused_with_each_fault(mesh: Mesh, broken: dict[str, Any], fault: Any):
    async with mesh.replica(role="server") as here:
        reason, faults = await refusal(flows(here, broken))
    assert (reason, fault in faults) == ("FLOW_INVALID", True), faults


async def test_a_condition_that_does_not_hold_when_it_is_looked_at_ends_the_run_with_what_it_saw(mesh: Mesh):
    mesh.tasks.script = lambda task_id, request: outcome("no")
    async with mesh.replica() as here:
        stub = await flows(here, flow(WORK, DONE, ways=[when({"output_contains": {"text": "yes"}})]))
        run = await end(here, (await stub.KickoffFlow(flow_pb2.KickoffFlowRequest(flow_id="f"))).id)
    assert (run.status, run.reason) == (pb.RUN_STATUS_FAILED, "NO_TRANSITION")
    assert "'yes'" in run.message or '"yes"' in run.message


async def test_a_placeholder_without_an_input_starts_nothing(mesh: Mesh):
    async with mesh.replica(role="server") as here:
        await make(here)
        assert await refusal(here.kickoff(other="tea")) == ("INPUT_MISSING", {("inputs", "INPUT_MISSING")})


async def test_a_manager_who_invents_agents_is_told_so_and_in_the_end_given_up(mesh: Mesh):
    plan = {"tasks": [{"name": "facts", "agent": "zoe", "description": "Find facts."}]}
    mesh.tasks.script = lambda task_id, request: outcome("", output_json=plan)
    async with mesh.replica() as here:
        await make(here, process="PROCESS_HIERARCHICAL", tasks=[task("report")])
        run_id = (await here.kickoff()).id
        events = await here.watch(run_id)
        run = await here.run(run_id)
    refused = [each.plan_refused for each in events if each.HasField("plan_refused")]
    assert [each.reason for each in refused] == ["PLAN_AGENT_UNKNOWN"] * 3
    assert "'zoe'" in refused[0].message
    assert (run.status, run.reason) == (pb.RUN_STATUS_FAILED, "PLANS_EXHAUSTED")


async def test_a_guardrail_that_never_passes_fails_its_task_after_its_rounds(mesh: Mesh):
    asked: list[TaskRequest] = []

    def answers(task_id: str, request: TaskRequest) -> TaskOutcome:
        asked.append(request)
        return outcome("no")

    mesh.tasks.script = answers
    async with mesh.replica() as here:
        guardrail = {"matches": "yes", "message": "It must say yes."}
        await make(here, tasks=[task("a", guardrails=[guardrail], max_guardrail_rounds=2)])
        run = await end(here, (await here.kickoff()).id)
    assert (run.status, run.reason, run.tasks[0].reason) == (
        pb.RUN_STATUS_FAILED, "TASK_FAILED", "GUARDRAIL_FAILED",
    )  # fmt: skip
    assert len(asked) == 3
    assert "It must say yes." in asked[1].message


@pytest.mark.parametrize(
    "yaml", ["ann: &a\n  role: x\nben: *a\n", "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n"]
)
async def test_anchors_and_bombs_of_yaml_are_not_even_unfolded(mesh: Mesh, yaml: str):
    request = crew_pb2.ImportCrewRequest(crew_id="i", agents_yaml=yaml, tasks_yaml="a:\n  description: x\n")
    async with mesh.replica(role="server") as here:
        with pytest.raises(aio.AioRpcError) as refused:
            await here.crews.ImportCrew(request)
    assert reason_of(refused.value) == "YAML_INVALID"
    assert "anchors" in (refused.value.details() or "")


async def test_a_signal_nobody_waits_for_is_refused_by_crews_and_flows(mesh: Mesh):
    async with mesh.replica(role="server") as here:
        await make(here)
        stub = await flows(here, flow(WORK, DONE, ways=[TO_DONE]))
        for run in (await here.kickoff(), await stub.KickoffFlow(flow_pb2.KickoffFlowRequest(flow_id="f"))):
            call = here.runs.SignalRun(pb.SignalRunRequest(run_id=run.id, signal="go"))
            assert (await refusal(call))[0] == "SIGNAL_UNKNOWN"
