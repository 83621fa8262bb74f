"""Crews set to work on a real Postgres and NATS, and watched."""

import asyncio
from collections import Counter

import grpc
import pytest
from grpc import aio
from loremesh.crew.v1 import crew_pb2
from loremesh.crew.v1 import run_pb2 as pb
from loremesh.crew.v1.crew_pb2_grpc import CrewServiceStub
from loremesh_crew.domain.machine import TaskStatus
from loremesh_crew.main import wire
from loremesh_crew.settings import CrewSettings
from loremesh_kit.channel import reason_of
from loremesh_kit.errors import DependencyUnavailable
from loremesh_kit.testing import caller, serving

from .replicas import Mesh, Replica, at_once, kinds, until

pytestmark = [pytest.mark.steelthread, pytest.mark.usefixtures("who")]


async def test_a_crew_is_kicked_off_and_watched_to_its_end(mesh: Mesh):
    async with mesh.replica() as here:
        await here.create()
        run = await here.kickoff()
        assert (run.status, run.definition_id, dict(run.inputs)) == (
            pb.RUN_STATUS_IN_PROGRESS,
            "press",
            {"topic": "tea"},
        )
        watching = asyncio.create_task(here.watch(run.id))
        research = await here.finish("research", "Tea is old.")
        await here.finish("write", "A text.")
        events = await watching
        run = await here.run(run.id)
        listed = (await here.runs.ListRuns(pb.ListRunsRequest())).runs
        file = await here.runs.GetRunFile(pb.GetRunFileRequest(run_id=run.id, file_name="text.md"))

    assert kinds(events)[0] == "run_started"
    assert kinds(events)[-1] == "completed"
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert (run.status, run.output, run.usage.input_tokens) == (pb.RUN_STATUS_COMPLETED, "A text.", 60)
    assert [(task.name, task.output) for task in run.tasks] == [("research", "Tea is old."), ("write", "A text.")]
    assert "Tea is old." in mesh.tasks.requests[research.replace(".1", ".2")].message
    assert [(each.id, each.output, list(each.tasks)) for each in listed] == [(run.id, "A text.", [])]
    assert (file.data, file.content_type) == (b"A text.", "text/markdown; charset=utf-8")
    assert [each.name for each in run.files] == ["text.md"]


async def test_another_replica_goes_on_where_one_died(mesh: Mesh):
    async with mesh.replica(role="server") as front:
        await front.create()
        async with mesh.replica(role="server") as dying:
            run = await front.kickoff()
            async with dying.working():
                await dying.finish("research")
                await dying.begun("write")
        # What is finished while nobody listens is heard of by whoever listens next.
        await front.finish("write")
        async with mesh.replica(role="worker"):
            events = await front.watch(run.id)

    assert kinds(events)[-1] == "completed"
    assert len(mesh.tasks.requests) == 2


async def test_facts_that_are_lost_cost_time_and_no_run(mesh: Mesh):
    async with mesh.replica(silence_seconds=0.3) as here:
        await here.create()
        run = await here.kickoff()
        for name in ("research", "write"):
            task_id = await here.begun(name)
            mesh.tasks.finish(task_id, at_once(task_id, mesh.tasks.requests[task_id]))
        assert kinds(await here.watch(run.id))[-1] == "completed"


async def test_facts_that_come_twice_and_those_of_others_change_nothing(mesh: Mesh):
    async with mesh.replica() as here:
        await here.create()
        run = await here.kickoff()
        task_id = await here.finish("research")
        for known in (task_id, "elsewhere.7", "nonsense"):
            await here.say("TaskFinished", known)
        await here.finish("write")
        events = await here.watch(run.id)

    assert kinds(events).count("task_finished") == 2


async def test_an_agent_service_that_is_away_is_waited_for(mesh: Mesh):
    mesh.tasks.script = at_once
    mesh.tasks.failures += [DependencyUnavailable("agent", retry_after=0.05)] * 3
    async with mesh.replica() as here:
        await here.create()
        run = await here.kickoff()
        assert kinds(await here.watch(run.id))[-1] == "completed"


async def test_a_task_that_waits_for_a_human_is_shown_to_wait(mesh: Mesh):
    async with mesh.replica() as here:
        await here.create()
        run = await here.kickoff()
        task_id = await here.begun("research")
        mesh.tasks.wait(task_id, approval_id="approval-1")
        await here.say("TaskWaiting", task_id)

        async def stands(status: pb.TaskStatus.ValueType) -> bool:
            return (await here.run(run.id)).tasks[0].status == status

        await until(lambda: stands(pb.TASK_STATUS_WAITING))
        assert (await here.run(run.id)).tasks[0].approval_id == "approval-1"
        mesh.tasks.resume(task_id)
        await here.say("TaskResumed", task_id)
        await until(lambda: stands(pb.TASK_STATUS_IN_PROGRESS))
        await here.finish("research")
        await here.finish("write")
        found = kinds(await here.watch(run.id))

    assert [kind for kind in found if kind in ("task_waiting", "task_resumed")] == ["task_waiting", "task_resumed"]


