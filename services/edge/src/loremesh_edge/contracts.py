"""The contracts of the whole mesh, as the generated modules know them.

Run as `python -m loremesh_edge.contracts FILE` it writes them as the descriptor set which Envoy's transcoder reads.
"""

import pkgutil
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

import loremesh
from google.api import annotations_pb2  # type: ignore[import-untyped]
from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.rpc import error_details_pb2  # type: ignore[import-untyped]

# In the details of errors: a transcoder which does not know them sends such an error without a body.
_DETAILS: FileDescriptor = error_details_pb2.DESCRIPTOR


@cache
def files() -> Sequence[FileDescriptor]:
    """Every file of our own."""
    modules = (module.name for module in pkgutil.walk_packages(loremesh.__path__, "loremesh."))
    return tuple(import_module(name).DESCRIPTOR for name in sorted(modules) if name.endswith("_pb2"))


def public_services() -> Sequence[str]:
    """Full names of the services which the gateway routes: those with an HTTP rule on any rpc."""
    services = (service for file in files() for service in file.services_by_name.values())
    return sorted(service.full_name for service in services if _is_public(service))


def _is_public(service: ServiceDescriptor) -> bool:
    return any(method.GetOptions().HasExtension(annotations_pb2.http) for method in service.methods)


def descriptor_set() -> FileDescriptorSet:
    """Our files and all they import, each after those it imports."""
    result = FileDescriptorSet()
    seen: set[str] = set()
    for root in (_DETAILS, *files()):
        for file in _with_imports(root, seen):
            file.CopyToProto(result.file.add())
    return result


def _with_imports(file: FileDescriptor, seen: set[str]) -> Iterator[FileDescriptor]:
    if file.name in seen:
        return
    seen.add(file.name)
    for imported in file.dependencies:
        yield from _with_imports(imported, seen)
    yield file


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(descriptor_set().SerializeToString(deterministic=True))
