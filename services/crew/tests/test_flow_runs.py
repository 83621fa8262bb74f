"""Flows set to work on a real Postgres and NATS: crews below them, timers, signals."""

import pytest
from google.protobuf.json_format import ParseDict
from grpc import aio
from loremesh.crew.v1 import flow_pb2, flow_pb2_grpc
from loremesh.crew.v1 import run_pb2 as pb
from loremesh_kit.channel import reason_of

from .replicas import Mesh, Replica, at_once, kinds, until

pytestmark = [pytest.mark.steelthread, pytest.mark.usefixtures("who")]

FLOW = {
    "id": "release",
    "states": [
        {"id": "write", "initial": True, "crew": {"crew_id": "press", "inputs": {"topic": "{topic}"}}},
        {"id": "review", "wait": {"signal": "approved"}},
        {"id": "pause", "wait": {"duration": "0.05s"}},
        {"id": "done", "final": True},
    ],
    "transitions": [
        {"from": "write", "to": "review", "condition": {"on_success": {}}},
        {"from": "review", "to": "pause", "condition": {"output_contains": {"text": "yes"}}},
        {"from": "pause", "to": "done"},
    ],
    "variables": [{"name": "topic", "type": "VARIABLE_TYPE_STRING"}],
}


async def kickoff(here: Replica, **crew: object) -> pb.Run:
    await here.create(**crew)
    flows = flow_pb2_grpc.FlowServiceStub(here.channel)
    await flows.CreateFlow(flow_pb2.CreateFlowRequest(flow=ParseDict(FLOW, flow_pb2.Flow())))
    request = flow_pb2.KickoffFlowRequest(flow_id="release")
    request.inputs.update({"topic": "tea", "more": 1})
    return await flows.KickoffFlow(request)


async def signal(here: Replica, run_id: str, said: str, **fields: str) -> pb.Run:
    request = pb.SignalRunRequest(run_id=run_id, **{"signal": "approved", **fields})
    request.payload.string_value = said
    return await here.runs.SignalRun(request)


async def comes_to(here: Replica, run_id: str, state: str) -> None:
    async def is_there() -> bool:
        return (await here.run(run_id)).current_state == state

    await until(is_there)


async def test_a_flow_runs_a_crew_waits_for_a_signal_and_ends(mesh: Mesh):
    mesh.tasks.script = at_once
    async with mesh.replica() as here:
        run = await kickoff(here)
        await comes_to(here, run.id, "review")
        with pytest.raises(aio.AioRpcError) as refused:
            await signal(here, run.id, "yes", signal="other")
        await signal(here, run.id, "yes", signal_id="s-1")
        events = await here.watch(run.id)
        tree = await here.runs.GetRunTree(pb.GetRunTreeRequest(run_id=run.id))
        explained = await here.runs.ExplainTransition(pb.ExplainTransitionRequest(run_id=run.id, state="review"))
        listed = (await here.runs.ListRuns(pb.ListRunsRequest())).runs
        both = (await here.runs.ListRuns(pb.ListRunsRequest(children=True))).runs
        replay = await here.runs.ReplayRun(pb.ReplayRunRequest(run_id=run.id))
        drawn = await here.runs.ExportRun(pb.ExportRunRequest(run_id=run.id))

    assert kinds(events)[-1] == "completed"
    assert reason_of(refused.value) == "SIGNAL_UNKNOWN"
    (child,) = tree.children
    assert (child.run.parent_run_id, child.run.root_run_id, child.run.parent_state) == (run.id, run.id, "write")
    assert child.run.status == pb.RUN_STATUS_COMPLETED
    assert tree.run.usage.input_tokens == child.run.usage.input_tokens == 60
    assert explained.report.to == "pause"
    assert len(listed) == 1
    assert {each.id for each in both} == {run.id, child.run.id}
    assert (replay.decisions > 3, list(replay.differences)) == (True, [])
    assert "review" in drawn.data.decode()
    assert mesh.tasks.roots == dict.fromkeys(mesh.tasks.requests, run.id)


async def test_a_signal_carries_what_a_run_can_keep(mesh: Mesh):
    mesh.tasks.script = at_once
    async with mesh.replica() as here:
        run = await kickoff(here)
        await comes_to(here, run.id, "review")
        with pytest.raises(aio.AioRpcError) as refused:
            await signal(here, run.id, "y" * 300_000)
        assert (await here.run(run.id)).current_state == "review"

    assert reason_of(refused.value) == "INPUT_INVALID"


