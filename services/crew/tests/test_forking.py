"""Runs decided anew on a real Postgres: replayed, forked, compared, exported."""

import json

import pytest
from grpc import aio
from loremesh.crew.v1 import run_pb2 as pb
from loremesh_crew.adapters.memory import MemoryAgents
from loremesh_crew.domain.machine import TaskStatus
from loremesh_kit.channel import reason_of

from .replicas import Mesh, Replica, at_once, kinds, outcome

pytestmark = [pytest.mark.steelthread, pytest.mark.usefixtures("who")]


async def finished(here: Replica) -> pb.Run:
    """A run of two tasks to its end."""
    here.tasks.script = at_once
    await here.create()
    run = await here.kickoff()
    await here.watch(run.id)
    return await here.run(run.id)


async def fork(here: Replica, run_id: str, **fields: object) -> pb.Run:
    inputs = fields.pop("inputs", {})
    request = pb.ForkRunRequest(run_id=run_id, **fields)
    request.inputs.update(inputs)
    return await here.runs.ForkRun(request)


async def seq_of(here: Replica, run_id: str, kind: str) -> int:
    found = await here.runs.ListRunEvents(pb.ListRunEventsRequest(run_id=run_id, page_size=1000))
    return next(event.seq for event in found.events if event.WhichOneof("payload") == kind)


async def test_a_replay_comes_out_the_same_and_writes_nothing(mesh: Mesh):
    async with mesh.replica() as here:
        run = await finished(here)
        replay = await here.runs.ReplayRun(pb.ReplayRunRequest(run_id=run.id))
        after = await here.run(run.id)

    assert replay.decisions >= 3
    assert list(replay.differences) == []
    assert after == run


async def test_a_replay_tells_where_a_decision_comes_out_differently(mesh: Mesh):
    async with mesh.replica() as here:
        run = await finished(here)
        await here.database.fetch("UPDATE run_history SET commands = '[]' WHERE run_id = %s AND number = 2", [run.id])
        replay = await here.runs.ReplayRun(pb.ReplayRunRequest(run_id=run.id))

    (difference,) = replay.differences
    assert (difference.decision, difference.event, difference.recorded) == (2, "TaskEnded", "[]")
    assert "StartTask" in difference.replayed


async def test_a_fork_takes_what_was_done_as_done_and_does_the_rest_with_other_words(mesh: Mesh):
    async with mesh.replica() as here:
        run = await finished(here)
        seq = await seq_of(here, run.id, "task_finished")
        here.tasks.script = lambda task_id, request: outcome("another text")
        done_before = set(here.tasks.requests)
        forked = await fork(
            here, run.id, after_seq=seq, descriptions={"write": "Sing about {topic}."}, model="local/other"
        )
        events = await here.watch(forked.id)
        forked = await here.run(forked.id)
        replay = await here.runs.ReplayRun(pb.ReplayRunRequest(run_id=forked.id))

    assert (forked.forked_from_run_id, forked.forked_after_seq, forked.root_run_id) == (run.id, seq, forked.id)
    assert [(task.name, task.output) for task in forked.tasks] == [
        ("research", "about research"),
        ("write", "another text"),
    ]
    assert kinds(events)[0] == "run_started"
    assert kinds(events)[-1] == "completed"
    (begun,) = set(here.tasks.requests) - done_before
    assert begun.startswith(f"{forked.id}.")
    assert "Sing about tea." in here.tasks.requests[begun].message
    assert here.tasks.requests[begun].agent.model == "local/other"
    assert list(replay.differences) == []


async def test_a_fork_of_nothing_is_the_run_anew_with_other_inputs(mesh: Mesh):
    async with mesh.replica() as here:
        run = await finished(here)
        forked = await fork(here, run.id, inputs={"topic": "coffee"})
        await here.watch(forked.id)
        found = await here.runs.DiffRuns(pb.DiffRunsRequest(run_id=run.id, other_run_id=forked.id))

    assert [task_id for task_id in here.tasks.requests if task_id.startswith(forked.id)]
    assert ("inputs.topic", "tea", "coffee") in [(each.field, each.left, each.right) for each in found.differences]


async def test_a_fork_of_a_whole_run_is_over_at_once(mesh: Mesh):
    async with mesh.replica() as here:
        run = await finished(here)
        forked = await fork(here, run.id, after_seq=run.last_seq)
        events = await here.watch(forked.id)

    assert (forked.status, forked.output) == (pb.RUN_STATUS_COMPLETED, run.output)
    assert kinds(events)[-1] == "completed"


