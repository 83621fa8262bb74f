"""Decides what a mesh consists of: which servers are its own, which are the caller's, and who needs whom."""

import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from loremesh_cli.mesh import envoy, local_model, nats, postgres, seaweedfs, services
from loremesh_cli.mesh.ports import LOOPBACK
from loremesh_cli.mesh.program import Program, plain_environment
from loremesh_cli.mesh.surroundings import Surroundings
from loremesh_cli.mesh.unit import Stamp, Unit

# A variable which names an outside server, and what of ours it makes needless.
OUTSIDE = {
    "DATABASE_URL": "postgres",
    "NATS_URL": "nats",
    "S3_ENDPOINT_URL": "seaweedfs",
    "OPENAI_BASE_URL": "local-model",
    "OPENAI_API_KEY": "local-model",
    "QDRANT_URL": "qdrant",
}
# What each waits for at its start, where the mesh has it.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "postgres": ("create-postgres",),
    "databases": ("postgres",),
    "migrate-ingestion": ("databases",),
    "migrate-agent": ("databases",),
    "migrate-crew": ("databases",),
    "ingestion": ("postgres", "nats", "migrate-ingestion"),
    "agent": ("postgres", "nats", "migrate-agent"),
    "crew": ("postgres", "nats", "migrate-crew"),
    "gateway": ("contracts", "configure-gateway", *services.SERVICES),
    "check": ("gateway", "seaweedfs", "local-model"),
}
# What may be late at its start and must outlive it, or work in hand could not be finished.
USES: Mapping[str, tuple[str, ...]] = {
    "ingestion": ("seaweedfs", "retrieval", "embedding"),
    "agent": ("local-model", "retrieval", "embedding"),
    "crew": ("agent",),
    "retrieval": ("embedding",),
}


def outside(caller: Mapping[str, str]) -> dict[str, str]:
    """Return what the caller's environment says to use instead of a server of ours; without user or password."""
    found: dict[str, str] = {}
    for variable, name in OUTSIDE.items():
        if value := caller.get(variable, ""):
            found.setdefault(name, urlsplit(value).netloc.rpartition("@")[2] or variable)
    if caller.get("AGENT_PROVIDER") == "local":
        found.pop("local-model", None)
    return found


def port_names() -> list[str]:
    """Return the name of every port a mesh may use beside its gateway's."""
    of_services = [name for service in services.SERVICES for name in (service, f"{service}-metrics")]
    return ["gateway-admin", "postgres", "nats", "local-model", *seaweedfs.port_names(), *of_services, "edge-websocket"]


@dataclass(frozen=True, slots=True)
class Plan:
    """A mesh to be."""

    surroundings: Surroundings

    def units(self) -> list[Unit]:
        """Return everything to run, without steps that were done already, each after what it needs."""
        absent = outside(self.surroundings.caller)
        found = [*self._stores(), *self._schemas(), *self._services(), *self._front_door()]
        found = [unit for unit in found if unit.name not in absent and not unit.done]
        names = {unit.name for unit in found}
        return [
            replace(unit, needs=tuple(each for each in NEEDS.get(unit.name, ()) if each in names)) for unit in found
        ]

    def _stores(self) -> Iterator[Unit]:
        around = self.surroundings
        root, ports, password = around.home.root, around.ports, around.credentials.nats
        if not postgres.exists(root / "postgres") and not around.caller.get("DATABASE_URL"):
            yield _step("create-postgres", "loremesh_cli.mesh.postgres", str(root))
        yield _server(postgres.program(root / "postgres", port=ports["postgres"]), ports["postgres"])
        yield _server(nats.program(root / "nats", port=ports["nats"], password=password), ports["nats"])
        s3_ports = [ports[name] for name in seaweedfs.port_names()]
        yield _server(seaweedfs.program(root / "seaweedfs", ports=s3_ports, keys=around.s3()), s3_ports[0])
        yield _server(local_model.program(port=ports["local-model"]), ports["local-model"])

    def _schemas(self) -> Iterator[Unit]:
        """Yield the steps that prepare the database; in a database of ours, once for each version of them."""
        around = self.surroundings
        create = () if around.caller.get("DATABASE_URL") else ("--create",)
        arguments = (str(around.home.root), *create)
        step = _step("databases", "loremesh_cli.mesh.databases", *arguments, **around.administrator())
        yield replace(step, stamp=self._stamp("databases", around.home.secrets.read_bytes()))
        for service in services.WITH_DATABASE:
            program = services.migration(service, environment=around.of_migration(service))
            yield Unit(program=program, once=True, stamp=self._stamp(program.name, services.migrations(service)))

    def _services(self) -> Iterator[Unit]:
        ports, caller = self.surroundings.ports, self.surroundings.caller
        for service in services.SERVICES:
            environment = self.surroundings.of_service(service)
            if "local-model" in outside(caller) and "LOCAL_MODEL_URL" not in caller:
                # A model that does not run is none to be asked.
                del environment["LOCAL_MODEL_URL"]
            program = services.program(service, ports=ports, environment=environment)
            yield _server(program, ports[service])

    def _front_door(self) -> Iterator[Unit]:
        home, ports = self.surroundings.home, self.surroundings.ports
        yield _step("contracts", "loremesh_edge.contracts", str(home.descriptor))
        yield _step("configure-gateway", "loremesh_cli.mesh.gateway", str(home.root))
        yield _server(envoy.program(home.envoy, admin_port=ports["gateway-admin"]), ports["gateway"])
        yield _step("check", "loremesh_cli.mesh.front_door", str(ports["gateway"]))

    def _stamp(self, name: str, made_of: bytes) -> Stamp | None:
        if self.surroundings.caller.get("DATABASE_URL"):
            return None
        # Beside the data they speak of, so that they go when these go.
        file = self.surroundings.home.root / "postgres" / f"{name}.stamp"
        return Stamp(file=file, text=hashlib.sha256(made_of).hexdigest())


def _server(program: Program, port: int) -> Unit:
    return Unit(program=program, address=f"{LOOPBACK}:{port}")


def _step(name: str, module: str, *arguments: str, **environment: str) -> Unit:
    command = (sys.executable, "-m", module, *arguments)
    program = Program(name=name, command=command, environment=plain_environment(**environment), start_seconds=120.0)
    return Unit(program=program, once=True)
