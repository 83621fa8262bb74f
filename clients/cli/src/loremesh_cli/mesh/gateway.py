"""Writes the configuration Envoy is started with: the repository's own, with this mesh's ports put in.

Run as `python -m loremesh_cli.mesh.gateway HOME`: the ports are read from the mesh's state.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from loremesh_cli.mesh.home import Home, HomeError, repository
from loremesh_cli.mesh.ports import LOOPBACK
from loremesh_cli.mesh.state import read

ENVIRONMENT = "embedded"
CONTAINER_DESCRIPTOR = "/etc/loremesh/descriptor.binpb"


def effective(
    configuration: Mapping[str, Any], clusters: Mapping[str, Any], *, ports: Mapping[str, int], descriptor: Path
) -> dict[str, Any]:
    """Return one complete configuration: listener and clusters on this mesh's loopback ports."""
    words = {CONTAINER_DESCRIPTOR: str(descriptor)}
    merged: dict[str, Any] = _replaced(configuration, words)
    resources = merged["static_resources"]
    listener = next(each for each in resources["listeners"] if each["name"] == "gateway")
    _point(listener["address"], ports["gateway"])
    _point(merged["admin"]["address"], ports["gateway-admin"])
    resources["clusters"] = [
        *resources.get("clusters", ()),
        *_replaced(clusters, words)["static_resources"]["clusters"],
    ]
    for cluster in resources["clusters"]:
        for address in _endpoints(cluster):
            _point(address, ports[cluster["name"]])
    return merged


def _endpoints(cluster: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    localities = cluster.get("load_assignment", {}).get("endpoints", ())
    return (each["endpoint"]["address"] for locality in localities for each in locality["lb_endpoints"])


def _point(address: dict[str, Any], port: int) -> None:
    address["socket_address"] |= {"address": LOOPBACK, "port_value": port}


def _replaced(value: Any, words: Mapping[str, str]) -> Any:
    """Return a deep copy with whole strings replaced."""
    if isinstance(value, Mapping):
        return {key: _replaced(each, words) for key, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, words) for each in value]
    return words.get(value, value) if isinstance(value, str) else value


def main() -> None:
    """Write the configuration for the mesh in the data directory named on the command line."""
    home, clone = Home(Path(sys.argv[1])), repository()
    state = read(home.state)
    if clone is None or state is None:
        message = "the gateway's configuration is in the repository, and this is not run from a clone of it"
        raise HomeError(message)
    configuration, clusters = (
        yaml.safe_load((clone / "gateway" / name).read_text())
        for name in ("envoy.yaml", f"clusters/{ENVIRONMENT}.yaml")
    )
    whole = effective(
        configuration, clusters, ports=state.ports | {"gateway": state.gateway_port}, descriptor=home.descriptor
    )
    home.envoy.write_text(yaml.safe_dump(whole, sort_keys=False))


if __name__ == "__main__":
    main()
