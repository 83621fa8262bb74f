"""Whose chunks a query or a write is about."""

import json
import uuid
from dataclasses import dataclass

_POINTS = uuid.UUID("5d0f2c37-9f0e-5b6c-8e43-3c1f4a3c9b51")


@dataclass(frozen=True, slots=True)
class Scope:
    """A tenant and one of its vector stores; nothing reads or writes the index without one."""

    tenant: str
    vector_store_id: str

    def __post_init__(self) -> None:
        if not self.tenant or not self.vector_store_id:
            raise ValueError("a scope needs a tenant and a vector store")

    @property
    def key(self) -> str:
        """Both in one keyword: an engine looks at each point once, and keeps a scope's points together."""
        return json.dumps([self.tenant, self.vector_store_id])

    def point_id(self, chunk_id: str) -> str:
        """The UUID, in 32 digits, under which the index keeps a chunk.

        It derives from tenant and vector store too, so a chunk id can never name, and an upsert never overwrite, the
        point of another.
        """
        return uuid.uuid5(_POINTS, json.dumps([self.tenant, self.vector_store_id, chunk_id.lower()])).hex
