"""Writes the configuration Envoy is started with: the repository's own, with this mesh's ports put in.

Run as `python -m loremesh_cli.mesh.gateway HOME`: the ports are read from the mesh's state.
"""

import pkgutil
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from loremesh_cli.mesh.home import Home, HomeError, repository
from loremesh_cli.mesh.ports import LOOPBACK
from loremesh_cli.mesh.state import read

ENVIRONMENT = "embedded"
CONTAINER_DESCRIPTOR = "/etc/loremesh/descriptor.binpb"
# Sent in every error's details, so the transcoder must know them: without, such an error has an empty body.
DETAILS = "google.rpc.error_details_pb2"


def effective(
    configuration: Mapping[str, Any], clusters: Mapping[str, Any], *, ports: Mapping[str, int], descriptor: Path
) -> dict[str, Any]:
    """Return one complete configuration: listener and clusters on this mesh's loopback ports."""
    merged: dict[str, Any] = _replaced(configuration, {CONTAINER_DESCRIPTOR: str(descriptor)})
    resources = merged["static_resources"]
    listener = next(each for each in resources["listeners"] if each["name"] == "gateway")
    _point(listener["address"], ports["gateway"])
    _point(merged["admin"]["address"], ports["gateway-admin"])
    resources["clusters"] = [*resources.get("clusters", ()), *clusters["static_resources"]["clusters"]]
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


def descriptors() -> FileDescriptorSet:
    """Return every contract of the mesh, with all they import, each file after those it needs."""
    import loremesh

    import_module(DETAILS)
    names = ["google/rpc/error_details.proto"]
    modules = (module.name for module in pkgutil.walk_packages(loremesh.__path__, "loremesh."))
    names += [import_module(name).DESCRIPTOR.name for name in modules if name.endswith("_pb2")]
    files: dict[str, FileDescriptor] = {}
    for name in names:
        _collect(descriptor_pool.Default().FindFileByName(name), files)
    result = FileDescriptorSet()
    for file in files.values():
        file.CopyToProto(result.file.add())
    return result


def _collect(file: FileDescriptor, files: dict[str, FileDescriptor]) -> None:
    if file.name not in files:
        for dependency in file.dependencies:
            _collect(dependency, files)
        files[file.name] = file


def main() -> None:
    """Write the configuration and the contracts below the data directory named on the command line."""
    home, clone = Home(Path(sys.argv[1])), repository()
    state = read(home.state)
    if clone is None or state is None:
        message = "the gateway's configuration is in the repository, and this is not run from a clone of it"
        raise HomeError(message)
    descriptor = home.build / "descriptor.binpb"
    descriptor.write_bytes(descriptors().SerializeToString(deterministic=True))
    configuration, clusters = (
        yaml.safe_load((clone / "gateway" / name).read_text())
        for name in ("envoy.yaml", f"clusters/{ENVIRONMENT}.yaml")
    )
    whole = effective(
        configuration, clusters, ports=state.ports | {"gateway": state.gateway_port}, descriptor=descriptor
    )
    (home.build / "envoy.yaml").write_text(yaml.safe_dump(whole, sort_keys=False))


if __name__ == "__main__":
    main()
