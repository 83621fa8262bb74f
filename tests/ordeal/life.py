"""One life of a process inside this one: every call through its ports is a place where it may end, freeze or be cut."""

import asyncio
import inspect
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import structlog
from loremesh_kit.errors import DependencyUnavailable


class Killed(BaseException):
    """The process is dead: whatever still runs of it gets this from every port, and can have no effect any more."""


class Mode(StrEnum):
    """What happens at a crash point."""

    BEFORE = "killed before"
    AFTER = "killed after"
    TIMEOUT = "done, but the caller saw a timeout"
    FROZEN = "frozen past its lease"


@dataclass(frozen=True, slots=True)
class Point:
    """The nth call of a port's method from one place of the code."""

    name: str
    nth: int = 1

    def __str__(self) -> str:
        return f"{self.name}#{self.nth}"


@dataclass(frozen=True, slots=True)
class Aim:
    """Where and how."""

    point: Point
    mode: Mode


class Life:
    """Counts the calls, and strikes at the one it was aimed at."""

    def __init__(self) -> None:
        self.passed: list[Point] = []
        self.died = asyncio.Event()
        self.frozen = asyncio.Event()
        self.struck = False
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._aim: Aim | None = None
        self._calls: Counter[str] = Counter()

    def aim(self, aim: Aim | None) -> None:
        """Count from here on, and strike there."""
        self._aim = aim
        self.struck = False
        self._calls.clear()
        self.passed.clear()

    def die(self) -> None:
        """End it; raises Killed."""
        self.died.set()
        raise Killed

    def thaw(self) -> None:
        """Let a frozen process go on, as if no time had passed for it."""
        self._thawed.set()

    async def alive(self) -> None:
        """Return when it is; raises Killed."""
        await self._thawed.wait()
        if self.died.is_set():
            raise Killed

    async def before(self, name: str) -> Mode | None:
        """Come to a call; how it is to go, None for as usual."""
        await self.alive()
        self._calls[name] += 1
        point = Point(name, self._calls[name])
        self.passed.append(point)
        if self._aim is None or self._aim.point != point:
            return None
        self.struck = True
        if self._aim.mode is Mode.BEFORE:
            self.die()
        if self._aim.mode is Mode.FROZEN:
            self._thawed.clear()
            self.frozen.set()
            await self.alive()
        return self._aim.mode

    async def after(self, mode: Mode | None, unknown: Exception) -> None:
        """Come back from a call that had its effect."""
        await self.alive()
        if mode is Mode.AFTER:
            self.die()
        if mode is Mode.TIMEOUT:
            raise unknown


def place(statement: object = None) -> str:
    """Who is calling: the kind of its job, its module and its function, or the name it has for its SQL statement."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith("loremesh_") and module != "loremesh_kit.postgres":
            job = structlog.contextvars.get_contextvars().get("kind")
            names = frame.f_globals.items() if isinstance(statement, str) else ()
            named = next((name for name, value in names if value is statement), frame.f_code.co_name)
            where = f"{module.rpartition('.')[2]}.{named}"
            return f"{job}:{where}" if job else where
        frame = frame.f_back
    return "outside"


class MortalPort:
    """A port of a living process; its methods are those of the port behind it."""

    def __init__(self, port: Any, *, name: str, life: Life) -> None:
        self._port = port
        self._name = name
        self._life = life

    def __getattr__(self, method: str) -> Any:
        behind = getattr(self._port, method)
        name = f"{self._name}.{method}"
        if inspect.isasyncgenfunction(behind):
            return lambda *args, **kwargs: self._stream(name, lambda: behind(*args, **kwargs), place())
        if inspect.iscoroutinefunction(behind):
            return lambda *args, **kwargs: self._call(name, lambda: behind(*args, **kwargs), place())
        return behind

    async def _call(self, name: str, work: Callable[[], Awaitable[Any]], where: str) -> Any:
        async with crossing(self._life, f"{name}@{where}", DependencyUnavailable(self._name)):
            return await work()

    async def _stream(self, name: str, work: Callable[[], AsyncIterator[Any]], where: str) -> AsyncIterator[Any]:
        async with crossing(self._life, f"{name}@{where}", DependencyUnavailable(self._name)):
            async for piece in work():
                yield piece


@asynccontextmanager
async def crossing(life: Life, name: str, unknown: Exception) -> AsyncIterator[None]:
    """One call through a port."""
    mode = await life.before(name)
    yield
    await life.after(mode, unknown)
