"""Processes by number and start time: a number alone may have been given to another one since."""

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

ENDED = frozenset("ZX")


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process for as long as the machine is up: its number, and its start in clock ticks since boot."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "ProcessId | None":
        """Return the identity of a living process, None when there is none of that number."""
        try:
            # The name in brackets may hold anything, blanks and brackets included.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in ENDED else cls(pid=pid, started=int(fields[19]))

    def alive(self) -> bool:
        """Tell whether this very process runs."""
        return ProcessId.of(self.pid) == self

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process is there to take it."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, seconds: float) -> bool:
        """Wait for its end; tell whether it came."""
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True


def sweep_group(leader: int) -> None:
    """Kill what an ended process started and left behind in its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def tree_bytes(pid: int) -> int:
    """Return the memory of a process and its descendants together."""
    return sum(own_bytes(each) for each in (pid, *_descendants(pid)))


def own_bytes(pid: int) -> int:
    """Return the memory a process holds alone and its share of what it holds with others; 0 if it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    line = next((line for line in text.splitlines() if line.startswith("Pss:")), "Pss: 0 kB")
    return int(line.split()[1]) * 1024


def _descendants(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return [each for child in children for each in (child, *_descendants(child))]
