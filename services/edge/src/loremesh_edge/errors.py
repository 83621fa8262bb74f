"""The errors of the edge service.

ServiceError
└── MeshNotReady    UNAVAILABLE    MESH_NOT_READY
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
