"""A model provider over real HTTP that misbehaves as its script says; dialects.py says it in each wire format."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Reply:
    """A whole answer in place of a stream."""

    status: int
    body: str = '{"error": {"message": "canary-provider-words"}}'
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Wait:
    """Silence for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Cut:
    """The connection breaks here."""


Step = Reply | Wait | Cut | bytes


def sse(data: object) -> bytes:
    """One server-sent event."""
    return b"data: " + (data if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False).encode()) + b"\n\n"


@dataclass
class ProviderDouble:
    """Plays one script a request, the last one again and again, or what `script_of` says to a request's body."""

    scripts: list[Sequence[Step]] = field(default_factory=list)
    script_of: Callable[[dict[str, Any]], Sequence[Step]] | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    # Set when a client closes its connection amid an answer.
    left: asyncio.Event = field(default_factory=asyncio.Event)
    connections: int = 0
    paths: list[str] = field(default_factory=list)
    # Of the server, without a path.
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests on one connection until it breaks."""
        self.connections += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._answer_one(reader, writer):
                pass
        writer.close()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.paths.append(head[0].split()[1])
        self.headers.append(headers)
        self.requests.append(json.loads(body or b"{}"))
        script = self._next()
        if script and isinstance(script[0], Reply):
            return self._reply(script[0], writer)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        leaving = asyncio.ensure_future(reader.read(1))
        try:
            for step in script:
                if not await self._play(step, writer, leaving):
                    return False
        finally:
            leaving.cancel()
            # Until then nobody else may read.
            await asyncio.wait({leaving})
        writer.write(b"0\r\n\r\n")
        return True

    def _next(self) -> Sequence[Step]:
        if self.script_of:
            return self.script_of(self.requests[-1])
        return self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]

    async def _play(self, step: Step, writer: asyncio.StreamWriter, leaving: "asyncio.Future[bytes]") -> bool:
        match step:
            case Wait(seconds):
                done, _ = await asyncio.wait({leaving}, timeout=seconds)
                if done:
                    self.left.set()
                    return False
            case Cut():
                writer.transport.abort()
                return False
            case bytes():
                writer.write(f"{len(step):x}\r\n".encode() + step + b"\r\n")
                await writer.drain()
        return True

    def _reply(self, reply: Reply, writer: asyncio.StreamWriter) -> bool:
        body = reply.body.encode()
        headers = (("content-type", "application/json"), ("content-length", str(len(body))), *reply.headers)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        writer.write(f"HTTP/1.1 {reply.status} X\r\n{lines}\r\n".encode() + body)
        return True


@asynccontextmanager
async def provider_double() -> AsyncIterator[ProviderDouble]:
    """A double that listens on a port of its own."""
    double = ProviderDouble()
    connections: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(writer)
        await double.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    double.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield double
    finally:
        server.close()
        for writer in connections:
            writer.close()


@contextmanager
def background_double() -> Iterator[ProviderDouble]:
    """The same in a thread of its own, for a mesh of processes."""
    started: list[tuple[ProviderDouble, asyncio.AbstractEventLoop, asyncio.Event]] = []
    ready = threading.Event()

    async def play() -> None:
        async with provider_double() as double:
            stop = asyncio.Event()
            started.append((double, asyncio.get_running_loop(), stop))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(play()))
    thread.start()
    ready.wait()
    ((double, loop, stop),) = started
    try:
        yield double
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
