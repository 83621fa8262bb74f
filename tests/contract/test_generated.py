import json
import re
import tomllib
from pathlib import Path

import loremesh_edge
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from loremesh_edge.openapi.__main__ import document
from packaging.requirements import Requirement
from packaging.version import Version

pytestmark = pytest.mark.contract

RERUN = "run scripts/gen and commit what it changes"


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("package", ["loremesh", "buf"])
def test_the_generated_code_is_that_of_the_contracts(repository: Path, generated: Path, package: str) -> None:
    checked_in, fresh = (contents(root / "proto" / "gen" / package) for root in (repository, generated))
    different = {name for name in checked_in.keys() | fresh.keys() if checked_in.get(name) != fresh.get(name)}
    assert different == set(), RERUN


def test_the_openapi_document_is_that_of_the_contracts(descriptors: FileDescriptorSet) -> None:
    checked_in = Path(loremesh_edge.__file__).parent / "openapi.json"
    assert json.loads(checked_in.read_text()) == document(descriptors), RERUN


def floors(repository: Path) -> dict[str, Version]:
    """The oldest version of each requirement that the generated code's package allows."""
    project = tomllib.loads((repository / "proto" / "gen" / "pyproject.toml").read_text())["project"]
    requirements = (Requirement(each) for each in project["dependencies"])
    return {
        each.name: max(Version(part.version) for part in each.specifier if part.operator == ">=")
        for each in requirements
    }


@pytest.mark.parametrize(
    ("requirement", "files", "pattern"),
    [
        ("protobuf", "*_pb2.py", r"# Protobuf Python Version: ([\d.]+)"),
        ("grpcio", "*_pb2_grpc.py", r"GRPC_GENERATED_VERSION = '([\d.]+)'"),
    ],
)
def test_no_allowed_runtime_is_older_than_the_generated_code(
    repository: Path, requirement: str, files: str, pattern: str
) -> None:
    texts = [path.read_text() for path in (repository / "proto" / "gen" / "loremesh").rglob(files)]
    versions = {Version(found) for text in texts for found in re.findall(pattern, text)}
    assert versions, "the generated code no longer says which version made it"
    assert max(versions) <= floors(repository)[requirement]
