"""The supervisor with small programs of the test's own."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from loremesh_cli.mesh import keeper, leftovers, state, supervisor
from loremesh_cli.mesh.home import Home
from loremesh_cli.mesh.processes import ProcessId
from loremesh_cli.mesh.program import Program
from loremesh_cli.mesh.state import MeshState, Part, Phase
from loremesh_cli.mesh.supervisor import Supervisor
from loremesh_cli.mesh.unit import Unit

pytestmark = pytest.mark.conformance

SECONDS = 20


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.make()
    home.lock.touch()
    return home


def program(name: str, source: str, *, ready: Callable[[], bool] = lambda: True, stop_seconds: float = 5) -> Program:
    return Program(name=name, command=(sys.executable, "-c", source), ready=ready, stop_seconds=stop_seconds)


def lasting(name: str, *needs: str) -> Unit:
    return Unit(program=program(name, "import time; print('up', flush=True); time.sleep(60)"), needs=needs)


def step(name: str, source: str, *needs: str) -> Unit:
    return Unit(program=program(name, source), needs=needs, once=True)


@asynccontextmanager
async def running(units: Sequence[Unit], home: Home) -> AsyncIterator[MeshState]:
    mesh = MeshState()
    ours = Supervisor(units, home=home, state=mesh)
    async with asyncio.timeout(SECONDS * 2), asyncio.TaskGroup() as group:
        run = group.create_task(ours.run())
        try:
            yield mesh
        finally:
            ours.stop()
            await run


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - what is awaited is another process
            await asyncio.sleep(0.02)


def _journaling(name: str, journal: Path) -> str:
    """A program which writes down when it starts and when it is told to stop."""
    return (
        "import signal, sys, time\n"
        f"say = lambda word: open({str(journal)!r}, 'a').write(word + ' {name}\\n')\n"
        "signal.signal(signal.SIGTERM, lambda *_: (say('stop'), sys.exit()))\n"
        "say('start'); time.sleep(60)"
    )


async def test_units_start_after_what_they_need_and_stop_before_it(home: Home, tmp_path: Path) -> None:
    journal = tmp_path / "journal"

    def unit(name: str, *needs: str) -> Unit:
        def ready() -> bool:
            return journal.exists() and f"start {name}" in journal.read_text()

        return Unit(program=program(name, _journaling(name, journal), ready=ready), needs=needs)

    async with running([unit("store"), unit("service", "store"), unit("door", "service")], home) as mesh:
        await until(lambda: mesh.phase is Phase.READY)
    wanted = ["start store", "start service", "start door", "stop door", "stop service", "stop store"]
    assert journal.read_text().splitlines() == wanted


async def test_what_a_unit_uses_may_be_late_and_outlives_it(home: Home, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    late = Unit(program=program("model", _journaling("model", journal), ready=journal.exists))
    user = Unit(program=program("agent", _journaling("agent", journal), ready=journal.exists), uses=("model",))
    async with running([user, late], home) as mesh:
        await until(lambda: mesh.phase is Phase.READY and journal.read_text().count("start") == 2)
    assert journal.read_text().splitlines()[2:] == ["stop agent", "stop model"]


async def test_a_killed_process_is_replaced_and_that_is_said(home: Home) -> None:
    async with running([lasting("server")], home) as mesh:
        part = mesh.parts["server"]
        await until(lambda: mesh.phase is Phase.READY)
        first = part.process
        assert first is not None
        first.signal(signal.SIGKILL)
        await until(lambda: part.phase is Phase.READY and part.process != first)
        assert (part.restarts, part.message) == (1, "was ended by signal 9")


async def test_a_program_that_crashes_at_once_is_given_up_with_its_last_words(home: Home) -> None:
    crashing = Unit(program=program("server", "raise SystemExit('no such setting')", ready=lambda: False))
    async with running([crashing, lasting("other", "server")], home) as mesh:
        await until(lambda: mesh.phase is Phase.FAILED)
        assert "5 times in a row" in mesh.parts["server"].message
        assert mesh.parts["server"].message.endswith("no such setting")
        await until(lambda: bool(mesh.parts["other"].message))
        assert mesh.parts["other"].message == "needs server"


async def test_a_program_that_never_gets_ready_is_given_up_however_long_each_try_takes(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "QUICK_SECONDS", 0.0)
    slow = Unit(program=program("server", "import time; time.sleep(0.1); raise SystemExit(1)", ready=lambda: False))
    async with running([slow], home) as mesh:
        await until(lambda: mesh.phase is Phase.FAILED)


async def test_a_program_killed_again_and_again_after_it_was_ready_is_not_given_up(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "QUICK_SECONDS", 0.0)
    async with running([lasting("server")], home) as mesh:
        part = mesh.parts["server"]
        for number in range(keeper.QUICK_CRASHES + 1):
            await until(lambda: part.phase is Phase.READY)
            assert part.restarts == number
            assert part.process is not None
            part.process.signal(signal.SIGKILL)
            await until(lambda: part.phase is not Phase.READY)


async def test_a_program_that_is_not_there_is_given_up_and_stops_nothing_else(home: Home) -> None:
    missing = Unit(program=Program(name="missing", command=("/no/such/program",), ready=lambda: False))
    async with running([missing, lasting("server")], home) as mesh:
        await until(lambda: mesh.parts["missing"].phase is Phase.FAILED)
        assert mesh.parts["server"].phase is Phase.READY


async def test_what_needs_a_failed_step_is_not_started(home: Home) -> None:
    async with running([step("migrate", "raise SystemExit(3)"), lasting("service", "migrate")], home) as mesh:
        await until(lambda: bool(mesh.parts["service"].message))
        assert mesh.parts["migrate"].phase is Phase.FAILED
        assert mesh.parts["service"].process is None


async def test_a_process_deaf_to_its_signal_is_killed_when_its_time_is_up(home: Home) -> None:
    source = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    log = home.log("deaf")
    deaf = Unit(program=program("deaf", source, ready=lambda: "deaf" in log.read_text(), stop_seconds=0.3))
    async with running([deaf], home) as mesh:
        await until(lambda: mesh.phase is Phase.READY)
        process = mesh.parts["deaf"].process
    assert process is not None
    assert not process.alive()


async def test_children_of_a_killed_process_do_not_outlive_it(home: Home) -> None:
    source = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    log = home.log("parent")
    parent = Unit(program=program("parent", source, ready=lambda: log.read_text().endswith("\n")))
    async with running([parent], home) as mesh:
        await until(lambda: mesh.phase is Phase.READY)
        child = ProcessId.of(int(log.read_text()))
        assert child is not None
        assert mesh.parts["parent"].process is not None
        mesh.parts["parent"].process.signal(signal.SIGKILL)
        await until(lambda: not child.alive())


async def test_a_stop_during_the_start_ends_everything(home: Home) -> None:
    slow = Unit(program=program("slow", "import time; time.sleep(60)", ready=lambda: False))
    async with running([lasting("store"), slow, lasting("door", "slow")], home) as mesh:
        await until(lambda: mesh.parts["slow"].process is not None)
    assert mesh.phase is Phase.STOPPED
    assert [part for part in mesh.parts.values() if part.process] == []


async def test_a_mesh_whose_data_directory_is_removed_stops(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FILES_SECONDS", 0.1)
    async with running([lasting("server")], home) as mesh:
        await until(lambda: mesh.phase is Phase.READY)
        home.lock.unlink()
        await until(lambda: mesh.phase is Phase.STOPPED)


async def test_what_a_killed_supervisor_left_running_is_ended_and_strangers_are_not(home: Home) -> None:
    ours = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import time; time.sleep(60)", start_new_session=True
    )
    identity, us = ProcessId.of(ours.pid), ProcessId.of(os.getpid())
    assert identity is not None
    assert us is not None
    reused = ProcessId(pid=us.pid, started=us.started - 1)
    parts = {"server": Part(process=identity), "long ago": Part(process=reused)}
    state.write(home.state, MeshState(parts=parts))
    ended = await asyncio.to_thread(leftovers.end, home)
    assert ended == ["server"]
    assert await ours.wait() != 0
