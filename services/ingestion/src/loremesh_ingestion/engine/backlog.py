"""How much work a tenant may have waiting: past that, documents are refused until some of it is done."""

import time
from dataclasses import dataclass

from loremesh_kit import identity

from loremesh_ingestion.errors import QueueFull
from loremesh_ingestion.records import QueueRecords

_COUNT_SECONDS = 1.0
_RETRY_SECONDS = 5.0


@dataclass(slots=True)
class _Room:
    """How many documents may come in before it is counted again."""

    left: int
    until: float


class Backlog:
    """Counts at most once a second for each tenant, so the limit is kept to what a second brings in elsewhere."""

    def __init__(self, *, queue: QueueRecords, limit: int) -> None:
        """`limit` is in jobs that wait, for each tenant."""
        self._queue = queue
        self._limit = limit
        self._rooms: dict[str, _Room] = {}

    async def admit(self) -> None:
        """Let one document of the caller's tenant in; raises QueueFull."""
        tenant = identity.current().tenant
        room = self._rooms.get(tenant)
        if room is None or time.monotonic() >= room.until:
            room = _Room(self._limit - await self._queue.waiting(limit=self._limit), time.monotonic() + _COUNT_SECONDS)
            self._rooms[tenant] = room
        if room.left <= 0:
            raise QueueFull(limit=self._limit, retry_after=_RETRY_SECONDS)
        room.left -= 1
