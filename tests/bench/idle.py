"""What an idle mesh takes, and how soon it is back."""

import time
from pathlib import Path

from tests.bench import measure
from tests.bench.mesh import Mesh


def memory(mesh: Mesh) -> None:
    """Print the proportional set size of every process of the mesh, together."""
    time.sleep(3)
    total = sum(tree(int(unit["pid"])) for unit in mesh.command("status")["processes"] if unit.get("pid"))
    gigabytes = total / 1024**2
    measure.row("idle mesh without the local model, GB", f"{gigabytes:.2f}", "<= 1.20", met=gigabytes <= 1.2)


def second_start(mesh: Mesh) -> None:
    """Print the seconds that a start over existing data takes, and stop the mesh again."""
    seconds = mesh.up()
    mesh.down()
    measure.row("second start, s", f"{seconds:.1f}", "<= 15", met=seconds <= 15)


def tree(pid: int) -> int:
    """Kilobytes of a process and its descendants."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return 0
    own = sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return own + sum(tree(int(child)) for child in children)
