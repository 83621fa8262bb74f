"""A mesh of its own, whose ways to Postgres, NATS and S3 lead through proxies."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from loremesh_cli.mesh import credentials, nats, postgres, state
from loremesh_cli.mesh.credentials import Credentials
from loremesh_cli.mesh.home import Home
from loremesh_cli.mesh.plan import OUTSIDE
from loremesh_cli.mesh.ports import free_ports
from loremesh_cli.mesh.processes import ProcessId
from loremesh_cli.mesh.state import MeshState, Phase

from tests.ordeal.proxy import Proxy, standing_before

_UP_SECONDS = 300
_DOWN_SECONDS = 120
_SERVER_OF = {"postgres": "postgres", "nats": "nats", "s3": "seaweedfs-s3"}
_LOREMESH = Path(sys.executable).parent / "loremesh"


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """Where a mesh runs and how its stores are reached."""

    home: Home
    gateway_port: int
    secrets: Credentials
    proxies: Mapping[str, Proxy]

    @property
    def target(self) -> str:
        """host:port of the front door."""
        return f"127.0.0.1:{self.gateway_port}"

    @property
    def ports(self) -> Mapping[str, int]:
        """Where each server listens, past the proxies."""
        return self.state().ports

    @property
    def database_url(self) -> str:
        """A superuser's, past the proxy: what is read by it is not bound by row-level security."""
        return postgres.url(
            self.ports["postgres"], user=postgres.SUPERUSER, password=self.secrets.postgres, database=postgres.DATABASE
        )

    @property
    def jetstream(self) -> Path:
        """The broker's whole store."""
        return self.home.root / "nats" / "jetstream"

    def state(self) -> MeshState:
        """What the supervisor last said."""
        current = state.read(self.home.state)
        if current is None:
            message = "the mesh has no state"
            raise RuntimeError(message)
        return current

    def process(self, part: str) -> ProcessId | None:
        """The present process of a part."""
        return self.state().parts[part].process

    def ready(self, part: str) -> bool:
        """Whether the supervisor takes it for ready."""
        return self.state().parts[part].phase is Phase.READY

    async def stop(self) -> None:
        """Take it down; what it wrote stays."""
        await _loremesh("down", home=self.home, environment=dict(os.environ), seconds=_DOWN_SECONDS)


@asynccontextmanager
async def running(
    root: Path, *, lease: float, provider_url: str, provider_key: str, tool_address: str = ""
) -> AsyncIterator[Mesh]:
    """Start a mesh below `root`, with leases of so many seconds; it is taken down at the end."""
    home = Home(root)
    home.make()
    # The supervisor takes up the passwords which it finds; the ports it chooses itself, and the proxies look them up.
    secrets = credentials.load(home.secrets)
    gateway_port, *before = free_ports(1 + len(_SERVER_OF))
    async with AsyncExitStack() as stack:
        proxies = {
            name: await stack.enter_async_context(standing_before(port=free, behind=partial(_port_of, home, server)))
            for (name, server), free in zip(_SERVER_OF.items(), before, strict=True)
        }
        environment = {name: value for name, value in os.environ.items() if name not in OUTSIDE}
        environment |= _through(proxies, secrets) | _quick(lease)
        environment |= {"OPENAI_BASE_URL": provider_url, "OPENAI_API_KEY": provider_key, "AGENT_MODEL": "scripted"}
        environment |= {"AGENT_TOOL_HOSTS": tool_address}
        mesh = Mesh(home=home, gateway_port=gateway_port, secrets=secrets, proxies=proxies)
        up = ("up", "--no-tour", "--json", "--port", str(gateway_port))
        try:
            await _loremesh(*up, home=home, environment=environment, seconds=_UP_SECONDS)
            yield mesh
        finally:
            await mesh.stop()


def _port_of(home: Home, server: str) -> int:
    """Raises ConnectionRefusedError while the supervisor has not said where the server is to listen."""
    current = state.read(home.state)
    if current is None or server not in current.ports:
        message = f"{server} has no port yet"
        raise ConnectionRefusedError(message)
    return current.ports[server]


def _through(proxies: Mapping[str, Proxy], secrets: Credentials) -> dict[str, str]:
    """The services' own names for where their stores are; the unprefixed ones would make the stores outside ones."""
    ports = {name: proxy.port for name, proxy in proxies.items()}
    return {
        "INGESTION_NATS_URL": nats.url(ports["nats"], password=secrets.nats),
        "AGENT_NATS_URL": nats.url(ports["nats"], password=secrets.nats),
        "CREW_NATS_URL": nats.url(ports["nats"], password=secrets.nats),
        "INGESTION_S3_ENDPOINT_URL": f"http://127.0.0.1:{ports['s3']}",
    } | {
        f"{service.upper()}_DATABASE_URL": postgres.url(
            ports["postgres"], user=service, password=getattr(secrets, service), database=postgres.DATABASE
        )
        for service in ("ingestion", "agent", "crew")
    }


def _quick(lease: float) -> dict[str, str]:
    seconds = str(lease)
    return {f"{service}_JOB_LEASE_SECONDS": seconds for service in ("INGESTION", "AGENT", "CREW")}


async def _loremesh(*arguments: str, home: Home, environment: Mapping[str, str], seconds: float) -> None:
    process = await asyncio.create_subprocess_exec(
        str(_LOREMESH),
        *arguments,
        "--data-dir",
        str(home.root),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(seconds):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    if process.returncode:
        raise RuntimeError(output.decode(errors="replace")[-3000:])
