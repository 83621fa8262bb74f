"""Events of the log as messages of the contract."""

from typing import Any

from loremesh.ingestion.v1 import document_pb2 as pb
from loremesh_kit.eventlog import Event, Heartbeat

from loremesh_ingestion.engine.history import DELETED, FAILED, PROGRESS, READY, SNAPSHOT, STATE_CHANGED
from loremesh_ingestion.servicers import messages


def document_event(event: Event | Heartbeat, *, document_id: str) -> pb.DocumentEvent:
    """One of them; a heartbeat has no number."""
    if isinstance(event, Heartbeat):
        return pb.DocumentEvent(run_id=document_id, heartbeat=pb.Heartbeat())
    return pb.DocumentEvent(
        run_id=document_id,
        seq=event.seq,
        time=messages.timestamp(event.time),
        path=event.path,
        attempt=event.attempt,
        **_payload(event),
    )


def _payload(event: Event) -> dict[str, Any]:
    held = event.payload
    match event.kind:
        case kind if kind == STATE_CHANGED:
            return {kind: pb.DocumentStateChanged(state=messages.state(held["state"]))}
        case kind if kind == PROGRESS:
            return {kind: pb.IndexingProgress(**held)}
        case kind if kind == READY:
            return {kind: pb.DocumentReady(**held)}
        case kind if kind == FAILED:
            return {kind: pb.DocumentFailure(**held | {"stage": messages.state(held["stage"])})}
        case kind if kind == SNAPSHOT:
            return {kind: messages.document(held["document"])}
        case kind if kind == DELETED:
            return {kind: pb.DocumentDeleted()}
        case kind:
            message = f"no message for events of kind {kind}"
            raise ValueError(message)
