"""Carries out the plan: breaks one thing after the other, and what passes it lets pass."""

import asyncio
import contextlib
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.ordeal import disk
from tests.ordeal.mesh import Mesh
from tests.ordeal.plan import Fault, Kind

_READY_SECONDS = 60.0
_POLL_SECONDS = 0.05
# A supervisor gives up what crashes again and again within five seconds of its start.
_REST_SECONDS = 6.0
_STOP_SECONDS = 5.0


@dataclass(kw_only=True)
class Conductor:
    """Hits a part only once it is ready again, so that no part is taken for one that cannot be started."""

    mesh: Mesh
    say: Callable[[str], None]
    done: list[Fault] = field(default_factory=list)
    missed: list[Fault] = field(default_factory=list)
    last_at: float = 0.0
    _hit_at: dict[str, float] = field(default_factory=dict)

    async def play(self, plan: Sequence[Fault]) -> None:
        """Begin each fault at its time; one that lasts does not hold up the next."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for fault in plan:
                await asyncio.sleep(max(0.0, began + fault.at - time.monotonic()))
                group.create_task(self._commit(fault))

    async def _commit(self, fault: Fault) -> None:
        if fault.kind in (Kind.CUT, Kind.SLOW):
            proxy = self.mesh.proxies[fault.victim]
            await (proxy.cut(fault.lasts) if fault.kind is Kind.CUT else proxy.slow(fault.lasts))
        elif not await self._ready(fault.victim):
            self.missed.append(fault)
            self.say(f"{fault}: not ready, left out")
            return
        else:
            await self._hit(fault)
        self.done.append(fault)
        self.last_at = max(self.last_at, time.monotonic())

    async def _hit(self, fault: Fault) -> None:
        self._hit_at[fault.victim] = time.monotonic()
        process = self.mesh.process(fault.victim)
        if process is None:
            message = f"{fault.victim} is ready and has no process"
            raise RuntimeError(message)
        match fault.kind:
            case Kind.KILL:
                process.signal(signal.SIGKILL)
            case Kind.RESTART:
                process.signal(signal.SIGTERM)
            case Kind.FREEZE:
                process.signal(signal.SIGSTOP)
                try:
                    await asyncio.sleep(fault.lasts)
                finally:
                    process.signal(signal.SIGCONT)
            case Kind.WIPE:
                process.signal(signal.SIGSTOP)
                # It cannot write meanwhile, and what it held in memory dies with it.
                await asyncio.to_thread(shutil.rmtree, self.mesh.jetstream, ignore_errors=True)
                process.signal(signal.SIGKILL)
            case Kind.FULL:
                with disk.full(process):
                    await asyncio.sleep(fault.lasts)
                # A store that met a full disk goes on refusing, whatever room there is, until it is started anew: so
                # does whoever makes room for one.
                self._hit_at[fault.victim] = time.monotonic()
                process.signal(signal.SIGTERM)
                if not await asyncio.to_thread(process.wait, _STOP_SECONDS):
                    process.signal(signal.SIGKILL)

    async def _ready(self, part: str) -> bool:
        """Wait until the victim of an earlier fault is back."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_READY_SECONDS):
                while not self.mesh.ready(part) or self._tired(part):  # noqa: ASYNC110 - the state is a file
                    await asyncio.sleep(_POLL_SECONDS)
                return True
        return False

    def _tired(self, part: str) -> bool:
        return time.monotonic() < self._hit_at.get(part, 0.0) + _REST_SECONDS

    async def heal(self, parts: Sequence[str]) -> None:
        """Wait until everything is ready again; raises TimeoutError."""
        for part in parts:
            process = self.mesh.process(part)
            if process is not None:
                process.signal(signal.SIGCONT)
        async with asyncio.timeout(_READY_SECONDS):
            while not all(self.mesh.ready(part) for part in parts):  # noqa: ASYNC110 - the state is a file
                await asyncio.sleep(_POLL_SECONDS)
