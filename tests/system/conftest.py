"""One whole mesh, as `loremesh up` starts it, for all system tests.

To try a test on a mesh that runs already, name its data directory: SYSTEM_TEST_HOME=.loremesh pytest ...
"""

import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from loremesh_agent.testing.http import ProviderDouble, background_double
from loremesh_cli.mesh import state
from loremesh_cli.mesh.home import Home
from loremesh_cli.mesh.plan import OUTSIDE
from loremesh_cli.mesh.ports import free_ports

START_SECONDS = 300
INDEX_SECONDS = 120


@dataclass(frozen=True)
class Mesh:
    """A mesh that runs."""

    url: str
    home: Home
    is_given: bool = False

    @property
    def target(self) -> str:
        return self.url.removeprefix("http://")

    def state(self) -> state.MeshState:
        current = state.read(self.home.state)
        assert current is not None
        return current


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Made-up requests come last: those that delete may hit what other tests look at."""
    items.sort(key=lambda item: item.path.name == "test_openapi.py")


@pytest.fixture(scope="session")
def _playing() -> Iterator[dict[str, ProviderDouble]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(background_double()) for name in ("openai", "anthropic", "cohere")}


@pytest.fixture(scope="session")
def doubles(mesh: Mesh, _playing: dict[str, ProviderDouble]) -> dict[str, ProviderDouble]:
    """Of the model providers, by name; what the mesh asks unless it asks its own model."""
    if mesh.is_given:
        pytest.skip("a mesh that runs already asks providers of its own")
    return _playing


@pytest.fixture(scope="session")
def mesh(_playing: dict[str, ProviderDouble]) -> Iterator[Mesh]:
    if running := os.environ.get("SYSTEM_TEST_HOME"):
        home = Home(Path(running))
        current = state.read(home.state)
        assert current is not None, f"no mesh has run in {running}"
        yield Mesh(url=current.gateway_url, home=home, is_given=True)
        return
    (port,) = free_ports(1)
    loremesh = Path(sys.executable).parent / "loremesh"
    environment = {name: value for name, value in os.environ.items() if name not in OUTSIDE}
    environment["AGENT_PROVIDER"] = "local"
    for name, double in _playing.items():
        path = "/v1" if name == "openai" else ""
        environment |= {f"AGENT_{name.upper()}_API_KEY": "k", f"AGENT_{name.upper()}_BASE_URL": double.url + path}
    with tempfile.TemporaryDirectory(prefix="loremesh-system-", ignore_cleanup_errors=True) as folder:
        where = ["--data-dir", folder]
        up = [loremesh, "up", "--no-tour", "--json", "--port", str(port), *where]
        done = subprocess.run(up, env=environment, capture_output=True, text=True, check=False, timeout=START_SECONDS)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        try:
            yield Mesh(url=f"http://127.0.0.1:{port}", home=Home(Path(folder)))
        finally:
            subprocess.run([loremesh, "down", *where], env=environment, check=False, timeout=120)


@pytest.fixture(scope="session")
def http(mesh: Mesh) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=mesh.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def channel(mesh: Mesh) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(mesh.target) as channel:
        yield channel


@pytest.fixture(scope="session")
def settled(http: httpx.Client) -> Callable[[str], dict[str, Any]]:
    def wait(document_id: str) -> dict[str, Any]:
        """The document once it is READY or FAILED."""
        end = time.monotonic() + INDEX_SECONDS
        while time.monotonic() < end:
            document: dict[str, Any] = http.get(f"/api/v1/documents/{document_id}").raise_for_status().json()
            if document["state"] in ("DOCUMENT_STATE_READY", "DOCUMENT_STATE_FAILED"):
                return document
            time.sleep(0.1)
        raise AssertionError(f"document {document_id} is still {document['state']} after {INDEX_SECONDS} s")

    return wait


class Library(dict[str, str]):
    """A vector store of three documents: their ids by title."""

    store = f"library-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def library(http: httpx.Client, settled: Callable[[str], dict[str, Any]]) -> Library:
    ids = Library()
    http.post("/api/v1/vector_stores", json={"id": ids.store, "display_name": "Library"}).raise_for_status()
    texts = {
        "Lighthouses": "The lighthouse of Genoa, called the Lanterna, was built in 1543 and is 77 metres high.",
        "Bees": "A honey bee colony holds about forty thousand workers in summer. The queen lays 1500 eggs a day.",
        "ไทย": "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย 🐘 มีประชากรมากกว่าแปดล้านคน",
    }
    for number, (title, content) in enumerate(texts.items()):
        body = {"title": title, "content": content, "vector_store_id": ids.store, "attributes": {"number": number}}
        ids[title] = str(http.post("/api/v1/documents", json=body).raise_for_status().json()["id"])
    assert {settled(each)["state"] for each in ids.values()} == {"DOCUMENT_STATE_READY"}
    return ids
