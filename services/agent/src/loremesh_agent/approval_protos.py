"""Approvals as protobuf messages."""

from datetime import UTC, datetime
from typing import Any

from loremesh.agent.v1 import agent_pb2
from loremesh.agent.v1 import approval_pb2 as pb
from loremesh_kit.structs import plain
from loremesh_kit.text import clean

from loremesh_agent.domain.approvals import Approval, Decision, Kind, State, Verdict
from loremesh_agent.domain.tools import ExpiryPolicy
from loremesh_agent.protos import struct, timestamp

_KINDS = {kind: pb.ApprovalKind.Value(f"APPROVAL_KIND_{kind}") for kind in Kind}
_STATES = {state: pb.ApprovalState.Value(f"APPROVAL_STATE_{state}") for state in State}
_VERDICTS = {pb.Decision.Value(f"DECISION_{verdict}"): verdict for verdict in Verdict}
_POLICIES = {policy: agent_pb2.ExpiryPolicy.Value(f"EXPIRY_POLICY_{policy}") for policy in ExpiryPolicy}
# From there on doubles stand for more than one integer each.
_EXACT = 2**53


def approval(kept: Approval) -> pb.Approval:
    """An approval."""
    return pb.Approval(
        id=kept.id,
        kind=_KINDS[kept.kind],
        state=_STATES[kept.state],
        run_id=kept.run_id,
        conversation_id=kept.conversation_id,
        agent_id=kept.agent_id,
        tool_name=kept.tool_name,
        arguments=struct(kept.arguments),
        question=kept.question,
        create_time=timestamp(kept.create_time),
        due_time=timestamp(kept.due_time),
        remind_time=timestamp(kept.remind_time) if kept.remind_time else None,
        escalate_time=timestamp(kept.escalate_time) if kept.escalate_time else None,
        on_expiry=_POLICIES[kept.on_expiry],
        decide_time=timestamp(kept.decide_time) if kept.decide_time else None,
        decided_by=kept.decided_by,
        comment=kept.comment,
        answer=kept.answer,
        etag=kept.etag,
        root_run_id=kept.root_run_id,
        task_name=kept.task_name,
        assignee=kept.assignee,
        output=kept.output,
    )


def event(changed: Approval | None) -> pb.ApprovalEvent:
    """What a watcher is told; None is a heartbeat."""
    proto = pb.ApprovalEvent(time=timestamp(datetime.now(UTC)))
    if changed is None:
        proto.heartbeat.SetInParent()
    else:
        proto.approval.CopyFrom(approval(changed))
    return proto


def read_state(proto: pb.ApprovalState.ValueType) -> State:
    """A state; unspecified means PENDING."""
    return next((state for state, value in _STATES.items() if value == proto), State.PENDING)


def decision(request: pb.DecideApprovalRequest) -> Decision:
    """What a request decides."""
    return Decision(
        verdict=_VERDICTS[request.decision],
        arguments=_json(plain(request.arguments)) if request.HasField("arguments") else None,
        answer=clean(request.answer),
        comment=clean(request.comment),
    )


def _json(value: Any) -> Any:
    """As a model would have written it: cleaned, and whole numbers without a point, which a Struct cannot tell."""
    match value:
        case str():
            return clean(value)
        case float() if value.is_integer() and abs(value) < _EXACT:
            return int(value)
        case dict():
            return {clean(key): _json(each) for key, each in value.items()}
        case list():
            return [_json(each) for each in value]
    return value
