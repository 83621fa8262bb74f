"""Tasks, as TaskService of the agent service does them."""

from collections.abc import Awaitable, Collection
from datetime import timedelta
from typing import Any, TypeVar

import structlog
from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from loremesh.agent.v1 import memory_pb2, task_pb2
from loremesh.agent.v1.memory_pb2_grpc import MemoryServiceStub
from loremesh.agent.v1.task_pb2_grpc import TaskServiceStub
from loremesh_kit import deadline, identity
from loremesh_kit.channel import reason_of
from loremesh_kit.errors import DeadlineExceeded, DependencyUnavailable, Internal, ServiceError

from loremesh_crew.adapters import task_protos
from loremesh_crew.domain.machine import TaskRequest
from loremesh_crew.errors import TaskRefused
from loremesh_crew.ports import TaskStanding

_NAME = "agent"
# A job or a consumer waits, nobody else.
_SECONDS = 10.0
# Full queues empty more slowly than services come back.
_FULL_SECONDS = 5.0
# What would come out the same at every attempt.
_REFUSALS = frozenset(
    {
        StatusCode.INVALID_ARGUMENT,
        StatusCode.NOT_FOUND,
        StatusCode.ALREADY_EXISTS,
        StatusCode.FAILED_PRECONDITION,
        StatusCode.OUT_OF_RANGE,
        StatusCode.PERMISSION_DENIED,
    }
)
_NOTHING = frozenset({StatusCode.NOT_FOUND})
# A principal who is nobody in particular; memories of theirs are of no user.
_ANONYMOUS = "anonymous"

_log = structlog.get_logger(__name__)
_Response = TypeVar("_Response")


class AgentServiceTasks:
    """Asks TaskService, and MemoryService to forget."""

    def __init__(self, *, channel: aio.Channel) -> None:
        self._channel = channel
        self._tasks = TaskServiceStub(channel)
        self._memories = MemoryServiceStub(channel)

    async def create(self, task_id: str, request: TaskRequest, *, root_run_id: str, wait: float = 0.0) -> TaskStanding:
        """See ports.AgentTasks."""
        asked = task_protos.create(task_id, request, root_run_id=root_run_id)
        asked.wait.FromTimedelta(timedelta(seconds=wait))
        try:
            task = await self._tasks.CreateTask(asked, timeout=_SECONDS)
        except aio.AioRpcError as error:
            if error.code() in _REFUSALS:
                reason = reason_of(error) or error.code().name
                raise TaskRefused(reason, error.details() or reason) from error
            raise _failure(error) from error
        return task_protos.standing(task)

    async def get(self, task_id: str) -> TaskStanding | None:
        """See ports.AgentTasks."""
        task = await _if_any(self._tasks.GetTask(task_pb2.GetTaskRequest(task_id=task_id), timeout=_SECONDS))
        return task_protos.standing(task) if task else None

    async def cancel(self, task_id: str) -> None:
        """See ports.AgentTasks."""
        await _if_any(self._tasks.CancelTask(task_pb2.CancelTaskRequest(task_id=task_id), timeout=_SECONDS))

    async def answer(self, task_id: str, delegation_id: str, *, output: str, reason: str) -> None:
        """See ports.AgentTasks."""
        request = task_pb2.AnswerDelegationRequest(
            task_id=task_id, delegation_id=delegation_id, output=output, reason=reason
        )
        await _if_any(self._tasks.AnswerDelegation(request, timeout=_SECONDS))

    async def forget(self, run_id: str, *, agent_ids: Collection[str]) -> None:
        """See ports.AgentTasks."""
        principal = identity.current().principal
        user_id = "" if principal == _ANONYMOUS else principal
        for agent_id in agent_ids:
            scope = memory_pb2.MemoryScope(user_id=user_id, agent_id=agent_id, conversation_id=run_id)
            request = memory_pb2.ForgetMemoriesRequest(scope=scope)
            await _if_any(self._memories.ForgetMemories(request, timeout=_SECONDS))

    async def ping(self) -> None:
        """Raise unless the service says that it serves."""
        stub: Any = health_pb2_grpc.HealthStub(self._channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest())
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise DependencyUnavailable(_NAME)


async def _if_any(call: Awaitable[_Response]) -> _Response | None:
    try:
        return await call
    except aio.AioRpcError as error:
        if error.code() in _NOTHING:
            return None
        raise _failure(error) from error


def _failure(error: aio.AioRpcError) -> ServiceError:
    if error.code() in _REFUSALS:
        # A defect of ours, which is not waited for as somebody who is away.
        _log.error("the agent service refused", code=error.code().name, reason=reason_of(error))
        return Internal(request_id=identity.current().request_id)
    if error.code() is StatusCode.DEADLINE_EXCEEDED and deadline.within(1.0) < 1.0:
        return DeadlineExceeded()
    full = error.code() is StatusCode.RESOURCE_EXHAUSTED
    return DependencyUnavailable(_NAME, retry_after=_FULL_SECONDS if full else 1.0)
