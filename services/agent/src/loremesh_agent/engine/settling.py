"""Writes that must happen although the caller has left or its time is up."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context

from loremesh_kit import identity
from loremesh_kit.loops import background

_SECONDS = 5.0


async def settle(write: Callable[[], Awaitable[None]]) -> None:
    """Await `write()` in the caller's name but without its deadline; raises what it raises, TimeoutError after 5 s."""
    who = identity.current()

    async def run() -> None:
        with identity.scope(who):
            async with asyncio.timeout(_SECONDS):
                await write()

    async with background() as group:
        # The deadline rides in the context; an empty one has none.
        group.create_task(run(), context=Context())
