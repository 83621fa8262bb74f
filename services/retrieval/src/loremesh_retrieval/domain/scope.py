"""Whose chunks a query or a write is about."""

import json
import uuid
from dataclasses import dataclass

_POINTS = uuid.UUID("5d0f2c37-9f0e-5b6c-8e43-3c1f4a3c9b51")


@dataclass(frozen=True, slots=True)
class Scope:
    """A generation of one of a tenant's vector stores; nothing reads or writes the index without one."""

    tenant: str
    vector_store_id: str
    generation: int = 1

    def __post_init__(self) -> None:
        if not self.tenant or not self.vector_store_id or self.generation < 1:
            raise ValueError("a scope needs a tenant, a vector store and a generation from 1")

    @property
    def key(self) -> str:
        """All in one keyword: an engine looks at each point once, and keeps a scope's points together."""
        return json.dumps(self._parts)

    @property
    def _parts(self) -> list[str | int]:
        # The first generation is not named: points written before there were others stay what they are.
        later = [self.generation] if self.generation > 1 else []
        return [self.tenant, self.vector_store_id, *later]

    def point_id(self, chunk_id: str) -> str:
        """The UUID, in 32 digits, under which the index keeps a chunk.

        It derives from the whole scope too, so a chunk id can never name, and an upsert never overwrite, the point of
        another.
        """
        return uuid.uuid5(_POINTS, json.dumps([*self._parts, chunk_id.lower()])).hex