async def test_no_signal_is_lost_unheard_and_none_keeps_out_the_one_that_is_waited_for(mesh: Mesh):
    waits = [
        {"id": "begin", "initial": True, "wait": {"signal": "go"}},
        {"id": "review", "wait": {"signal": "approved"}},
    ]
    ways = [{"from": "begin", "to": "review"}, {"from": "review", "to": "done"}]
    flow = {"id": "gate", "states": [*waits, {"id": "done", "final": True}], "transitions": ways}
    async with mesh.replica() as here:
        flows = flow_pb2_grpc.FlowServiceStub(here.channel)
        await flows.CreateFlow(flow_pb2.CreateFlowRequest(flow=ParseDict(flow, flow_pb2.Flow())))
        run = await flows.KickoffFlow(flow_pb2.KickoffFlowRequest(flow_id="gate"))
        for number in range(4):
            await signal(here, run.id, "y" * 250_000, signal_id=f"s{number}")
        with pytest.raises(aio.AioRpcError) as refused:
            await signal(here, run.id, "yes", signal_id="s4")
        await signal(here, run.id, "y" * 250_000, signal_id="s3")
        await signal(here, run.id, "yes", signal="go")
        events = await here.watch(run.id)
        with pytest.raises(aio.AioRpcError) as over:
            await signal(here, run.id, "yes")

    assert reason_of(refused.value) == "SIGNALS_FULL"
    assert (kinds(events)[-1], kinds(events).count("signal_received")) == ("completed", 5)
    assert reason_of(over.value) == "RUN_FINISHED"


async def test_a_crew_below_is_not_given_what_it_does_not_take(mesh: Mesh):
    mesh.tasks.script = at_once
    async with mesh.replica() as here:
        schema = {"type": "object", "properties": {"topic": {"type": "string"}}, "additionalProperties": False}
        run = await kickoff(here, inputs_schema=schema)
        await comes_to(here, run.id, "review")
        tree = await here.runs.GetRunTree(pb.GetRunTreeRequest(run_id=run.id))

    (child,) = tree.children
    assert (child.run.status, dict(child.run.inputs)) == (pb.RUN_STATUS_COMPLETED, {"topic": "tea"})


async def test_cancelling_a_flow_cancels_the_crew_below_it(mesh: Mesh):
    async with mesh.replica() as here:
        run = await kickoff(here)
        task_id = await here.begun("research")
        await here.runs.CancelRun(pb.CancelRunRequest(run_id=run.id))
        assert kinds(await here.watch(run.id))[-1] == "cancelled"
        tree = await here.runs.GetRunTree(pb.GetRunTreeRequest(run_id=run.id))

    assert [child.run.status for child in tree.children] == [pb.RUN_STATUS_CANCELLED]
    assert task_id in mesh.tasks.cancelled


async def test_a_flow_outlives_the_replica_that_waited_for_its_signal(mesh: Mesh):
    mesh.tasks.script = at_once
    async with mesh.replica(role="server") as front:
        async with mesh.replica(role="worker"):
            run = await kickoff(front)
            await comes_to(front, run.id, "review")
        await signal(front, run.id, "yes")
        async with mesh.replica(role="worker"):
            assert kinds(await front.watch(run.id))[-1] == "completed"


async def kickoff_of_flows(here: Replica) -> pb.Run:
    """A flow whose first state is a flow with a crew, and whose last is that crew again."""
    await here.create()
    crew = {"crew_id": "press", "inputs": {"topic": "{topic}"}}
    inner = {"id": "inner", "states": [{"id": "write", "initial": True, "final": True, "crew": crew}]}
    outer = {
        "id": "outer",
        "states": [
            {"id": "draft", "initial": True, "flow": {"flow_id": "inner"}},
            {"id": "review", "wait": {"signal": "approved"}},
            {"id": "last", "crew": crew},
            {"id": "done", "final": True},
        ],
        "transitions": [{"from": "draft", "to": "review"}, {"from": "review", "to": "last"},
                        {"from": "last", "to": "done"}],
    }  # fmt: skip
    flows = flow_pb2_grpc.FlowServiceStub(here.channel)
    for flow in (inner, outer):
        variables = [{"name": "topic", "type": "VARIABLE_TYPE_STRING"}]
        made = ParseDict({**flow, "variables": variables}, flow_pb2.Flow())
        await flows.CreateFlow(flow_pb2.CreateFlowRequest(flow=made))
    request = flow_pb2.KickoffFlowRequest(flow_id="outer")
    request.inputs.update({"topic": "tea"})
    return await flows.KickoffFlow(request)


