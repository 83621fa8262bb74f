"""Tasks of crews and flows on a real Postgres and NATS: the model is scripted, and so are its tools."""

from typing import Any

import pytest
from loremesh.agent.v1 import agent_pb2
from loremesh.agent.v1 import task_pb2 as pb
from loremesh_agent.adapters.memory import ScriptedProvider

from .replicas import Mesh, Replica, until, words

pytestmark = pytest.mark.steelthread

ENDED = (
    pb.AGENT_TASK_STATE_COMPLETED,
    pb.AGENT_TASK_STATE_INCOMPLETE,
    pb.AGENT_TASK_STATE_FAILED,
    pb.AGENT_TASK_STATE_CANCELLED,
)
FACTS = """
SELECT subject, data ->> 'task_id' AS task_id FROM outbox WHERE subject LIKE 'events.Task%' ORDER BY id
"""


def request(task_id: str = "run.1", message: str = "Write a poem.", **fields: Any) -> pb.CreateTaskRequest:
    if not {"reference", "invocation", "agent"} & set(fields):
        fields["agent"] = agent_pb2.Agent(id="poet", system_prompt="You write poems.", top_k_documents=0)
    return pb.CreateTaskRequest(task_id=task_id, message=message, **fields)


async def get(replica: Replica, task_id: str = "run.1") -> pb.AgentTask:
    return await replica.tasks.GetTask(pb.GetTaskRequest(task_id=task_id))


async def stands(replica: Replica, *states: int, task_id: str = "run.1") -> pb.AgentTask:
    async def does() -> bool:
        return (await get(replica, task_id)).state in states

    await until(does)
    return await get(replica, task_id)


async def ended(replica: Replica, task_id: str = "run.1") -> pb.AgentTask:
    return await stands(replica, *ENDED, task_id=task_id)


async def facts(replica: Replica) -> list[str]:
    rows = await replica.database.fetch(FACTS)
    return [row["subject"].removeprefix("events.Task") for row in rows]


async def test_a_task_is_done_and_told_once(mesh: Mesh) -> None:
    mesh.provider = ScriptedProvider(words("Roses are red."))
    async with mesh.replica() as replica:
        made = await replica.tasks.CreateTask(request())
        again = await replica.tasks.CreateTask(request())
        assert made.state == pb.AGENT_TASK_STATE_ACTIVE
        assert again.run_id == made.run_id
        task = await ended(replica)
        assert (task.state, task.output, task.model) == (3, "Roses are red.", "local/scripted")
