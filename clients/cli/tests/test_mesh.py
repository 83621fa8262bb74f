"""A whole mesh on this machine: up, killed, up again, down."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from loremesh_cli.mesh import lifecycle, state
from loremesh_cli.mesh.home import Home
from loremesh_cli.mesh.plan import OUTSIDE
from loremesh_cli.mesh.ports import free_ports
from loremesh_cli.mesh.processes import ProcessId
from loremesh_cli.mesh.program import script
from loremesh_cli.mesh.state import MeshState, Phase

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

IDLE_BYTES = 1200 * 1024 * 1024
LISTENING = "0A"
LOOPBACKS = {
    "0100007F",
    "00000000000000000000000001000000",
    "0000000000000000FFFF00000100007F",
}  # the last: 127.0.0.1 as IPv6


@dataclass
class Mesh:
    """The command line on one data directory."""

    home: Home
    port: int = field(default_factory=lambda: free_ports(1)[0])

    def run(self, *arguments: str, check: bool = True) -> Any:
        command = [script("loremesh"), *arguments, "--json"]
        environment = {name: value for name, value in os.environ.items() if name not in OUTSIDE}
        environment |= {"LOREMESH_HOME": str(self.home.root)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return json.loads(done.stdout) if done.stdout else {}

    def up(self) -> Any:
        return self.run("up", "--no-tour", "--port", str(self.port))

    def state(self) -> MeshState:
        read = state.read(self.home.state)
        assert read is not None
        return read

    def processes(self) -> dict[str, ProcessId]:
        return {name: part.process for name, part in self.state().parts.items() if part.process}

    def wait_for_another(self, name: str, before: ProcessId, *, seconds: float = 60) -> None:
        """Wait until the whole mesh is ready with another process of this name."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            now = self.state()
            if now.phase is Phase.READY and now.parts[name].process != before:
                return
            time.sleep(0.1)
        pytest.fail(f"not ready: {now.parts}")


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    directory = Path(tempfile.mkdtemp(prefix="loremesh-mesh-"))
    mesh = Mesh(Home(directory))
    try:
        mesh.up()
        yield mesh
    finally:
        if found := lifecycle.find(mesh.home):
            lifecycle.stop(found)
        lifecycle.end_leftovers(mesh.home)
        shutil.rmtree(directory)


def listening_addresses(pids: Sequence[int]) -> set[str]:
    """The addresses, in the kernel's hexadecimal, on which processes listen for TCP."""
    links = (link for pid in pids for link in Path(f"/proc/{pid}/fd").iterdir())
    inodes = {str(link.readlink()).removeprefix("socket:[").rstrip("]") for link in links if link.is_symlink()}
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == LISTENING and row[9] in inodes}


def test_everything_is_ready_and_the_status_says_so(mesh: Mesh) -> None:
    status = mesh.run("status")
    assert status["phase"] == "ready"
    assert status["front_door_ready"] is True
    assert status["url"] == f"http://127.0.0.1:{mesh.port}"
    assert {each["phase"] for each in status["processes"]} == {"ready"}


def test_an_idle_mesh_without_its_model_takes_little_memory(mesh: Mesh) -> None:
    status = mesh.run("status")
    counted = [each for each in status["processes"] if each["name"] != "local-model"]
    assert sum(each["memory_bytes"] for each in (*counted, status["supervisor"])) <= IDLE_BYTES


def test_nothing_listens_beyond_loopback(mesh: Mesh) -> None:
    pids = [process.pid for process in mesh.processes().values()]
    assert listening_addresses(pids) <= LOOPBACKS


def test_the_doctor_finds_nothing_to_change(mesh: Mesh) -> None:
    outcomes = {finding["check"]: finding["outcome"] for finding in mesh.run("doctor")["findings"]}
    assert "failed" not in outcomes.values()
    assert outcomes["front door"] == "ok"


def test_starting_a_mesh_that_is_up_changes_nothing(mesh: Mesh) -> None:
    before = mesh.processes()
    assert mesh.up()["phase"] == "ready"
    assert mesh.processes() == before


def test_a_taken_port_is_named(mesh: Mesh, tmp_path: Path) -> None:
    said = Mesh(Home(tmp_path)).run("up", "--port", str(mesh.port), check=False)
    assert said["error"]["reason"] == "PORT_TAKEN"
    assert str(mesh.port) in said["error"]["message"]


def test_a_document_goes_in_and_is_found(mesh: Mesh, tmp_path: Path) -> None:
    note = tmp_path / "harbour.md"
    note.write_text("# The harbour\n\nThe lighthouse of Port Ellery was lit for the first time in 1843.")
    url = f"http://127.0.0.1:{mesh.port}"
    (file,) = mesh.run("ingest", str(note), "--url", url)["files"]
    assert file["outcome"] == "ready"
    found = mesh.run("search", "When was the lighthouse lit?", "--url", url)["results"]
    assert found[0]["document_id"] == file["document_id"]
    assert mesh.run("ingest", str(note), "--url", url)["files"][0]["outcome"] == "known"


@pytest.mark.parametrize("name", ["nats", "postgres", "ingestion", "gateway"])
def test_a_killed_process_comes_back(mesh: Mesh, name: str) -> None:
    before = mesh.processes()[name]
    before.signal(signal.SIGKILL)
    mesh.wait_for_another(name, before)
    assert mesh.state().parts[name].restarts >= 1


def test_a_second_mesh_runs_beside_the_first(mesh: Mesh) -> None:
    directory = Path(tempfile.mkdtemp(prefix="loremesh-second-"))
    second = Mesh(Home(directory))
    try:
        assert second.up()["phase"] == "ready"
        assert mesh.run("status")["phase"] == "ready"
        assert mesh.run("documents", "list", "--url", f"http://127.0.0.1:{second.port}")["documents"] == []
        assert second.run("down")["stopped"] is True
    finally:
        lifecycle.end_leftovers(second.home)
        shutil.rmtree(directory)


def test_after_a_killed_supervisor_the_next_start_takes_over_and_keeps_the_data(mesh: Mesh) -> None:
    before = mesh.processes()
    supervisor = mesh.state().supervisor
    assert supervisor is not None
    supervisor.signal(signal.SIGKILL)
    assert supervisor.wait(5)
    assert mesh.up()["phase"] == "ready"
    assert not [name for name, process in before.items() if process.alive()]
    found = mesh.run("search", "When was the lighthouse lit?", "--url", f"http://127.0.0.1:{mesh.port}")["results"]
    assert "1843" in found[0]["content"]


def test_down_ends_every_process(mesh: Mesh) -> None:
    before = mesh.processes()
    assert mesh.run("down")["stopped"] is True
    assert not [name for name, process in before.items() if process.alive()]
    assert mesh.run("status", check=False)["phase"] == "stopped"


def test_a_mesh_in_the_foreground_stops_when_it_is_told_to(tmp_path: Path) -> None:
    home, (port,) = Home(tmp_path / "home"), free_ports(1)
    command = [script("loremesh"), "up", "--foreground", "--no-tour", "--port", str(port), "--data-dir", str(home.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as foreground:
        assert foreground.stdout is not None
        assert any("Ctrl-C stops the mesh" in line for line in foreground.stdout)
        foreground.send_signal(signal.SIGINT)
        rest = foreground.stdout.read()
        assert foreground.wait(60) == 0, rest
    assert lifecycle.find(home) is None
