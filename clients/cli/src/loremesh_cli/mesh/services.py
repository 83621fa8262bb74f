"""Our own services as programs: how each is run, and what its environment says."""

from collections.abc import Mapping

from loremesh_cli.mesh.ports import LOOPBACK
from loremesh_cli.mesh.probes import listens
from loremesh_cli.mesh.program import Program, package_folder, script

SERVICES = ("embedding", "retrieval", "ingestion", "agent", "crew", "edge")
WITH_DATABASE = ("ingestion", "agent", "crew")


def owner(service: str) -> str:
    """Return the role which owns a service's schema and migrates it; the service itself runs as a plain one."""
    return f"{service}_owner"


def migrations(service: str) -> bytes:
    """Return all that a service's migration would apply: the kit's files and its own."""
    folders = (package_folder(f"loremesh_{name}") / "migrations" for name in ("kit", service))
    return b"".join(file.read_bytes() for folder in folders for file in sorted(folder.glob("*.sql")))


def targets(ports: Mapping[str, int]) -> dict[str, str]:
    """Return the variables by which services find one another."""
    return {f"{service.upper()}_TARGET": f"{LOOPBACK}:{ports[service]}" for service in SERVICES}


def program(service: str, *, ports: Mapping[str, int], environment: Mapping[str, str]) -> Program:
    """Describe a service, ready when it listens: what it depends on is asked of the front door's /ready."""
    own = {
        f"{service.upper()}_LISTEN": f"{LOOPBACK}:{ports[service]}",
        f"{service.upper()}_METRICS_PORT": str(ports[f"{service}-metrics"]),
    }
    if service == "edge":
        own["EDGE_WEBSOCKET_LISTEN"] = f"{LOOPBACK}:{ports['edge-websocket']}"
    return Program(
        name=service,
        command=(script(f"loremesh-{service}"),),
        ready=listens(ports[service]),
        environment={**environment, **own},
        start_seconds=90.0,
        stop_seconds=30.0,
    )


def migration(service: str, *, environment: Mapping[str, str]) -> Program:
    """Describe the step which brings a service's schema up to date."""
    return Program(
        name=f"migrate-{service}",
        command=(script(f"loremesh-{service}"), "migrate"),
        environment=environment,
        start_seconds=120.0,
    )
