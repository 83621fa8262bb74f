"""Background work that goes on until it is told to stop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog

from loremesh_kit.errors import ServiceError

T = TypeVar("T")
_SHORTEST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0
_log = structlog.get_logger(__name__)


async def repeat(step: Callable[[], Awaitable[None]], *, stop: asyncio.Event, name: str) -> None:
    """Run `step` over and over until `stop` is set; a step that fails is logged and tried again after a pause.

    The outermost edge of background work, as the error interceptor is that of calls.
    """
    pause = _SHORTEST_PAUSE
    while not stop.is_set():
        try:
            await step()
        except ServiceError as error:
            _log.warning("will try again", work=name, reason=error.reason, error=error.message, pause_seconds=pause)
        except Exception:  # noqa: BLE001 - the outermost edge
            _log.exception("will try again", work=name, pause_seconds=pause)
        else:
            pause = _SHORTEST_PAUSE
            continue
        await unless(stop, asyncio.sleep(pause))
        pause = min(pause * 2, _LONGEST_PAUSE)


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Await `work`, or cancel it and return None as soon as `stop` is set."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        stopping.cancel()
        await asyncio.wait({working, stopping})
        if not working.cancelled():
            # Nobody asks any more how it failed.
            working.exception()


@asynccontextmanager
async def background() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group whose one failure passes as itself, so that callers can catch what they know."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failures:
        if len(failures.exceptions) == 1:
            raise failures.exceptions[0] from None
        raise
