"""Tasks as crews order them, and what is asked of humans about them."""

from typing import Any

from loremesh.agent.v1 import agent_pb2, approval_pb2
from loremesh.agent.v1 import task_pb2 as pb

from .replicas import Replica, until

WAITING, COMPLETED = pb.AGENT_TASK_STATE_WAITING, pb.AGENT_TASK_STATE_COMPLETED
FAILED, CANCELLED = pb.AGENT_TASK_STATE_FAILED, pb.AGENT_TASK_STATE_CANCELLED


async def order(replica: Replica, task_id: str = "r.1", message: str = "Write a poem.", **fields: Any) -> pb.AgentTask:
    agent = {"id": "poet", "top_k_documents": 0, **fields.pop("of_agent", {})}
    given = {"root_run_id": "r", "name": "poem", **fields}
    if not {"invocation", "reference"} & set(given):
        given["agent"] = agent_pb2.Agent(**agent)
    return await replica.tasks.CreateTask(pb.CreateTaskRequest(task_id=task_id, message=message, **given))


async def task(replica: Replica, task_id: str = "r.1") -> pb.AgentTask:
    return await replica.tasks.GetTask(pb.GetTaskRequest(task_id=task_id))


async def stands(replica: Replica, state: int, task_id: str = "r.1") -> pb.AgentTask:
    async def does() -> bool:
        return (await task(replica, task_id)).state == state

    await until(does)
    return await task(replica, task_id)


async def approvals(replica: Replica, **fields: Any) -> list[approval_pb2.Approval]:
    return list((await replica.approvals.ListApprovals(approval_pb2.ListApprovalsRequest(**fields))).approvals)


async def asked(replica: Replica, *, before: str = "", run_id: str = "r") -> approval_pb2.Approval:
    """The one approval that is pending; not the one of `before`."""

    async def is_there() -> bool:
        return [each.id for each in await approvals(replica, run_id=run_id) if each.id != before] != []

    await until(is_there)
    (approval,) = await approvals(replica, run_id=run_id)
    return approval


async def decide(replica: Replica, approval: approval_pb2.Approval, decision: str, **fields: Any) -> None:
    await replica.approvals.DecideApproval(
        approval_pb2.DecideApprovalRequest(
            approval_id=approval.id, decision=approval_pb2.Decision.Value(f"DECISION_{decision}"), **fields
        )
    )


async def deliver(
    replica: Replica, delegation_id: str, output: str = "", reason: str = "", task_id: str = "r.1"
) -> None:
    request = pb.AnswerDelegationRequest(task_id=task_id, delegation_id=delegation_id, output=output, reason=reason)
    await replica.tasks.AnswerDelegation(request)


async def facts(replica: Replica, name: str) -> list[str]:
    """The ids of tasks of which this fact was told."""
    facts_of = "SELECT data ->> 'task_id' AS task_id FROM outbox WHERE subject = %s ORDER BY id"
    return [row["task_id"] for row in await replica.database.fetch(facts_of, [f"events.{name}"])]
