"""Ports, the state file, process identities, credentials: the small parts."""

import json
import os
import socket
import stat
from pathlib import Path

import pytest
from loremesh_cli.mesh import credentials, ports, state
from loremesh_cli.mesh.home import Home, HomeError
from loremesh_cli.mesh.processes import ProcessId
from loremesh_cli.mesh.state import MeshState, Part, Phase

pytestmark = pytest.mark.unit


def test_a_port_of_the_last_start_is_kept_while_it_is_free() -> None:
    (free,) = ports.free_ports(1)
    assert ports.choose(["nats"], earlier={"nats": free}) == {"nats": free}


def test_a_port_somebody_took_meanwhile_is_chosen_anew() -> None:
    with socket.create_server((ports.LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        assert ports.choose(["nats"], earlier={"nats": port})["nats"] != port


def test_no_port_is_given_twice_even_if_two_had_the_same() -> None:
    (free,) = ports.free_ports(1)
    chosen = ports.choose(["a", "b", "c"], earlier={"a": free, "b": free}, kept=[free])
    assert len(set(chosen.values()) | {free}) == 4


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    part = Part(phase=Phase.RESTARTING, process=ProcessId(pid=7, started=70), restarts=2, message="ended")
    written = MeshState(
        phase=Phase.READY, supervisor=ProcessId(pid=6, started=60), ports={"nats": 1}, parts={"a": part}
    )
    state.write(tmp_path / "mesh.json", written)
    assert state.read(tmp_path / "mesh.json") == written


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"phase": "odd", "supervisor": null, "parts": {}}'])
def test_a_broken_state_file_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "mesh.json").write_text(text)
    assert state.read(tmp_path / "mesh.json") is None


def test_a_process_number_given_to_another_process_is_not_the_same_process() -> None:
    us = ProcessId.of(os.getpid())
    assert us is not None
    assert us.alive()
    assert not ProcessId(pid=us.pid, started=us.started - 1).alive()


def test_passwords_stay_the_same_and_are_for_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    first = credentials.load(path)
    assert credentials.load(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(set(json.loads(path.read_text()).values())) == 10


def test_a_password_that_a_newer_version_wants_is_added_to_the_old_ones(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    path.write_text(json.dumps({"postgres": "old", "gone": "x"}))
    assert credentials.load(path).postgres == "old"
    assert json.loads(path.read_text())["postgres"] == "old"


def test_two_supervisors_cannot_hold_one_data_directory(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with home.held(), pytest.raises(HomeError, match="another mesh"), home.held():
        pass
    assert home.holder() is None


def test_the_holder_of_a_data_directory_is_known_and_forgotten(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with home.held():
        assert home.holder() == os.getpid()
    assert home.holder() is None


def test_a_new_data_directory_is_for_its_owner_alone(tmp_path: Path) -> None:
    home = Home(tmp_path / "new" / "home")
    home.make()
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700


def test_a_data_directory_below_a_file_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HomeError, match="--data-dir"):
        Home(tmp_path / "file" / "below").make()
