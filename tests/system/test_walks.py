"""The walks through the documentation do what it says."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.system.conftest import Mesh

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@pytest.mark.parametrize("walk", ["agents", pytest.param("crews", marks=pytest.mark.long)])
def test_it_is_as_the_walk_tells(mesh: Mesh, repository: Path, walk: str) -> None:
    environment = {**os.environ, "LOREMESH_HOME": str(mesh.home.root), "LOREMESH_URL": mesh.url, "UV_NO_SYNC": "1"}
    walked = subprocess.run(
        [repository / f"docs/walks/{walk}.sh"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert walked.returncode == 0, walked.stdout[-4000:]
