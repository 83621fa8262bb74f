"""Runs as messages."""

from datetime import UTC, datetime

import pytest
from loremesh_crew.domain.machine import Pinned, RunKind, RunStatus, TaskStatus, TaskView, Usage, View
from loremesh_crew.engine.running import record_of
from loremesh_crew.ports import NewRecord, RunRecord
from loremesh_crew.run_protos import tree

pytestmark = pytest.mark.unit


def shown(run_id: str, parent: str = "", *, output: str) -> tuple[RunRecord, View]:
    pinned = Pinned(run_id=run_id, root_run_id="r", kind=RunKind.CREW, inputs={"topic": "tea"})
    new = NewRecord(pinned=pinned, name=run_id, principal="ada", definition_id="c", revision=1, parent_run_id=parent)
    task = TaskView(name="t", status=TaskStatus.COMPLETED, output=output)
    view = View(status=RunStatus.COMPLETED, tasks=(task,), usage=Usage(input_tokens=3), output=output)
    return record_of(new, state=None, version=1, now=datetime.now(UTC)), view


def test_a_tree_larger_than_one_answer_is_shown_without_what_its_last_runs_made() -> None:
    much = "x" * 3_000_000
    whole = tree([shown("r", output=much), shown("r.1", "r", output="y"), shown("r.2", "r", output=much)])

    first, last = whole.children
    assert whole.ByteSize() < 8 * 1024 * 1024
    assert (whole.run.output, first.run.output, first.run.tasks[0].output) == (much, "y", "y")
    assert (last.run.output, last.run.tasks[0].output, len(last.run.inputs)) == ("", "", 0)
    assert (last.run.id, last.run.tasks[0].name, last.run.usage.input_tokens) == ("r.2", "t", 3)
