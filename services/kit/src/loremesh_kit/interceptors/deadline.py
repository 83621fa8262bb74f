"""Puts the caller's deadline in force, and one of ours where the caller brings none."""

import asyncio
from collections.abc import Collection
from typing import Any

from loremesh_kit import deadline
from loremesh_kit.errors import DeadlineExceeded
from loremesh_kit.interceptors.chain import Call, Proceed


class DeadlineInterceptor:
    """Every call ends: at its own deadline, or after `default` seconds unless it streams for a living."""

    def __init__(self, *, default: float, long_lived: Collection[str] = ()) -> None:
        """`long_lived` are full method names which may run on without a deadline."""
        self._default = default
        self._long_lived = frozenset(long_lived)

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        """Run the call under its deadline; raises DeadlineExceeded."""
        seconds = call.context.time_remaining()
        if seconds is None and call.method in self._long_lived:
            return await proceed()
        with deadline.scope(self._default if seconds is None else seconds):
            try:
                # Past the caller's own deadline gRPC cancels the call by itself.
                async with asyncio.timeout(self._default if seconds is None else None):
                    return await proceed()
            except TimeoutError as error:
                if deadline.remaining() == 0:
                    raise DeadlineExceeded from error
                raise
