"""Refuses what the process could not finish in time, while refusing is still cheap."""

import random
from collections.abc import Collection
from typing import Any

from loremesh_kit.errors import Overloaded
from loremesh_kit.interceptors.chain import Call, Proceed


class AdmissionInterceptor:
    """Serves `limit` calls at once; the next one is told to come back."""

    def __init__(self, *, limit: int, long_lived: Collection[str] = ()) -> None:
        """`long_lived` are full method names which wait more than they work and are not counted."""
        self._limit = limit
        self._long_lived = frozenset(long_lived)
        self._served = 0

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        """Run the call if there is room; raises Overloaded."""
        if call.method in self._long_lived:
            return await proceed()
        if self._served >= self._limit:
            raise Overloaded(retry_after=random.uniform(0.5, 1.5))  # noqa: S311 - spreads retries, hides nothing
        self._served += 1
        try:
            return await proceed()
        finally:
            self._served -= 1
