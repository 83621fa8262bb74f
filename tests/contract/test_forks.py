"""Services which start programs have gRPC keep its hands off them, which it must be told before it is imported."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.contract

PROGRAM = """
import sys

class Told:
    def find_spec(self, name, path, target=None):
        if name in ("grpc", "loremesh_kit"):
            print(name)

sys.meta_path.insert(0, Told())
import loremesh_{service}.main
"""


@pytest.mark.parametrize("service", ["agent", "crew", "ingestion"])
def test_the_kit_is_imported_before_grpc(service: str) -> None:
    command = [sys.executable, "-c", PROGRAM.format(service=service)]
    run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert run.stdout.split() == ["loremesh_kit", "grpc"]
