"""Runs the units of a mesh: each starts after what it needs and stops before it."""

import asyncio
import logging
import signal
from collections.abc import Sequence

from loremesh_cli.mesh.home import Home
from loremesh_cli.mesh.keeper import Keeper
from loremesh_cli.mesh.logfiles import trim
from loremesh_cli.mesh.state import GOOD, MeshState, Part, Phase, write
from loremesh_cli.mesh.unit import Unit

FILES_SECONDS = 10.0

logger = logging.getLogger("mesh")


class Supervisor:
    """Runs units until it is told to stop, and publishes how they do after every change."""

    def __init__(self, units: Sequence[Unit], *, home: Home, state: MeshState) -> None:
        self._units = {unit.name: unit for unit in units}
        self._home = home
        self._state = state
        self._stop = asyncio.Event()
        self._stopped = {unit.name: asyncio.Event() for unit in units}
        state.parts = {unit.name: Part(address=unit.address) for unit in units}
        self._keepers = {unit.name: self._keeper(unit) for unit in units}

    def stop(self) -> None:
        """Begin to stop everything; `run` returns when that is done."""
        self._stop.set()

    async def run(self) -> None:
        """Start everything, keep it running, and on `stop` (or SIGTERM, SIGINT) end it in the reverse order."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        self._publish()
        async with asyncio.TaskGroup() as group:
            starts = [group.create_task(self._live(unit)) for unit in self._units.values()]
            files = group.create_task(self._look_after_files())
            await self._stop.wait()
            self._publish()
            logger.info("stopping")
            async with asyncio.TaskGroup() as stops:
                for unit in self._units.values():
                    stops.create_task(self._end(unit))
            files.cancel()
            for start in starts:
                start.cancel()
        self._state.phase = Phase.STOPPED
        self._write()
        logger.info("stopped")

    def _keeper(self, unit: Unit) -> Keeper:
        return Keeper(
            unit.program, part=self._state.parts[unit.name], log=self._home.log(unit.name), changed=self._publish
        )

    async def _live(self, unit: Unit) -> None:
        keeper = self._keepers[unit.name]
        for name in unit.needs:
            await self._keepers[name].settled.wait()
        missing = [name for name in unit.needs if self._state.parts[name].phase not in GOOD]
        if missing:
            keeper.part.message = f"needs {', '.join(missing)}"
            keeper.settled.set()
        elif unit.once:
            await keeper.run_once()
            if unit.stamp and keeper.part.phase is Phase.DONE:
                unit.stamp.put()
        else:
            await keeper.keep()

    async def _end(self, unit: Unit) -> None:
        for other in self._units.values():
            if unit.name in (*other.needs, *other.uses):
                await self._stopped[other.name].wait()
        await self._keepers[unit.name].stop()
        self._stopped[unit.name].set()

    async def _look_after_files(self) -> None:
        """Keep the logs small; stop when the data directory was removed, for nobody could find this mesh any more."""
        while True:
            await asyncio.sleep(FILES_SECONDS)
            if not self._home.lock.exists():
                logger.error("%s is gone", self._home.root)
                self.stop()
                return
            await asyncio.to_thread(trim, self._home.logs)

    def _publish(self) -> None:
        self._state.phase = self._phase()
        self._write()

    def _write(self) -> None:
        try:
            write(self._home.state, self._state)
        except OSError as error:  # a full disk must not take down what still runs
            logger.warning("cannot write %s: %s", self._home.state, error.strerror)

    def _phase(self) -> Phase:
        phases = {part.phase for part in self._state.parts.values()}
        if self._stop.is_set():
            return Phase.STOPPING
        if Phase.FAILED in phases:
            return Phase.FAILED
        if phases <= GOOD:
            return Phase.READY
        return Phase.RESTARTING if Phase.RESTARTING in phases else Phase.STARTING