async def test_a_run_is_watched_again_from_where_it_was_cut(mesh: Mesh):
    mesh.tasks.script = at_once
    async with mesh.replica() as here:
        await here.create()
        run = await here.kickoff()
        events = await here.watch(run.id)
        last = events[-1].seq

        assert [event.seq for event in await here.watch(run.id, after_seq=2)] == list(range(3, last + 1))
        by_header = await here.watch(run.id, metadata=[("last-event-id", str(last - 1))])
        assert kinds(by_header) == ["completed"]
        assert await here.watch(run.id, after_seq=last) == []
        with pytest.raises(aio.AioRpcError) as refused:
            await here.watch(run.id, after_seq=last + 1)
        assert reason_of(refused.value) == "AFTER_SEQ_OUT_OF_RANGE"
        page = await here.runs.ListRunEvents(pb.ListRunEventsRequest(run_id=run.id, after_seq=1, page_size=2))
        assert ([event.seq for event in page.events], page.last_seq) == ([2, 3], last)


async def test_a_kickoff_twice_under_one_key_is_one_run(mesh: Mesh):
    async with mesh.replica() as here:
        await here.create()
        first, second = await here.kickoff(key="k"), await here.kickoff(key="k")
        third = await here.kickoff(key="other")

    assert first.id == second.id != third.id


async def test_a_tenant_with_too_many_runs_is_told_so(mesh: Mesh):
    async with mesh.replica(role="server", runs_at_once=1) as here:
        await here.create()
        await here.kickoff()
        with pytest.raises(aio.AioRpcError) as refused:
            await here.kickoff()
        with caller(tenant="other"):
            await here.create()
            await here.kickoff()

    assert (reason_of(refused.value), refused.value.code()) == ("RUNS_FULL", grpc.StatusCode.RESOURCE_EXHAUSTED)


async def test_kickoffs_and_forks_at_once_do_not_overstep_the_limit_together(mesh: Mesh):
    async with mesh.replica(role="server", runs_at_once=4) as one, mesh.replica(role="server", runs_at_once=4) as other:
        await one.create()
        first = await one.kickoff()

        async def begins(here: Replica, *, forks: bool) -> str:
            try:
                await (here.runs.ForkRun(pb.ForkRunRequest(run_id=first.id)) if forks else here.kickoff())
            except aio.AioRpcError as error:
                return reason_of(error)
            return "begun"

        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(begins(here, forks=bool(n % 3))) for n in range(8) for here in (one, other)]
        listed = (await one.runs.ListRuns(pb.ListRunsRequest())).runs

    said = Counter(each.result() for each in asked)
    assert said == {"begun": 3, "RUNS_FULL": 13}
    assert len(listed) == 4


async def test_inputs_that_are_missing_start_nothing(mesh: Mesh):
    async with mesh.replica(role="server") as here:
        await here.create()
        with pytest.raises(aio.AioRpcError) as refused:
            await here.kickoff(other="tea")
        assert not (await here.runs.ListRuns(pb.ListRunsRequest())).runs

    assert reason_of(refused.value) == "INPUT_MISSING"


async def test_agents_of_the_mesh_are_pinned_as_they_are_and_have_to_be_there(mesh: Mesh):
    agents = [{"name": "researcher", "agent_id": "known"}, {"name": "writer", "agent_id": "known"}]
    async with mesh.replica() as here:
        await here.create(agents=agents)
        run = await here.kickoff()
        task_id = await here.begun("research")
        assert mesh.tasks.requests[task_id].reference.revision == 3
        mesh.agents.known.clear()
        with pytest.raises(aio.AioRpcError) as refused:
            await here.kickoff()
        assert (await here.run(run.id)).status == pb.RUN_STATUS_IN_PROGRESS

    assert reason_of(refused.value) == "AGENT_UNKNOWN"


async def test_a_cancelled_run_stops_its_tasks_and_stays_cancelled(mesh: Mesh):
    async with mesh.replica() as here:
        await here.create()
        run = await here.kickoff()
        task_id = await here.begun("research")
        await here.runs.CancelRun(pb.CancelRunRequest(run_id=run.id, comment="enough"))
        events = await here.watch(run.id)
        again = await here.runs.CancelRun(pb.CancelRunRequest(run_id=run.id))
        with pytest.raises(aio.AioRpcError) as refused:
            await here.runs.PauseRun(pb.PauseRunRequest(run_id=run.id))

    assert kinds(events)[-1] == "cancelled"
    assert mesh.tasks.standings[task_id].outcome.status is TaskStatus.CANCELLED
    assert again.status == pb.RUN_STATUS_CANCELLED
    assert again.last_seq == events[-1].seq
    assert reason_of(refused.value) == "RUN_FINISHED"


