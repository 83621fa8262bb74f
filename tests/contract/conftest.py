"""A copy of the contracts, generated anew, to compare with what is checked in and to read."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from buf.validate import validate_pb2  # noqa: F401 - so that the descriptor set's rules are parsed
from google.api import annotations_pb2  # noqa: F401 - and its HTTP rules
from google.protobuf.descriptor_pb2 import FileDescriptorSet


@pytest.fixture(scope="session")
def tools() -> Path:
    """The folder of the environment's commands."""
    return Path(sys.executable).parent


@pytest.fixture(scope="session")
def generated(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository which has nothing but the contracts and what scripts/gen makes of them."""
    copy = tmp_path_factory.mktemp("generated")
    shutil.copytree(repository / "proto", copy / "proto", ignore=shutil.ignore_patterns("gen"))
    shutil.copy(repository / "buf.yaml", copy)
    (copy / "scripts").mkdir()
    shutil.copy(repository / "scripts" / "gen.py", copy / "scripts")
    (copy / "services" / "edge" / "src" / "loremesh_edge").mkdir(parents=True)
    (copy / "proto" / "gen").mkdir()
    subprocess.run([sys.executable, copy / "scripts" / "gen.py"], check=True, timeout=120)
    return copy


@pytest.fixture(scope="session")
def descriptor_file(generated: Path) -> Path:
    return generated / "build" / "descriptor.binpb"


@pytest.fixture(scope="session")
def descriptors(descriptor_file: Path) -> FileDescriptorSet:
    return FileDescriptorSet.FromString(descriptor_file.read_bytes())