def ids(tree: pb.RunTree) -> list[str]:
    return [tree.run.id, *(each for child in tree.children for each in ids(child))]


async def test_a_fork_of_a_flow_has_the_child_runs_that_were_over_as_its_own(mesh: Mesh):
    mesh.tasks.script = at_once
    async with mesh.replica() as here:
        run = await kickoff_of_flows(here)
        await comes_to(here, run.id, "review")
        seq = (await here.run(run.id)).last_seq
        created = mesh.tasks.created
        forked = await here.runs.ForkRun(pb.ForkRunRequest(run_id=run.id, after_seq=seq))
        assert forked.current_state == "review"
        assert mesh.tasks.created == created
        tree = await here.runs.GetRunTree(pb.GetRunTreeRequest(run_id=forked.id))
        (flow,) = tree.children
        (crew,) = flow.children
        replayed = [await here.runs.ReplayRun(pb.ReplayRunRequest(run_id=each)) for each in ids(tree)]
        assert await here.watch(crew.run.id) != []
        whole = await here.runs.ExportRun(pb.ExportRunRequest(run_id=crew.run.id, format=pb.EXPORT_FORMAT_JSON))
        # One of the other's own child runs, too.
        alone = await here.runs.ForkRun(pb.ForkRunRequest(run_id=f"{run.id}.1", after_seq=flow.run.last_seq))
        below = await here.runs.GetRunTree(pb.GetRunTreeRequest(run_id=alone.id))
        assert (await here.run(run.id)).status == pb.RUN_STATUS_IN_PROGRESS

    assert ids(tree) == [forked.id, f"{forked.id}.1", f"{forked.id}.1.1"]
    assert forked.tasks[0].child_run_id == flow.run.id
    assert flow.run.tasks[0].child_run_id == crew.run.id
    assert (crew.run.parent_run_id, crew.run.root_run_id) == (flow.run.id, forked.id)
    assert (crew.run.status, crew.run.output) == (pb.RUN_STATUS_COMPLETED, "about write")
    assert crew.run.forked_from_run_id == f"{run.id}.1.1"
    assert [list(each.differences) for each in replayed] == [[]] * 3
    assert run.id not in whole.data.decode().replace(f'"{run.id}.1.1"', "")
    assert ids(below) == [alone.id, f"{alone.id}.1"]
    assert below.children[0].run.root_run_id == alone.id


async def test_what_a_fork_changes_reaches_the_runs_that_begin_below_it(mesh: Mesh):
    mesh.tasks.script = at_once
    async with mesh.replica() as here:
        run = await kickoff_of_flows(here)
        await comes_to(here, run.id, "review")
        seq = (await here.run(run.id)).last_seq
        request = pb.ForkRunRequest(run_id=run.id, after_seq=seq, model="local/other")
        request.descriptions.update({"last/write": "Sing about {topic}.", "draft/write/write": "Never said."})
        forked = await here.runs.ForkRun(request)
        compared = await here.runs.DiffRuns(pb.DiffRunsRequest(run_id=run.id, other_run_id=forked.id))
        await signal(here, forked.id, "yes")
        assert kinds(await here.watch(forked.id))[-1] == "completed"
        anew = await here.runs.ForkRun(pb.ForkRunRequest(run_id=forked.id))
        await comes_to(here, anew.id, "review")
        for place in ("last/sing", "review/write", "write", "draft/write", "sing/write", "draft/write/write/write"):
            with pytest.raises(aio.AioRpcError) as refused:
                await here.runs.ForkRun(pb.ForkRunRequest(run_id=run.id, descriptions={place: "Sing."}))
            assert reason_of(refused.value) == "INPUT_INVALID"

    differs = {each.field: (each.left, each.right) for each in compared.differences}
    assert differs["model"] == ("", "local/other")
    assert differs["descriptions.last/write"] == ("", "Sing about {topic}.")
    of_fork = [each for task_id, each in mesh.tasks.requests.items() if task_id.startswith(f"{forked.id}.")]
    assert [each.agent.model for each in of_fork] == ["local/other"] * 2
    assert "Sing about tea." in of_fork[1].message
    again = [each for task_id, each in mesh.tasks.requests.items() if task_id.startswith(f"{anew.id}.1.1.")]
    assert [each.agent.model for each in again] == ["local/other"] * 2
    assert "Never said." in again[1].message
