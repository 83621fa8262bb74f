"""Decides what a mesh consists of: which servers are its own, which are the caller's, and who needs whom."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from loremesh_cli.mesh import envoy, local_model, nats, postgres, seaweedfs, services
from loremesh_cli.mesh.credentials import Credentials
from loremesh_cli.mesh.home import Home
from loremesh_cli.mesh.ports import LOOPBACK
from loremesh_cli.mesh.program import Program, plain_environment
from loremesh_cli.mesh.unit import Unit

BUCKET = "loremesh"
# A variable which names an outside server, and what of ours it makes needless.
OUTSIDE = {
    "DATABASE_URL": "postgres",
    "NATS_URL": "nats",
    "S3_ENDPOINT_URL": "seaweedfs",
    "OPENAI_BASE_URL": "local-model",
    "OPENAI_API_KEY": "local-model",
    "QDRANT_URL": "qdrant",
}


def outside(caller: Mapping[str, str]) -> dict[str, str]:
    """Return what the caller's environment says to use instead of a server of ours; without user or password."""
    found: dict[str, str] = {}
    for variable, name in OUTSIDE.items():
        if value := caller.get(variable, ""):
            found.setdefault(name, urlsplit(value).netloc.rpartition("@")[2] or variable)
    return found


def port_names() -> list[str]:
    """Return the name of every port a mesh may use beside its gateway's."""
    of_services = [name for service in services.SERVICES for name in (service, f"{service}-metrics")]
    return ["gateway-admin", "postgres", "nats", "local-model", *seaweedfs.port_names(), *of_services]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A mesh to be: `ports` holds one for each of `port_names()` and `gateway`; `caller` is whose `up` it is."""

    home: Home
    ports: Mapping[str, int]
    credentials: Credentials
    caller: Mapping[str, str]

    def units(self) -> list[Unit]:
        """Return everything to run."""
        stores = list(self._stores())
        return [*stores, *self._services(tuple(unit.name for unit in stores)), *self._front_door()]

    def _stores(self) -> Iterator[Unit]:
        absent = outside(self.caller)
        if "postgres" not in absent:
            yield from self._postgres()
        yield self._databases(("postgres",) if "postgres" not in absent else ())
        if "nats" not in absent:
            port = self.ports["nats"]
            directory = self.home.root / "nats"
            yield Unit(
                program=nats.program(directory, port=port, password=self.credentials.nats), address=_address(port)
            )
        if "seaweedfs" not in absent:
            ports = [self.ports[name] for name in seaweedfs.port_names()]
            program = seaweedfs.program(self.home.root / "seaweedfs", ports=ports, keys=self._keys())
            yield Unit(program=program, address=_address(ports[0]))
        if "local-model" not in absent:
            port = self.ports["local-model"]
            yield Unit(program=local_model.program(port=port), address=_address(port))

    def _postgres(self) -> Iterator[Unit]:
        directory, port = self.home.root / "postgres", self.ports["postgres"]
        needs: tuple[str, ...] = ()
        if not postgres.exists(directory):
            yield Unit(program=_step("create-postgres", "loremesh_cli.mesh.postgres", str(self.home.root)), once=True)
            needs = ("create-postgres",)
        yield Unit(program=postgres.program(directory, port=port), needs=needs, address=_address(port))

    def _databases(self, needs: tuple[str, ...]) -> Unit:
        create = () if self.caller.get("DATABASE_URL") else ("--create",)
        program = _step(
            "databases",
            "loremesh_cli.mesh.databases",
            str(self.home.root),
            *create,
            **{postgres.ADMIN_VARIABLE: self._admin_url()},
        )
        return Unit(program=program, needs=needs, once=True)

    def _services(self, stores: tuple[str, ...]) -> Iterator[Unit]:
        for service in services.SERVICES:
            needs = tuple(name for name in NEEDS[service] if name in stores)
            if service in services.WITH_DATABASE:
                program = services.migration(service, environment=self._environment(service, migrates=True))
                yield Unit(program=program, needs=("databases",), once=True)
                needs = (*needs, program.name)
            program = services.program(service, ports=self.ports, environment=self._environment(service))
            yield Unit(program=program, needs=needs, address=_address(self.ports[service]))

    def _front_door(self) -> Iterator[Unit]:
        yield Unit(program=_step("contracts", "loremesh_edge.contracts", str(self.home.descriptor)), once=True)
        yield Unit(program=_step("configure-gateway", "loremesh_cli.mesh.gateway", str(self.home.root)), once=True)
        yield Unit(
            program=envoy.program(self.home.envoy, admin_port=self.ports["gateway-admin"]),
            needs=("contracts", "configure-gateway", *services.SERVICES),
            address=_address(self.ports["gateway"]),
        )
        yield Unit(
            program=_step("check", "loremesh_cli.mesh.front_door", str(self.ports["gateway"])),
            needs=("gateway",),
            once=True,
        )

    def _environment(self, service: str, *, migrates: bool = False) -> dict[str, str]:
        """Return a service's environment: ours, then what the caller says, then where this mesh itself is."""
        ours = self._shared()
        if service in services.WITH_DATABASE:
            ours[f"{service.upper()}_DATABASE_URL"] = self._database_url(service)
            if migrates:
                ours[f"{service.upper()}_MIGRATE_DATABASE_URL"] = self._database_url(services.owner(service))
        return {**ours, **self.caller, **services.targets(self.ports)}

    def _shared(self) -> dict[str, str]:
        keys = self._keys()
        shared = {
            "NATS_URL": nats.url(self.ports["nats"], password=self.credentials.nats),
            "LOCAL_MODEL_URL": local_model.url(self.ports["local-model"]),
            "RETRIEVAL_DATA_DIR": str(self.home.root / "retrieval"),
            # Python's threads would each keep an arena of freed memory.
            "MALLOC_ARENA_MAX": "2",
        }
        if "S3_ENDPOINT_URL" not in self.caller:
            shared |= {
                "S3_ENDPOINT_URL": keys.endpoint_url,
                "S3_ACCESS_KEY_ID": keys.access_key_id,
                "S3_SECRET_ACCESS_KEY": keys.secret_access_key,
                "S3_REGION": keys.region,
                "S3_BUCKET": keys.bucket,
            }
        return shared

    def _keys(self) -> seaweedfs.S3Access:
        return seaweedfs.access(
            [self.ports[name] for name in seaweedfs.port_names()],
            access_key_id=self.credentials.s3_access_key_id,
            secret_access_key=self.credentials.s3_secret_access_key,
            bucket=BUCKET,
        )

    def _admin_url(self) -> str:
        ours = postgres.url(
            self.ports["postgres"],
            user=postgres.SUPERUSER,
            password=self.credentials.postgres,
            database=postgres.DATABASE,
        )
        return self.caller.get("DATABASE_URL") or ours

    def _database_url(self, role: str) -> str:
        return postgres.with_role(self._admin_url(), role=role, password=getattr(self.credentials, role))


# What a service cannot start without; it copes with anything else being late.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "embedding": (),
    "retrieval": (),
    "ingestion": ("postgres", "nats", "seaweedfs"),
    "agent": ("postgres", "nats", "local-model"),
    "edge": (),
}


def _step(name: str, module: str, *arguments: str, **environment: str) -> Program:
    command = (sys.executable, "-m", module, *arguments)
    return Program(name=name, command=command, environment=plain_environment(**environment), start_seconds=120.0)


def _address(port: int) -> str:
    return f"{LOOPBACK}:{port}"
