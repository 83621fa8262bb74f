"""A sister service's state, by grpc.health.v1."""

from collections.abc import Mapping
from typing import Any

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from loremesh_edge.ports import Unreachable

_SERVING = health_pb2.HealthCheckResponse.SERVING


class GrpcHealth:
    """Lists what a service says of itself and of everything it depends on."""

    def __init__(self, channel: aio.Channel, *, seconds: float) -> None:
        """`channel` leads to the service; `seconds` is the deadline of a call."""
        self._stub: Any = health_pb2_grpc.HealthStub(channel)  # its published types lack List
        self._seconds = seconds

    async def health(self) -> Mapping[str, bool]:
        """Whether each name serves; raises Unreachable when no answer comes."""
        try:
            answer = await self._stub.List(health_pb2.HealthListRequest(), timeout=self._seconds)  # type: ignore[attr-defined]
        except aio.AioRpcError as error:
            raise Unreachable from error
        return {name: response.status == _SERVING for name, response in answer.statuses.items()}
