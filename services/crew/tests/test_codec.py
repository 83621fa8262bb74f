"""What is kept of runs, as text."""

from datetime import UTC, datetime

import pytest
from loremesh_crew.domain import codec
from loremesh_crew.domain.crew_state import CrewState, Item, Origin
from loremesh_crew.domain.machine import RunStatus, TaskStatus, Usage

pytestmark = pytest.mark.unit


def test_a_state_is_kept_without_what_says_nothing_and_read_back_unchanged() -> None:
    item = Item(
        name="a", origin=Origin.TASK, agent="ann", status=TaskStatus.COMPLETED, output="", output_json={"k": None},
        usage=Usage(input_tokens=3), start_time=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    state = CrewState(items=(item, Item(name="b", origin=Origin.TASK, agent="bob", seconds=0.0)), started=True)
    kept = codec.dump(state)

    assert codec.load(CrewState, kept) == state
    assert state.status is RunStatus.IN_PROGRESS
    assert len(kept) < 400
