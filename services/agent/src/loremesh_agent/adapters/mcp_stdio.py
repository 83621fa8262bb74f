"""MCP servers that are programs of the operator's: started when first needed, and again with patience when they die."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from loremesh_kit import deadline
from mcp import ClientSession, types

from loremesh_agent.adapters import mcp
from loremesh_agent.adapters.program import run_program
from loremesh_agent.domain.tool_servers import Described, NewToolServer, Program, described, full_name, is_described
from loremesh_agent.domain.tools import CallContext, ToolResult
from loremesh_agent.errors import ToolServerUnavailable, ToolTimeout, ToolUnavailable

# Some fetch themselves from a registry first.
_START_SECONDS = 30.0
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 60.0
# What lived that long did not die of starting.
_STEADY_SECONDS = 60.0
_log = structlog.get_logger(__name__)


@dataclass(eq=False)
class _Running:
    """A program, from its start to its end."""

    ready: "asyncio.Future[ClientSession]"
    task: asyncio.Task[None] | None = None
    # None: to be asked for again.
    tools: list[Described] | None = None


@dataclass
class _Pause:
    seconds: float = 0.0
    until: float = 0.0


class McpPrograms:
    """See ports.ToolServerClient; also a kit Worker: programs live while it runs."""

    def __init__(self) -> None:
        # It logs what servers say.
        logging.getLogger("mcp").setLevel(logging.CRITICAL)
        self._group: asyncio.TaskGroup | None = None
        self._running: dict[str, _Running] = {}
        self._pauses: dict[str, _Pause] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Have programs run until `stop` is set, then end them all."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await stop.wait()
            self._group = None
            for running in self._running.values():
                if running.task is not None:
                    running.task.cancel()

    def sleeps(self, server: NewToolServer) -> bool:
        """See ports.ToolServerClient."""
        return server.id not in self._running

    async def describe(self, server: NewToolServer) -> tuple[Described, ...]:
        """See ports.ToolServerClient."""
        try:
            async with asyncio.timeout(deadline.within(_START_SECONDS)):
                running = await self._started(server)
                running.tools = None
                return described(await self._tools(running, server), server_id=server.id)
        except mcp.FAILURES as error:
            raise mcp.unusable(error, server) from error

    async def call(
        self, server: NewToolServer, tool: Described, arguments: Mapping[str, Any], context: CallContext
    ) -> ToolResult:
        """See ports.ToolServerClient."""
        name, called = full_name(server.id, tool.name), False
        try:
            async with asyncio.timeout(deadline.within(server.timeout_seconds)):
                running = await self._started(server)
                if not is_described(tool, await self._tools(running, server)):
                    raise ToolUnavailable(name)
                called = True
                return await mcp.call_tool(running.ready.result(), tool, arguments, context)
        except TimeoutError as error:
            raise (ToolTimeout if called else ToolUnavailable)(name) from error
        except ToolServerUnavailable as error:
            raise ToolUnavailable(name) from error
        except mcp.FAILURES as error:
            told = mcp.broken(error, server, tool) if called else mcp.uncalled(error, server, name)
            raise told from error

    async def _tools(self, running: _Running, server: NewToolServer) -> list[Described]:
        if running.tools is None:
            running.tools = await mcp.list_tools(running.ready.result(), server)
        return running.tools

    async def _started(self, server: NewToolServer) -> _Running:
        """The program once it can be asked; raises ToolServerUnavailable."""
        running = self._running.get(server.id)
        if running is None:
            pause = self._pauses.setdefault(server.id, _Pause())
            if self._group is None or server.program is None or time.monotonic() < pause.until:
                raise ToolServerUnavailable(server.id)
            running = self._running[server.id] = _Running(ready=asyncio.get_running_loop().create_future())
            running.task = self._group.create_task(self._live(server, server.program, running, pause))
        # Others may wait for the same start.
        await asyncio.wait([running.ready])
        if running.ready.cancelled() or running.ready.exception() is not None:
            raise ToolServerUnavailable(server.id)
        return running

    async def _live(self, server: NewToolServer, program: Program, running: _Running, pause: _Pause) -> None:
        began = time.monotonic()
        try:
            async with self._session(program, running) as (session, ended):
                running.ready.set_result(session)
                _log.info("program started", tool_server_id=server.id)
                await ended.wait()
        except mcp.FAILURES as error:
            mcp.unusable(error, server)
        finally:
            del self._running[server.id]
            steady = time.monotonic() - began > _STEADY_SECONDS
            pause.seconds = _FIRST_PAUSE if steady or not pause.seconds else min(pause.seconds * 2, _LONGEST_PAUSE)
            pause.until = time.monotonic() + pause.seconds
            running.ready.cancel()
            _log.info("program ended", tool_server_id=server.id, pause_seconds=pause.seconds)

    @asynccontextmanager
    async def _session(self, program: Program, running: _Running) -> AsyncIterator[tuple[ClientSession, asyncio.Event]]:
        async def listen(message: Any) -> None:
            if isinstance(message, types.ToolListChangedNotification):
                running.tools = None

        async with (
            run_program(program) as (streams, ended),
            mcp.open_session(streams, message_handler=listen, read_timeout_seconds=None) as session,
        ):
            yield session, ended
