"""One parsing process, seen from the service."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from typing import Any

import structlog
from loremesh_kit.errors import DependencyUnavailable

from loremesh_ingestion.errors import ParseLimit, ParserCrashed
from loremesh_ingestion.parsing import frames

_START_SECONDS = 60.0  # imports on a cold and busy machine
_END_SECONDS = 5.0
_STDERR_TAIL = 4096
_INHERITED = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "TZ", "TMPDIR")  # never the service's secrets
_SINGLE_THREADED = {
    "RAYON_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}  # more arenas would eat address space, which is what is limited
# What allocators which cannot fail politely (Rust's, C++'s, OpenBLAS's) print before they give up, in small letters.
_OUT_OF_MEMORY = (b"memory allocation", b"bad_alloc", b"out of memory", b"memoryerror", b"cannot allocate memory")

_log = structlog.get_logger(__name__)


class ParserProcess:
    """A child process that reads one document after the other, until one of them is its last."""

    def __init__(self, *, process: asyncio.subprocess.Process, stderr: int) -> None:
        self._process = process
        self._stderr = stderr
        self.served = 0

    @classmethod
    async def start(cls, *, memory_bytes: int) -> "ParserProcess":
        """Start a process and wait until it is warm; raises DependencyUnavailable when it does not come up."""
        stderr = os.memfd_create("parser-stderr")
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-P", "-m", "loremesh_ingestion.parsing", str(memory_bytes)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                env=_environment(),
                start_new_session=True,  # a Ctrl-C at the terminal is for the service to handle
            )
        except BaseException:
            os.close(stderr)
            raise
        started = cls(process=process, stderr=stderr)
        ready = False
        try:
            await started._receive(_START_SECONDS)
            ready = True
        except (ParseLimit, ParserCrashed) as error:
            # No document has been near it.
            raise DependencyUnavailable("parser") from error
        finally:
            if not ready:
                await started.end()
        return started

    @property
    def alive(self) -> bool:
        """Whether the process can take another request."""
        return self._process.returncode is None

    async def request(self, message: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        """Return the reply to `message`; raises ParseLimit or ParserCrashed, and is of no use after that."""
        self.served += 1
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        try:
            self._process.stdin.write(frames.encode(message))
            await self._process.stdin.drain()
        except ConnectionError as error:
            raise ParserCrashed from error
        return await self._receive(seconds)

    async def end(self) -> None:
        """Kill the process, whatever it is doing, and wait until it is gone."""
        self._kill()
        async with asyncio.timeout(_END_SECONDS):
            await self._process.communicate()
        if self._stderr >= 0:
            os.close(self._stderr)
            self._stderr = -1

    async def _receive(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        try:
            async with asyncio.timeout(seconds):
                return await frames.receive(self._process.stdout)
        except TimeoutError as error:
            raise ParseLimit("time") from error
        except asyncio.IncompleteReadError as error:
            raise await self._cause_of_death() from error
        except ValueError as error:
            raise ParserCrashed from error

    def _kill(self) -> None:
        if self.alive:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # it leads a group of its own, whatever it has started

    async def _cause_of_death(self) -> ParseLimit | ParserCrashed:
        self._kill()  # it may have closed its end and live on; if it is dying already, this changes nothing
        async with asyncio.timeout(_END_SECONDS):
            code = await self._process.wait()
        tail = os.pread(self._stderr, _STDERR_TAIL, max(0, os.fstat(self._stderr).st_size - _STDERR_TAIL))
        if code == -signal.SIGXCPU:
            return ParseLimit("cpu")
        if any(sign in tail.lower() for sign in _OUT_OF_MEMORY):
            return ParseLimit("memory")
        _log.error("parser process died", exit_code=code)
        return ParserCrashed()


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _INHERITED if name in os.environ} | _SINGLE_THREADED | _ONE_ARENA