async def test_a_paused_run_waits_to_be_resumed(mesh: Mesh):
    async with mesh.replica() as here:
        await here.create()
        run = await here.kickoff()
        await here.begun("research")
        assert (await here.runs.PauseRun(pb.PauseRunRequest(run_id=run.id))).status == pb.RUN_STATUS_INTERRUPTED
        await here.finish("research")

        async def finished() -> bool:
            return (await here.run(run.id)).tasks[0].status == pb.TASK_STATUS_COMPLETED

        await until(finished)
        assert len(mesh.tasks.requests) == 1
        await here.runs.ResumeRun(pb.ResumeRunRequest(run_id=run.id))
        await here.finish("write")

        assert kinds(await here.watch(run.id))[-1] == "completed"


async def test_no_other_tenant_sees_or_steers_a_run(mesh: Mesh):
    async with mesh.replica(role="server") as here:
        await here.create()
        run_id = (await here.kickoff()).id
        requests = [
            (here.runs.GetRun, pb.GetRunRequest(run_id=run_id)),
            (here.runs.ListRunEvents, pb.ListRunEventsRequest(run_id=run_id)),
            (here.runs.GetRunTree, pb.GetRunTreeRequest(run_id=run_id)),
            (here.runs.GetRunFile, pb.GetRunFileRequest(run_id=run_id, file_name="text.md")),
            (here.runs.CancelRun, pb.CancelRunRequest(run_id=run_id)),
            (here.runs.PauseRun, pb.PauseRunRequest(run_id=run_id)),
            (here.runs.ResumeRun, pb.ResumeRunRequest(run_id=run_id)),
            (here.runs.SignalRun, pb.SignalRunRequest(run_id=run_id, signal="s")),
            (here.runs.ReplayRun, pb.ReplayRunRequest(run_id=run_id)),
            (here.runs.ForkRun, pb.ForkRunRequest(run_id=run_id)),
            (here.runs.DiffRuns, pb.DiffRunsRequest(run_id=run_id, other_run_id=run_id)),
            (here.runs.ExportRun, pb.ExportRunRequest(run_id=run_id)),
            (here.runs.ExplainTransition, pb.ExplainTransitionRequest(run_id=run_id)),
        ]
        with caller(tenant="other"):
            for call, request in requests:
                with pytest.raises(aio.AioRpcError) as refused:
                    await call(request)
                assert reason_of(refused.value) == "RUN_NOT_FOUND", request
            with pytest.raises(aio.AioRpcError) as refused:
                await here.watch(run_id)
            assert reason_of(refused.value) == "RUN_NOT_FOUND"
            assert not (await here.runs.ListRuns(pb.ListRunsRequest())).runs
        assert (await here.run(run_id)).status == pb.RUN_STATUS_IN_PROGRESS


async def test_runs_are_listed_page_by_page_newest_first(mesh: Mesh):
    async with mesh.replica(role="server") as here:
        await here.create()
        ids = [(await here.kickoff()).id for _ in range(5)]
        await here.runs.CancelRun(pb.CancelRunRequest(run_id=ids[0]))
        first = await here.runs.ListRuns(pb.ListRunsRequest(page_size=3))
        second = await here.runs.ListRuns(pb.ListRunsRequest(page_size=3, page_token=first.next_page_token))
        assert [run.id for run in (*first.runs, *second.runs)] == ids[::-1]
        assert second.next_page_token == ""
        cancelling = await here.runs.ListRuns(pb.ListRunsRequest(status=pb.RUN_STATUS_CANCELLING))
        assert [run.id for run in cancelling.runs] == ids[:1]
        assert not (await here.runs.ListRuns(pb.ListRunsRequest(definition_id="other"))).runs
        with pytest.raises(aio.AioRpcError) as refused:
            await here.runs.ListRuns(pb.ListRunsRequest(page_size=3, page_token="x"))
        assert reason_of(refused.value) == "PAGE_TOKEN_INVALID"


async def test_the_service_comes_with_crews_and_serves_them_while_the_agent_service_is_away(mesh: Mesh):
    settings = CrewSettings(
        database_url=mesh.urls.plain, nats_url=mesh.nats_url, agent_target="127.0.0.1:1", drain_seconds=0
    )
    async with wire(settings) as wired, serving(wired, service="crew", settings=settings, role="server") as channel:
        found = await CrewServiceStub(channel).ListCrews(crew_pb2.ListCrewsRequest())

    assert all(crew.built_in for crew in found.crews)
    assert len(found.crews) > 1
