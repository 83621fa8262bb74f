"""A service whose state is what a test says."""

import asyncio
from collections.abc import Mapping

from loremesh_edge.ports import Unreachable


class MemoryHealth:
    """Answers with `serving`, after `seconds`; with None it cannot be reached."""

    def __init__(self, serving: Mapping[str, bool] | None, *, seconds: float = 0.0) -> None:
        """`serving` is as HealthSource.health gives it."""
        self.serving = serving
        self._seconds = seconds

    async def health(self) -> Mapping[str, bool]:
        """What was said; raises Unreachable."""
        await asyncio.sleep(self._seconds)
        if self.serving is None:
            raise Unreachable
        return self.serving
