"""Keeps one program running: starts it, notices when it is ready, restarts it when it crashes, stops it."""

import asyncio
import contextlib
import logging
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from loremesh_cli.mesh.logfiles import last_words
from loremesh_cli.mesh.processes import ProcessId, sweep_group
from loremesh_cli.mesh.program import Program
from loremesh_cli.mesh.state import Part, Phase

QUICK_SECONDS = 5.0
QUICK_CRASHES = 5
BACKOFF_SECONDS = (0.2, 0.5, 1.0, 2.0)
PROBE_SECONDS = 0.1

logger = logging.getLogger("mesh")


class Keeper:
    """One program and its present process; `part` says how it does, `changed` is called whenever that changes."""

    def __init__(self, program: Program, *, part: Part, log: Path, changed: Callable[[], None]) -> None:
        self.program = program
        self.part = part
        self.settled = asyncio.Event()  # it has been ready (or done) once, or has been given up
        self._log = log
        self._changed = changed
        self._told_to_stop = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    async def keep(self) -> None:
        """Run the program until `stop`, or until it has crashed too often in a row to be worth another start."""
        quick_crashes = 0
        with self._busy():
            while not self._told_to_stop.is_set():
                seconds, how = await self._run(self._watch)
                if self._told_to_stop.is_set():
                    break
                quick = seconds < QUICK_SECONDS or self.part.phase is not Phase.READY
                quick_crashes = quick_crashes + 1 if quick else 1
                self.part.restarts += 1
                if quick_crashes >= QUICK_CRASHES:
                    self._give_up(f"{how}, {quick_crashes} times in a row")
                    return
                await self._pause(BACKOFF_SECONDS[quick_crashes - 1], how)
            self._say(Phase.STOPPED)

    async def run_once(self) -> None:
        """Run a step of the start to its end; it is done when its status is 0."""
        with self._busy():
            self.part.seconds, how = await self._run(self._limit)
            if self._told_to_stop.is_set():
                self._say(Phase.STOPPED)
            elif how == "ended with status 0":
                self._say(Phase.DONE)
            else:
                self._give_up(how)

    async def stop(self) -> None:
        """End the process: what it wants done before, its signal, and after its time is up SIGKILL."""
        self._told_to_stop.set()
        await self._idle.wait()

    @contextlib.contextmanager
    def _busy(self) -> Iterator[None]:
        self._idle.clear()
        try:
            yield
        finally:
            self.settled.set()
            self._idle.set()

    async def _run(self, accompany: Callable[[Process], Coroutine[Any, Any, None]]) -> tuple[float, str]:
        """Run one process to its end; return how long it lived, in seconds, and how it ended."""
        began = asyncio.get_running_loop().time()
        try:
            process = await self._spawn()
        except OSError as error:
            return 0.0, f"could not be started: {error}"
        try:
            async with asyncio.TaskGroup() as group:
                companions = [group.create_task(accompany(process)), group.create_task(self._end_when_told(process))]
                status = await process.wait()
                for companion in companions:
                    companion.cancel()
        finally:
            if process.returncode is None:
                process.kill()
            sweep_group(process.pid)
            self.program.clean_up()
            self.part.process = None
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        return asyncio.get_running_loop().time() - began, how

    async def _spawn(self) -> Process:
        with self._log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *self.program.command, stdin=DEVNULL, stdout=output, stderr=output, **self.program.process_options()
            )
        self.part.process = ProcessId.of(process.pid)
        self._say(Phase.STARTING)
        return process

    async def _watch(self, process: Process) -> None:
        """Say when the process is ready, and end it when that takes too long."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not await asyncio.to_thread(self.program.ready):
            if loop.time() - began > self.program.start_seconds:
                logger.warning("%s was not ready after %.0f s: killed", self.program.name, self.program.start_seconds)
                process.kill()
                return
            await asyncio.sleep(PROBE_SECONDS)
        self.settled.set()
        if not self._told_to_stop.is_set():
            self.part.seconds = loop.time() - began
            self._say(Phase.READY)

    async def _limit(self, process: Process) -> None:
        """End a step which takes too long."""
        await asyncio.sleep(self.program.start_seconds)
        logger.warning("%s was not done after %.0f s: killed", self.program.name, self.program.start_seconds)
        process.kill()

    async def _end_when_told(self, process: Process) -> None:
        await self._told_to_stop.wait()
        self._say(Phase.STOPPING)
        if self.program.before_stop is not None:
            await asyncio.to_thread(self.program.before_stop)
        process.send_signal(self.program.stop_signal)
        await asyncio.sleep(self.program.stop_seconds)
        logger.warning("%s did not stop in %.0f s: killed", self.program.name, self.program.stop_seconds)
        process.kill()

    async def _pause(self, seconds: float, how: str) -> None:
        logger.warning("%s %s, restarting in %.1f s", self.program.name, how, seconds)
        self._say(Phase.RESTARTING, how)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._told_to_stop.wait(), seconds)

    def _give_up(self, how: str) -> None:
        logger.error("%s %s: given up", self.program.name, how)
        self._say(Phase.FAILED, f"{how}\n{last_words(self._log)}")

    def _say(self, phase: Phase, message: str | None = None) -> None:
        self.part.phase = phase
        self.part.message = self.part.message if message is None else message
        self._changed()
