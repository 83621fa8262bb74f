"""The walks through the documentation do what it says."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.system.conftest import Mesh

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


def test_agents_act_as_the_walk_tells(mesh: Mesh, repository: Path) -> None:
    environment = {**os.environ, "LOREMESH_HOME": str(mesh.home.root), "LOREMESH_URL": mesh.url, "UV_NO_SYNC": "1"}
    walk = subprocess.run(
        [repository / "docs/walks/agents.sh"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert walk.returncode == 0, walk.stdout[-4000:]
