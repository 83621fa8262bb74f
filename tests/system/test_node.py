"""A client in another language, its stubs made from the contracts at run time."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from loremesh_edge.contracts import descriptor_set

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the client and what it needs, from npm."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("this machine has no Node.js")
    folder = tmp_path_factory.mktemp("node")
    shutil.copytree(Path(__file__).parent / "node", folder, dirs_exist_ok=True)
    install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, check=False, timeout=150)
    if done.returncode != 0:
        pytest.skip(f"npm cannot install the client's packages: {done.stderr.strip().splitlines()[-1:]}")
    (folder / "descriptor.binpb").write_bytes(descriptor_set().SerializeToString())
    return folder


@pytest.fixture(scope="module")
def result(client: Path, mesh: Any) -> dict[str, Any]:
    command = ["node", "main.js", mesh.target, "descriptor.binpb"]
    done = subprocess.run(command, cwd=client, capture_output=True, text=True, check=False, timeout=170)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_it_uploads_watches_and_finds_a_document(result: dict[str, Any]) -> None:
    assert result["document"]["title"] == "From Node"
    assert result["document"]["size_bytes"] == str(len("Narwhals have one long tusk. ✓".encode()))
    assert result["watched"] == "ready"
    assert result["document"]["id"] in result["found"]


def test_it_chats_in_a_stream_which_ends(result: dict[str, Any]) -> None:
    assert result["chat"]["first"] == "run_started"
    assert result["chat"]["last"] in ("completed", "incomplete")


def test_it_is_told_why_it_is_refused(result: dict[str, Any]) -> None:
    assert result["refusal"]["code"] == 3
    assert "top_k" in result["refusal"]["details"]
    assert result["refusal"]["has_status"]
