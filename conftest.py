"""Real servers for every package's tests: each starts at its first use and is stopped at the end of the session."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from loremesh_cli.mesh import local_model, nats, postgres, seaweedfs
from loremesh_cli.mesh.ports import free_ports
from loremesh_cli.mesh.running import running
from loremesh_cli.mesh.seaweedfs import S3Access

# Servers are forked from a process with gRPC in it, whose own fork handlers now and then crash the child; read at its
# first use, so here is early enough.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


@pytest.fixture(scope="session")
def servers_directory() -> Iterator[Path]:
    """Data of the servers; not pytest's own temporary folder, which keeps three sessions."""
    directory = Path(tempfile.mkdtemp(prefix="loremesh-tests-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_url(servers_directory: Path) -> Iterator[str]:
    """A superuser's connection string to an empty PostgreSQL."""
    directory, password, (port,) = servers_directory / "postgres", secrets.token_urlsafe(), free_ports(1)
    postgres.create(directory, password=password)
    with running(postgres.program(directory, port=port, durable=False), log=servers_directory / "postgres.log"):
        yield postgres.url(port, user=postgres.SUPERUSER, password=password)


@pytest.fixture(scope="session")
def nats_url(servers_directory: Path) -> Iterator[str]:
    """The address of a nats-server with JetStream."""
    password, (port,) = secrets.token_urlsafe(), free_ports(1)
    with running(
        nats.program(servers_directory / "nats", port=port, password=password), log=servers_directory / "nats.log"
    ):
        yield nats.url(port, password=password)


@pytest.fixture(scope="session")
def s3(servers_directory: Path) -> Iterator[S3Access]:
    """An S3 bucket and the keys to it."""
    ports = free_ports(len(seaweedfs.port_names()))
    keys = seaweedfs.access(ports, access_key_id="tests", secret_access_key=secrets.token_urlsafe(), bucket="loremesh")
    with running(
        seaweedfs.program(servers_directory / "seaweedfs", ports=ports, keys=keys), log=servers_directory / "s3.log"
    ):
        yield keys


@pytest.fixture(scope="session")
def local_model_url(servers_directory: Path) -> Iterator[str]:
    """The base URL of the local model's OpenAI-compatible server."""
    (port,) = free_ports(1)
    with running(local_model.program(port=port), log=servers_directory / "local-model.log"):
        yield local_model.url(port)
