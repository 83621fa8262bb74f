"""Failures of sister services as this service's callers see them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from loremesh_kit.errors import DeadlineExceeded, DependencyUnavailable, Overloaded


@contextmanager
def calling(dependency: str) -> Iterator[None]:
    """Raise DependencyUnavailable, Overloaded or DeadlineExceeded when the enclosed call fails for such a cause.

    Any other failure is a fault of one of us, and passes as it is.
    """
    try:
        yield
    except aio.AioRpcError as error:
        match error.code():
            case grpc.StatusCode.UNAVAILABLE:
                raise DependencyUnavailable(dependency) from error
            case grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise Overloaded from error
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                raise DeadlineExceeded from error
        raise


async def ping(channel: aio.Channel) -> None:
    """Raise unless the service behind the channel says that it serves."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest())
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise ConnectionError("it is not serving")
