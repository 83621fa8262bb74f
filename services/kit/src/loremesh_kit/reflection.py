"""Server reflection, v1alpha and v1, so that grpcurl and buf need no protos."""

from collections.abc import Sequence

import grpc
from grpc import aio
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio as reflection_aio

_V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"
_V1 = "grpc.reflection.v1.ServerReflection"


def add(server: aio.Server, services: Sequence[str]) -> None:
    """Serve reflection for `services`; v1 is v1alpha under another name, message for message."""
    # v1 is served but not named: the descriptor pool does not have it, and a client that lists methods asks for each.
    servicer = reflection_aio.ReflectionServicer([*services, _V1ALPHA])
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handlers = {"ServerReflectionInfo": method}
    for name in (_V1ALPHA, _V1):
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, handlers)])
