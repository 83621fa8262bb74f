"""Tool servers as protobuf messages."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from loremesh.agent.v1 import agent_pb2
from loremesh.agent.v1 import tool_pb2 as pb
from loremesh_kit.text import clean
from pydantic import SecretStr

from loremesh_agent.domain.tool_servers import Kind, NewToolServer, ToolServer, specs
from loremesh_agent.domain.tools import Effect, ToolSpec

_KINDS = {kind: pb.ToolServerKind.Value(f"TOOL_SERVER_KIND_{kind}") for kind in Kind}
_READ_KINDS = {proto: kind for kind, proto in _KINDS.items()}
_EFFECTS = {effect: agent_pb2.ToolEffect.Value(f"TOOL_EFFECT_{effect}") for effect in Effect}
_READ_EFFECTS = {proto: effect for effect, proto in _EFFECTS.items()}
_DEFAULT_SECONDS = 30.0


def read_tool_server(proto: pb.ToolServer) -> NewToolServer:
    """What a caller wants registered; output-only fields do not count."""
    timeout = proto.timeout.ToTimedelta().total_seconds() if proto.HasField("timeout") else _DEFAULT_SECONDS
    return NewToolServer(
        id=proto.id,
        kind=_READ_KINDS[proto.kind],
        address=clean(proto.address),
        token=SecretStr(clean(proto.token)),
        default_effect=_READ_EFFECTS.get(proto.default_effect, Effect.SIDE_EFFECTING),
        timeout_seconds=timeout,
    )


def tool_server(server: ToolServer, *, listed: bool = False) -> pb.ToolServer:
    """All of it but its token; one of a list also without its tools, which would be megabytes."""
    proto = pb.ToolServer(
        id=server.id,
        kind=_KINDS[server.kind],
        address=server.address,
        default_effect=_EFFECTS[server.default_effect],
        tools=() if listed else map(_tool, specs(server)),
        healthy=server.healthy,
    )
    proto.timeout.FromMilliseconds(round(server.timeout_seconds * 1000))
    if server.check_time is not None:
        proto.check_time.CopyFrom(_timestamp(server.check_time))
    if server.create_time is not None:
        proto.create_time.CopyFrom(_timestamp(server.create_time))
    return proto


def _tool(spec: ToolSpec) -> agent_pb2.Tool:
    return agent_pb2.Tool(
        name=spec.name,
        description=spec.description,
        input_schema=_struct(spec.input_schema),
        effect=_EFFECTS[spec.effect],
        untrusted=spec.untrusted,
        available=not spec.unavailable,
        unavailable_reason=spec.unavailable,
        tool_server_id=spec.tool_server_id,
    )


def _struct(plain: Mapping[str, Any]) -> Struct:
    struct = Struct()
    struct.update(dict(plain))
    return struct


def _timestamp(time: datetime) -> Timestamp:
    proto = Timestamp()
    proto.FromDatetime(time)
    return proto
