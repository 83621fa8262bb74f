"""TaskService: messages in, use cases, messages out."""

import hashlib

from loremesh.agent.v1 import task_pb2 as pb
from loremesh.agent.v1.task_pb2_grpc import TaskServiceServicer
from loremesh_kit.text import clean

from loremesh_agent import task_protos as protos
from loremesh_agent.calls import Context
from loremesh_agent.domain.delegation import Delivered
from loremesh_agent.engine.tasks import Tasks


class TaskServicer(TaskServiceServicer):
    """Does tasks for crews and flows."""

    def __init__(self, *, engine: Tasks) -> None:
        self._engine = engine

    async def CreateTask(self, request: pb.CreateTaskRequest, context: Context) -> pb.AgentTask:  # noqa: N802 - the rpc's
        """Accept a task, and wait for its end where that is wanted."""
        del context
        wait = request.wait.ToTimedelta().total_seconds()
        request.ClearField("wait")
        body = request.SerializeToString(deterministic=True)
        made = await self._engine.create(
            protos.order(request),
            request=body,
            request_hash=hashlib.sha256(body).digest(),
            worker_hash=protos.worker_hash(request),
            wait=wait,
        )
        return protos.task(made)

    async def GetTask(self, request: pb.GetTaskRequest, context: Context) -> pb.AgentTask:  # noqa: N802
        """Get one."""
        del context
        return protos.task(await self._engine.get(clean(request.task_id)))

    async def CancelTask(self, request: pb.CancelTaskRequest, context: Context) -> pb.AgentTask:  # noqa: N802
        """Cancel one that is not finished."""
        del context
        return protos.task(await self._engine.cancel(clean(request.task_id)))

    async def AnswerDelegation(  # noqa: N802
        self, request: pb.AnswerDelegationRequest, context: Context
    ) -> pb.AnswerDelegationResponse:
        """Tell one what came of work it handed on."""
        del context
        delivered = Delivered(output=clean(request.output), reason=clean(request.reason))
        await self._engine.deliver(clean(request.task_id), clean(request.delegation_id), delivered)
        return pb.AnswerDelegationResponse()
