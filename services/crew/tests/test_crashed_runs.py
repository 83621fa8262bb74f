"""Processes that die before and after each durable step of a run, and others that finish what they began."""

import pytest

from .crash_lot import CREW, FLOW, lot
from .mortal import CLAIM, Aim
from .replicas import Mesh

pytestmark = pytest.mark.steelthread


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loremesh_kit.sweeper._PATIENCE", 0.5)


# Times that a task is asked after.
_ASKED = 3


@pytest.mark.parametrize(
    ("of", "steps"),
    [
        (CREW, {"tasks.create", "tasks.answer", "tasks.cancel", "tasks.get", "commit@timer", "commit@cancel-task"}),
        (FLOW, {"tasks.create", "tasks.get", "commit@start-child", "commit@tell-parent", "commit@timer"}),
    ],
    ids=["a crew with a retry and delegations", "a flow with a crew, a signal and a timer"],
)
async def test_wherever_a_process_dies_its_run_is_finished_by_another_and_nothing_is_done_twice(mesh: Mesh, of, steps):
    async with lot(mesh) as here:
        assert await here.play(of) == set()
        # Where a machine is slow, who is silent is asked again and again: the first times show what others would.
        points = [
            point for point in here.process.life.passed if not point.startswith("tasks.get") or _nth(point) <= _ASKED
        ]
        assert all(any(point.startswith(step) for point in points) for step in steps), points
        failed, missed, cases = {}, [], 0
        for point in points:
            # What would be killed before a claim was killed after the commit before it.
            for when in ("after",) if point.startswith(CLAIM) else ("before", "after"):
                cases += 1
                struck = here.process
                if found := await here.play(of, Aim(point, when)):
                    failed[f"{when} {point}"] = found
                if here.process is struck:
                    missed.append(f"{when} {point}")
    assert not failed
    assert len(missed) <= cases / 10, missed


def _nth(point: str) -> int:
    return int(point.rpartition("#")[2])