async def test_what_was_at_work_is_begun_again_in_a_fork(mesh: Mesh):
    async with mesh.replica() as here:
        await here.create()
        run = await here.kickoff()
        await here.begun("research")
        last = (await here.run(run.id)).last_seq
        forked = await fork(here, run.id, after_seq=last)
        await here.runs.CancelRun(pb.CancelRunRequest(run_id=run.id))
        await here.watch(run.id)
        await here.finish("research")
        await here.finish("write")

        assert kinds(await here.watch(forked.id))[-1] == "completed"
    assert here.tasks.standings[f"{run.id}.1"].outcome.status is TaskStatus.CANCELLED


async def test_a_fork_of_a_run_that_was_being_cancelled_is_cancelled_and_begins_nothing(mesh: Mesh):
    async with mesh.replica() as here:
        await here.create()
        run = await here.kickoff()
        await here.begun("research")
        await here.runs.CancelRun(pb.CancelRunRequest(run_id=run.id))
        await here.watch(run.id)
        forked = await fork(here, run.id, after_seq=await seq_of(here, run.id, "cancelling"))

        assert kinds(await here.watch(forked.id))[-1] == "cancelled"
    assert f"{forked.id}.1" not in here.tasks.standings


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"after_seq": 10_000}, "SEQ_UNKNOWN"),
        ({"descriptions": {"sing": "Sing."}}, "INPUT_INVALID"),
        ({"descriptions": {"write": "Sing about {song}."}}, "INPUT_MISSING"),
    ],
)
async def test_a_fork_that_cannot_be_is_refused(mesh: Mesh, fields: dict[str, object], reason: str):
    async with mesh.replica(role="server") as here:
        await here.create()
        run = await here.kickoff()
        with pytest.raises(aio.AioRpcError) as refused:
            await fork(here, run.id, **fields)
        listed = (await here.runs.ListRuns(pb.ListRunsRequest())).runs

    assert reason_of(refused.value) == reason
    assert [each.id for each in listed] == [run.id]


async def test_a_fork_with_a_model_there_is_not_is_refused(mesh: Mesh):
    mesh.agents = MemoryAgents(models=["local/small"])
    async with mesh.replica(role="server") as here:
        await here.create()
        run = await here.kickoff()
        with pytest.raises(aio.AioRpcError) as refused:
            await fork(here, run.id, model="local/other")
        await fork(here, run.id, model="local/small")

    assert reason_of(refused.value) == "CREW_INVALID"
    assert "There is no model 'local/other'." in refused.value.details()


async def test_two_runs_are_compared_and_one_does_not_differ_from_itself(mesh: Mesh):
    async with mesh.replica() as here:
        run = await finished(here)
        here.tasks.script = lambda task_id, request: outcome("something else")
        other = await here.kickoff(topic="cocoa")
        await here.watch(other.id)
        same = await here.runs.DiffRuns(pb.DiffRunsRequest(run_id=run.id, other_run_id=run.id))
        found = await here.runs.DiffRuns(pb.DiffRunsRequest(run_id=run.id, other_run_id=other.id))

    assert list(same.differences) == []
    fields = {each.field: (each.left, each.right) for each in found.differences}
    assert fields["inputs.topic"] == ("tea", "cocoa")
    assert fields["tasks.write.output"] == ("about write", "something else")
    assert "revision" not in fields


async def test_a_run_is_drawn_and_given_away_whole(mesh: Mesh):
    async with mesh.replica() as here:
        run = await finished(here)
        drawn = await here.runs.ExportRun(pb.ExportRunRequest(run_id=run.id))
        whole = await here.runs.ExportRun(pb.ExportRunRequest(run_id=run.id, format=pb.EXPORT_FORMAT_JSON))

    text = drawn.data.decode()
    assert text.startswith("graph TD\n")
    assert 'n2["write<br/>writer<br/>COMPLETED"]:::done' in text
    assert "n1 --> n2" in text
    kept = json.loads(whole.data)
    assert kept["run"]["output"] == run.output
    assert kept["definition"]["crew"]["id"] == "press"
    assert len(kept["events"]) == run.last_seq


async def test_only_flows_explain_their_ways(mesh: Mesh):
    async with mesh.replica() as here:
        run = await finished(here)
        with pytest.raises(aio.AioRpcError) as refused:
            await here.runs.ExplainTransition(pb.ExplainTransitionRequest(run_id=run.id))
        with pytest.raises(aio.AioRpcError) as missing:
            await here.runs.GetRunFile(pb.GetRunFileRequest(run_id=run.id, file_name="other.md"))

    assert reason_of(refused.value) == "NOT_A_FLOW"
    assert reason_of(missing.value) == "FILE_NOT_FOUND"
