"""Work that agents of a crew hand on to each other."""

import pytest
from loremesh_crew.domain.definitions import Process, RunLimits
from loremesh_crew.domain.machine import (
    CancelAsked,
    PauseAsked,
    ResumeAsked,
    RunStatus,
    TaskResumes,
    TaskStatus,
    TaskWaits,
    Usage,
)

from .crew_runs import Run, agent, crew, task

pytestmark = pytest.mark.unit

AGENTS = (
    agent("ann", allow_delegation=True),
    agent("ben", allow_delegation=True),
    agent("cid", role="Clerk of {topic}"),
)


def started(*tasks, limits=None, **fields):
    return Run.started(crew(*(tasks or (task("one"),)), agents=AGENTS, **fields), limits)


def test_only_who_may_hand_work_on_is_told_of_others():
    run = started(task("one"), task("two", agent="cid"), process=Process.PARALLEL)
    assert run.asked("one").coworkers == (("ben", "Role of ben"), ("cid", "Clerk of tea"))
    assert run.asked("two").coworkers == ()


def test_work_handed_on_is_a_task_of_its_own_and_its_output_the_answer():
    run = started()
    asker = run.id_of("one")
    run.delegates("one", "cid", "Find the date.", context="It is about tea.")
    told = run.told("work_delegated")[0]
    assert (told.path, told.data) == (("one",), {"agent": "cid", "task": "one/cid-1"})
    request = run.asked("one/cid-1")
    assert "Find the date." in request.message
    assert "It is about tea." in request.message
    shown = run.shown("one/cid-1")
    assert (shown.agent, shown.delegated_by, shown.description) == ("cid", "ann", "Find the date.")
    run.ends("one/cid-1", "In 1773.")
    assert [(each.task_id, each.output, each.reason) for each in run.answers] == [(asker, "In 1773.", "")]
    run.ends("one", "Done.")
    assert (run.end.status, run.end.output) == (RunStatus.COMPLETED, "Done.")
    assert [each.name for each in run.view.tasks] == ["one", "one/cid-1"]


def test_work_handed_on_that_fails_is_answered_with_why_and_fails_nobody_else():
    run = started()
    run.delegates("one", "cid")
    run.fails("one/cid-1", reason="TOOL_NOT_FOUND")
    assert [(each.output, each.reason) for each in run.answers] == [("", "TOOL_NOT_FOUND")]
    run.ends("one", "Done without.")
    assert run.end.status is RunStatus.COMPLETED


@pytest.mark.parametrize("coworker", ["ann", "nobody", ""])
def test_work_for_oneself_or_for_nobody_is_refused(coworker):
    run = started()
    run.delegates("one", coworker)
    assert run.begun == ["one"]
    assert [each.reason for each in run.answers] == ["DELEGATION_REFUSED"]


def test_who_may_not_hand_work_on_is_refused():
    run = started(task("one", agent="cid"))
    run.delegates("one", "ann")
    assert [each.reason for each in run.answers] == ["DELEGATION_REFUSED"]


def test_work_is_handed_on_three_deep_and_no_deeper():
    run = started()
    name = "one"
    for coworker in ("ben", "ann", "ben"):
        run.delegates(name, coworker)
        name = run.begun[-1]
    assert name == "one/ben-1/ann-1/ben-1"
    assert run.asked(name).coworkers == ()
    run.delegates(name, "ann")
    assert [each.reason for each in run.answers] == ["DELEGATION_REFUSED"]


def test_a_task_hands_work_on_ten_times_and_no_more():
    run = started()
    for _ in range(11):
        run.delegates("one", "cid")
    assert run.begun[-1] == "one/cid-10"
    assert [each.reason for each in run.answers] == ["DELEGATION_REFUSED"]


def test_the_same_work_asked_for_twice_is_done_once():
    run = started()
    run.delegates("one", "cid", delegation_id="d")
    run.delegates("one", "cid", delegation_id="d")
    assert run.begun == ["one", "one/cid-1"]


def test_work_handed_on_needs_no_room_of_its_own():
    run = started(task("one"), task("two"), process=Process.PARALLEL, max_parallel=1)
    run.delegates("one", "cid")
    assert run.begun == ["one", "one/cid-1"]


def test_work_handed_on_has_a_share_of_the_budget():
    run = started(limits=RunLimits(max_tokens=40_000))
    assert run.asked("one").limits.max_tokens == 20_000
    run.delegates("one", "cid")
    assert run.asked("one/cid-1").limits.max_tokens == 20_000


def test_without_a_budget_for_it_work_is_not_handed_on():
    run = started(limits=RunLimits(max_tokens=2_000))
    run.delegates("one", "cid")
    assert run.begun == ["one"]
    assert [each.reason for each in run.answers] == ["RUN_BUDGET_EXHAUSTED"]
    run.ends("one", "Done without.", usage=Usage(input_tokens=2_000))
    assert run.end.status is RunStatus.COMPLETED


def test_nobody_waits_for_work_handed_on_by_a_task_that_ended():
    run = started(task("one"), task("two"))
    run.delegates("one", "ben")
    run.delegates("one/ben-1", "cid")
    orphans = [run.id_of("one/ben-1"), run.id_of("one/ben-1/cid-1")]
    run.ends("one", "Done.")
    assert run.cancelled == orphans
    run.ends("one/ben-1/cid-1", status=TaskStatus.CANCELLED)
    run.fails("one/ben-1", retryable=True)
    assert run.answers == []
    run.ends("two", "Done, too.")
    assert run.end.status is RunStatus.COMPLETED


def test_work_handed_on_while_paused_begins_when_the_run_goes_on():
    run = started()
    run.send(PauseAsked)
    run.delegates("one", "cid")
    assert run.begun == ["one"]
    run.send(ResumeAsked)
    assert run.begun == ["one", "one/cid-1"]


def test_a_cancelled_run_hands_nothing_on():
    run = started()
    run.delegates("one", "cid")
    run.send(CancelAsked)
    assert len(run.cancelled) == 2
    run.delegates("one", "ben")
    assert [each.reason for each in run.answers] == ["DELEGATION_REFUSED"]


def test_who_waits_for_work_handed_on_does_not_wait_for_a_human():
    run = started()
    assert run.send(TaskWaits, task_id=run.id_of("one"), approval_id="") == ()
    assert run.send(TaskResumes, task_id=run.id_of("one")) == ()
