"""Memories as messages, and back."""

import math
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from loremesh.agent.v1 import memory_pb2 as pb
from loremesh_kit.text import clean

from loremesh_agent.domain.memories import Explained, Kind, Memory, NewMemory, Receipt
from loremesh_agent.errors import MemoryInvalid
from loremesh_agent.ports import Scope
from loremesh_agent.protos import timestamp

_KINDS = {kind: pb.MemoryKind.Value(f"MEMORY_KIND_{kind}") for kind in Kind}
_READ_KINDS = {proto: kind for kind, proto in _KINDS.items()}


def memory(kept: Memory) -> pb.Memory:
    """A memory."""
    proto = pb.Memory(
        id=kept.id,
        kind=_KINDS[kept.kind],
        scope=pb.MemoryScope(user_id=kept.user_id, agent_id=kept.agent_id, conversation_id=kept.conversation_id),
        content=kept.content,
        subject=kept.subject,
        attribute=kept.attribute,
        confidence=kept.confidence,
        valid_from=timestamp(kept.valid_from),
        valid_until=timestamp(kept.valid_until) if kept.valid_until else None,
        superseded_by=kept.superseded_by,
        supersedes=kept.supersedes,
        create_time=timestamp(kept.create_time),
    )
    if kept.run_id or kept.message_id or kept.seq:
        proto.source.CopyFrom(pb.MemorySource(run_id=kept.run_id, message_id=kept.message_id, seq=kept.seq))
    return proto


def explained(known: Explained) -> pb.ExplainMemoryResponse:
    """Where a memory comes from."""
    return pb.ExplainMemoryResponse(
        memory=memory(known.memory),
        source_text=known.source_text,
        superseded=map(memory, known.superseded),
        superseded_by=memory(known.superseded_by) if known.superseded_by else None,
        standing=known.standing,
    )


def receipt(kept: Receipt) -> pb.MemoryReceipt:
    """What was forgotten."""
    return pb.MemoryReceipt(
        id=kept.id,
        memories=kept.memories,
        done=kept.finish_time is not None,
        stores=kept.stores,
        create_time=timestamp(kept.create_time),
        finish_time=timestamp(kept.finish_time) if kept.finish_time else None,
    )


def read_memory(proto: pb.Memory) -> NewMemory:
    """What is to be remembered; raises MemoryInvalid for times that nobody can live to see."""
    scope = read_scope(proto.scope)
    return NewMemory(
        kind=read_kind(proto.kind) or Kind.LONG_TERM,
        user_id=scope.user_id,
        agent_id=scope.agent_id,
        conversation_id=scope.conversation_id,
        content=proto.content,
        subject=proto.subject,
        attribute=proto.attribute,
        confidence=proto.confidence or 1.0,
        valid_from=_time(proto.valid_from, "valid_from") if proto.HasField("valid_from") else None,
        valid_until=_time(proto.valid_until, "valid_until") if proto.HasField("valid_until") else None,
        run_id=clean(proto.source.run_id),
        message_id=clean(proto.source.message_id),
        seq=proto.source.seq,
    )


def read_scope(proto: pb.MemoryScope) -> Scope:
    """A scope."""
    return Scope(
        user_id=clean(proto.user_id), agent_id=clean(proto.agent_id), conversation_id=clean(proto.conversation_id)
    )


def read_kind(proto: pb.MemoryKind.ValueType) -> Kind | None:
    """A kind, None where it is unspecified."""
    return _READ_KINDS.get(proto)


def read_ttl(proto: Duration) -> timedelta:
    """A length of time; raises MemoryInvalid for one longer than history."""
    try:
        return timedelta(seconds=proto.seconds, microseconds=math.ceil(proto.nanos / 1000))
    except OverflowError:
        raise MemoryInvalid("ttl is too long", field="valid_until") from None


def _time(proto: Timestamp, field: str) -> datetime:
    try:
        return proto.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise MemoryInvalid(f"{field} is no instant between the years 1 and 9999", field=field) from None
