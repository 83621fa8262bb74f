import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.contract


def test_imports_point_down_and_services_do_not_know_each_other(repository: Path, tools: Path) -> None:
    """The arrows are in the root's pyproject.toml."""
    command = [tools / "lint-imports", "--no-cache"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout
