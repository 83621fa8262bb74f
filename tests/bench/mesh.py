"""A mesh of its own for a benchmark, with a paced model provider in place of the local model."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LOREMESH = Path(sys.executable).parent / "loremesh"


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass(frozen=True)
class Mesh:
    """Where a running mesh is."""

    port: int
    data: Path
    environment: dict[str, str]

    @property
    def url(self) -> str:
        """Of the gateway."""
        return f"http://127.0.0.1:{self.port}"

    def command(self, *arguments: str) -> Any:
        """What `loremesh ... --json` answers."""
        run = subprocess.run(
            [str(LOREMESH), *arguments, "--data-dir", str(self.data), "--json"],
            check=True,
            stdout=subprocess.PIPE,
            env=self.environment,
            timeout=300,
        )
        return json.loads(run.stdout)

    def up(self) -> float:
        """Start it; seconds until it was ready."""
        started = time.perf_counter()
        self.command("up", "--no-tour", "--port", str(self.port))
        return time.perf_counter() - started

    def down(self) -> None:
        """Stop it."""
        self.command("down")


@contextmanager
def provider() -> Iterator[str]:
    """A paced provider in a process of its own; yields its base URL."""
    port = free_port()
    process = subprocess.Popen([sys.executable, str(HERE / "provider.py"), str(port)])
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def running(data: Path, *, base_url: str) -> Iterator[tuple[Mesh, float]]:
    """A mesh over `data` whose agent asks `base_url`; yields it and the seconds its first start took."""
    environment = {**os.environ, "OPENAI_API_KEY": "paced", "OPENAI_BASE_URL": base_url, "AGENT_MODEL": "paced"}
    environment["CREW_RUNS_AT_ONCE"] = "2500"
    mesh = Mesh(port=free_port(), data=data, environment=environment)
    first = mesh.up()
    try:
        yield mesh, first
    finally:
        mesh.down()
