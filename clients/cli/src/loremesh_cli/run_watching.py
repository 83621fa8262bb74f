"""Shows a run live, with its child runs, and asks for what it needs of a human."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from grpc import StatusCode
from grpc.aio import AioRpcError
from loremesh.crew.v1 import run_pb2 as pb
from rich.live import Live

from loremesh_cli import client, deciding, tour
from loremesh_cli.client import Mesh
from loremesh_cli.errors import CommandError
from loremesh_cli.output import Output
from loremesh_cli.run_board import Board, Row, because
from loremesh_cli.run_drawing import live, run_status, statistics
from loremesh_cli.run_events import events

LINGER_SECONDS = 2.0
CHILD_SECONDS = 0.1
_STATUSES = {pb.RUN_STATUS_COMPLETED: 0, pb.RUN_STATUS_INCOMPLETE: 2}


def attend(run_id: str, *, url: str, output: Output, each: bool = False) -> int:
    """Show a run until it ends, then what came of it; the command's status: 0 completed, 2 incomplete, 1 anything else.

    Ctrl-C leaves the run alone and says how to come back. With `each`, programs are given every event, too.
    """
    again = f"{tour.command_name()} run watch {run_id}"

    async def work() -> pb.Run:
        async with client.connect(url) as mesh:
            watching = Watching(mesh, Board(run_id), output=output, each=each)
            await watching.to_the_end()
            return await mesh.runs.GetRun(pb.GetRunRequest(run_id=run_id), timeout=client.UNARY_SECONDS)

    try:
        run = client.run(work(), url=url)
    except KeyboardInterrupt:
        output.say(f"\nThe run goes on. Come back to it: {again}")
        raise
    output.result(run)
    show(run, output=output)
    return _STATUSES.get(run.status, 1)


class Watching:
    """Follows a run and its child runs to the end of the first."""

    def __init__(self, mesh: Mesh, board: Board, *, output: Output, each: bool) -> None:
        self._mesh, self._board, self._output, self._each = mesh, board, output, each
        self._terminal = deciding.Terminal()
        self._asks = not output.as_json and sys.stdin.isatty()
        self._live: Live | None = None
        # Approvals that are not asked for any more, once they are decided.
        self._gone: dict[str, asyncio.Event] = {}
        self._asking: asyncio.Queue[str] = asyncio.Queue()

    async def to_the_end(self) -> None:
        """Raises AioRpcError when there is no such run or the mesh stays away."""
        with self._shown():
            async with asyncio.TaskGroup() as group:
                beside = [group.create_task(self._decide())]
                children = list[asyncio.Task[None]]()
                await self._follow(self._board, group, children)
                if children:
                    # Their last events come about the same time.
                    await asyncio.wait(children, timeout=LINGER_SECONDS)
                for task in (*beside, *children):
                    task.cancel()

    async def _follow(self, board: Board, group: asyncio.TaskGroup, children: list[asyncio.Task[None]]) -> None:
        async for event in events(self._mesh, board.run_id):
            waited = {row.approval_id for row in board.all_rows() if row.approval_id}
            self._say(board, event, board.apply(event))
            row = board.row(event)
            if event.WhichOneof("payload") == "child_started" and row and row.child:
                children.append(group.create_task(self._child(row.child, group, children)))
            waits = {row.approval_id for row in board.all_rows() if row.approval_id}
            self._ask(row, waits - waited)
            for approval_id in waited - waits:
                self._gone[approval_id].set()

    async def _child(self, board: Board, group: asyncio.TaskGroup, children: list[asyncio.Task[None]]) -> None:
        while True:
            try:
                await self._follow(board, group, children)
            except (AioRpcError, CommandError) as error:
                # It is told of before it is there. What else is not shown of it, its parent tells all the same.
                if not isinstance(error, AioRpcError) or error.code() is not StatusCode.NOT_FOUND:
                    return
                await asyncio.sleep(CHILD_SECONDS)
            else:
                return

    def _ask(self, row: Row | None, approval_ids: set[str]) -> None:
        for approval_id in approval_ids:
            self._gone[approval_id] = asyncio.Event()
            if self._asks:
                self._asking.put_nowait(approval_id)
            else:
                self._output.say(f"{row.name if row else 'it'} waits for a human: {_how(approval_id)}", style="yellow")

    async def _decide(self) -> None:
        while True:
            approval_id = await self._asking.get()
            gone = self._gone[approval_id]
            if gone.is_set():
                continue
            with self._hidden():
                await deciding.decide(
                    self._mesh,
                    approval_id,
                    terminal=self._terminal,
                    gone=gone,
                    later=_how(approval_id),
                    output=self._output,
                )

    def _say(self, board: Board, event: pb.RunEvent, line: str) -> None:
        if self._each:
            self._output.result(event)
        if line and self._live is None:
            below = "  " * board.depth
            self._output.say(f"{event.time.ToDatetime(UTC).astimezone():%H:%M:%S}  {below}{line}")

    @contextmanager
    def _shown(self) -> Iterator[None]:
        """A tree that changes in place at a terminal, a line for each event otherwise."""
        console = self._output.console
        if self._output.as_json or not console.is_terminal:
            yield
            return

        def tree() -> Any:
            return live(self._board, now=datetime.now(UTC))

        with Live(get_renderable=tree, console=console, refresh_per_second=4, transient=True) as self._live:
            yield
        console.print(tree())

    @contextmanager
    def _hidden(self) -> Iterator[None]:
        if self._live is None:
            yield
            return
        self._live.stop()
        self._output.console.print(live(self._board, now=datetime.now(UTC)))
        try:
            yield
        finally:
            self._live.start(refresh=True)


def show(run: pb.Run, *, output: Output) -> None:
    """Print what came of a run: its output, and what each task took."""
    if run.output:
        output.say(f"\n{run.output}\n")
    if run.reason or run.message:
        output.say(because(run.reason, run.message).removeprefix(": "), style="red")
    output.console.print(statistics(run))
    for file in run.files:
        output.say(f"{file.name}, {file.size_bytes} bytes: {tour.command_name()} run file {run.id} {file.name}")
    output.say(f"run {run.id} is {run_status(run.status)}", style="bold")


def _how(approval_id: str) -> str:
    command = tour.command_name()
    return f"{command} approvals show {approval_id}, then {command} approvals approve|deny|answer {approval_id}"
