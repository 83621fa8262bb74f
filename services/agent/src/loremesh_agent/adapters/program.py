"""A program that speaks JSON-RPC in lines over its standard input and output."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client._transport import TransportStreams
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCMessage, jsonrpc_message_adapter

from loremesh_agent.domain.tool_servers import Program

_MAX_LINE = 2 * 1024 * 1024
# Of what it may say between two of our messages.
_MAX_BYTES = 4 * 1024 * 1024
# Messages which wait for a program that does not read; more than a few means that it never will.
_WAITING = 64
_GOODBYE_SECONDS = 1.0
_REAP_SECONDS = 5.0
_PIECE = 65_536


@dataclass
class _Allowance:
    left: int = _MAX_BYTES


@asynccontextmanager
async def run_program(program: Program) -> AsyncIterator[tuple[TransportStreams, asyncio.Event]]:
    """Run it in a process group of its own; the event is set once it has ended or was cut off. Raises OSError.

    At the end its input is closed, and a second later the whole group is killed. What it says on standard error is
    dropped: it may quote secrets.
    """
    process = await asyncio.create_subprocess_exec(
        program.command,
        *program.arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={name: value.get_secret_value() for name, value in program.environment.items()},
        limit=_MAX_LINE,
        start_new_session=True,
    )
    ended, allowance = asyncio.Event(), _Allowance()
    incoming, said = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, told = anyio.create_memory_object_stream[SessionMessage](_WAITING)
    try:
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(_read(process, incoming, allowance, ended))
            writing = group.create_task(_write(process, told, allowance))
            try:
                yield (said, outgoing), ended
            finally:
                reading.cancel()
                writing.cancel()
    finally:
        ended.set()
        for stream in (incoming, said, outgoing, told):
            stream.close()
        await _end(process)


async def _read(
    process: asyncio.subprocess.Process,
    incoming: MemoryObjectSendStream[SessionMessage | Exception],
    allowance: _Allowance,
    ended: asyncio.Event,
) -> None:
    """Until it says no more, too much, or a line that is too long."""
    if process.stdout is None:
        return
    # Closing is what tells the session that no answer will come any more.
    async with incoming:
        with suppress(ValueError, OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while line := await process.stdout.readline():
                allowance.left -= len(line)
                if allowance.left < 0:
                    break
                if (message := _parsed(line)) is not None:
                    await incoming.send(SessionMessage(message))
    ended.set()


def _parsed(line: bytes) -> JSONRPCMessage | None:
    try:
        return jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValueError:
        # Programs print what they like beside.
        return None


async def _write(
    process: asyncio.subprocess.Process, told: MemoryObjectReceiveStream[SessionMessage], allowance: _Allowance
) -> None:
    if process.stdin is None:
        return
    async with told:
        with suppress(OSError):
            async for message in told:
                allowance.left = _MAX_BYTES
                process.stdin.write(message.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
                await process.stdin.drain()


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _GOODBYE_SECONDS)
    finally:
        # Its children, too, whether or not it went by itself: the group is ours alone.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutError):
        await asyncio.wait_for(_reap(process), _REAP_SECONDS)


async def _reap(process: asyncio.subprocess.Process) -> None:
    # It counts as ended once its output was read to the end, too.
    if process.stdout is not None:
        with suppress(OSError):
            while await process.stdout.read(_PIECE):
                pass
    await process.wait()
