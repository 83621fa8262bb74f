"""The errors of the edge service.

ServiceError
├── MeshNotReady      UNAVAILABLE            MESH_NOT_READY
├── MessageInvalid    INVALID_ARGUMENT       MESSAGE_INVALID
├── RunUnderway       FAILED_PRECONDITION    RUN_UNDERWAY
└── WebSocketRequired INVALID_ARGUMENT       WEBSOCKET_REQUIRED
"""

from collections.abc import Mapping

from loremesh_kit.errors import Code, ServiceError


class MeshNotReady(ServiceError):
    """At least one part of the mesh is not ready."""

    code = Code.UNAVAILABLE
    reason = "MESH_NOT_READY"

    def __init__(self, states: Mapping[str, str]) -> None:
        """`states` has each part that is not ready, such as `ingestion` or `ingestion/postgres`, with its state."""
        parts = ", ".join(f"{name} is {state.lower().replace('_', ' ')}" for name, state in states.items())
        super().__init__(f"The mesh is not ready: {parts}.", metadata=states, retry_after=1.0)


class MessageInvalid(ServiceError):
    """A message of a WebSocket is not one of those there are."""

    code = Code.INVALID_ARGUMENT
    reason = "MESSAGE_INVALID"


class RunUnderway(ServiceError):
    """A WebSocket carries one run at a time."""

    code = Code.FAILED_PRECONDITION
    reason = "RUN_UNDERWAY"

    def __init__(self) -> None:
        """There is but one way to say it."""
        super().__init__("A run is under way on this WebSocket: wait for its end, or open another one.")


class WebSocketRequired(ServiceError):
    """A request to a path of WebSockets opens none."""

    code = Code.INVALID_ARGUMENT
    reason = "WEBSOCKET_REQUIRED"

    def __init__(self) -> None:
        """There is but one way to say it."""
        super().__init__("This path is for WebSockets: open one, or read the same as server-sent events.")
