"""The crews and flows built in, run by the service on a real Postgres and NATS, with a scripted model behind it."""

import asyncio
from collections import Counter

import pytest
from loremesh.crew.v1 import crew_pb2, flow_pb2, flow_pb2_grpc
from loremesh.crew.v1 import run_pb2 as pb
from loremesh_crew.adapters import prebuilt
from loremesh_crew.domain.machine import TaskOutcome, TaskRequest

from .prebuilt_scripts import SCRIPTS, Script
from .replicas import Mesh, Replica, kinds, outcome

pytestmark = [pytest.mark.steelthread, pytest.mark.usefixtures("who")]

SECONDS = 30


class Model:
    """Answers each agent in turn; what a human is to accept it leaves at work."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.counts: Counter[str] = Counter()

    def __call__(self, task_id: str, request: TaskRequest) -> TaskOutcome | None:
        del task_id
        return None if request.review else outcome(self.answer(request))

    def answer(self, request: TaskRequest) -> str:
        role = self._script.role(request.agent.system_prompt if request.agent else "")
        self.counts[role] += 1
        return self._script.answers[role][self.counts[role] - 1]


async def kickoff(here: Replica, script: Script) -> pb.Run:
    if script.kind == "crew":
        crew = await here.crews.GetCrew(crew_pb2.GetCrewRequest(crew_id=script.definition_id))
        request = crew_pb2.KickoffCrewRequest(crew_id=crew.id, inputs=crew.example_inputs)
        asked = here.crews.KickoffCrew
    else:
        flows = flow_pb2_grpc.FlowServiceStub(here.channel)
        flow = await flows.GetFlow(flow_pb2.GetFlowRequest(flow_id=script.definition_id))
        request = flow_pb2.KickoffFlowRequest(flow_id=flow.id, inputs=flow.example_inputs)
        asked = flows.KickoffFlow
    if script.inputs is not None:
        request.inputs.Clear()
        request.inputs.update(script.inputs)
    return await asked(request)


async def decide(here: Replica, mesh: Mesh, model: Model, script: Script) -> None:
    """Be the human who is asked, as often as the script says."""
    for said in script.humans:
        async with asyncio.timeout(SECONDS):
            while not (at_work := [key for key, each in mesh.tasks.standings.items() if not each.outcome]):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        (task_id,) = at_work
        mesh.tasks.wait(task_id, approval_id="approval-1")
        await here.say("TaskWaiting", task_id)
        mesh.tasks.finish(task_id, outcome(said or model.answer(mesh.tasks.requests[task_id])))
        await here.say("TaskFinished", task_id)


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.name for script in SCRIPTS])
async def test_each_does_what_it_says_through_the_service(mesh: Mesh, script: Script):
    mesh.crews, mesh.flows = prebuilt.load()
    mesh.tasks.script = model = Model(script)
    async with mesh.replica() as here:
        run = await kickoff(here, script)
        deciding = asyncio.create_task(decide(here, mesh, model, script))
        events = await here.watch(run.id)
        await deciding
        run = await here.run(run.id)
        replayed = await here.runs.ReplayRun(pb.ReplayRunRequest(run_id=run.id))

    assert kinds(events)[-1] == script.status.lower()
    assert (run.output, run.reason) == (script.output, "")
    assert tuple(task.name for task in run.tasks) == script.path
    assert (replayed.decisions > 1, list(replayed.differences)) == (True, [])
