"""A TCP proxy that can cut and slow what passes through it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

_PIECE = 1 << 16
_CONNECT_SECONDS = 5.0


class Proxy:
    """Stands before one server: clients connect to `port`."""

    def __init__(self, *, port: int, behind: Callable[[], int]) -> None:
        """Both on loopback; `behind` tells the server's port as it is now, or raises OSError."""
        self.port = port
        self._behind = behind
        self._open: set[asyncio.StreamWriter] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._delay = 0.0

    async def cut(self, seconds: float) -> None:
        """Break every connection, and take no new one for so long."""
        self._passing.clear()
        for writer in tuple(self._open):
            writer.transport.abort()
        await asyncio.sleep(seconds)
        self._passing.set()

    async def slow(self, seconds: float, *, delay: float = 0.2) -> None:
        """Hold every piece back for `delay` seconds, for so long."""
        self._delay = delay
        await asyncio.sleep(seconds)
        self._delay = 0.0

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on."""
        if not self._passing.is_set():
            writer.transport.abort()
            return
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                there, onward = await asyncio.open_connection("127.0.0.1", self._behind())
        except (OSError, TimeoutError):
            writer.transport.abort()
            return
        self._open |= {writer, onward}
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(reader, onward))
                both.create_task(self._pass(there, writer))
        finally:
            self._open -= {writer, onward}
            for each in (writer, onward):
                each.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(_PIECE):
                if self._delay:
                    await asyncio.sleep(self._delay)
                writer.write(piece)
                await writer.drain()
        # One direction ended: so does the other, as when a process dies.
        writer.transport.abort()


@asynccontextmanager
async def standing_before(*, port: int, behind: Callable[[], int]) -> AsyncIterator[Proxy]:
    """A proxy that runs while the block does."""
    proxy = Proxy(port=port, behind=behind)
    server = await asyncio.start_server(proxy.take, "127.0.0.1", port)
    try:
        yield proxy
    finally:
        server.close()
        await proxy.cut(0.0)
