"""What a run of a sequential or parallel crew does, rule by rule."""

from datetime import timedelta

import pytest
from loremesh_crew.domain.definitions import Guardrail, HumanInput, Process, RetryPolicy, RunLimits
from loremesh_crew.domain.machine import (
    CancelAsked,
    PauseAsked,
    ResumeAsked,
    RunStatus,
    SignalCame,
    Started,
    TaskEnded,
    TaskOutcome,
    TaskResumes,
    TaskStatus,
    TaskWaits,
    TimerFired,
    Usage,
)

from .crew_runs import Run, agent, crew, task

pytestmark = pytest.mark.unit

PARALLEL = Process.PARALLEL


def chain(*, process: Process = PARALLEL, **fields):
    """A task on which another depends, and one on which nothing does."""
    return crew(task("one"), task("two", "one"), task("three"), process=process, **fields)


# Orders


def test_in_a_sequence_one_comes_after_the_other_with_the_output_before_it():
    run = Run.started(crew(task("one"), task("two"), task("three", "one")))
    assert run.begun == ["one"]
    run.ends("one", "First output.")
    assert run.begun == ["one", "two"]
    assert "First output." in run.asked("two").message
    run.ends("two", "Second output.")
    assert "First output." in run.asked("three").message
    assert "Second output." not in run.asked("three").message
    run.ends("three", "Third output.")
    assert (run.end.status, run.end.output) == (RunStatus.COMPLETED, "Third output.")


def test_in_a_sequence_a_task_that_is_tried_again_holds_up_the_next():
    run = Run.started(crew(task("one"), task("two"), fail_fast=False))
    run.fails("one", retryable=True)
    assert run.begun == ["one"]
    run.fires()
    assert run.begun == ["one", "one"]


def test_in_parallel_each_begins_when_what_it_depends_on_is_done():
    run = Run.started(crew(task("last", "left", "right"), task("left"), task("right"), process=PARALLEL))
    assert run.begun == ["left", "right"]
    run.ends("right", "R.")
    assert run.begun == ["left", "right"]
    run.ends("left", "L.")
    assert run.begun[-1] == "last"
    assert "L." in run.asked("last").message
    assert "R." in run.asked("last").message


def test_in_parallel_no_more_than_max_parallel_are_in_work_the_higher_priority_first():
    tasks = [task("a"), task("b"), task("c", priority=5), task("d")]
    run = Run.started(crew(*tasks, process=PARALLEL, max_parallel=2))
    assert run.begun == ["c", "a"]
    run.ends("a")
    assert run.begun == ["c", "a", "b"]


def test_a_task_is_done_by_its_agent_or_else_by_the_first():
    run = Run.started(crew(task("one", agent="ben"), task("two"), process=PARALLEL))
    assert (run.shown("one").agent, run.shown("two").agent) == ("ben", "ann")
    assert run.asked("one").agent.id == "crew-team-ben"


# Results


def test_a_parallel_run_with_one_last_task_has_its_output():
    run = Run.started(crew(task("last", "first"), task("first"), process=PARALLEL))
    run.ends("first", "F.")
    run.ends("last", "L.", output_json={"a": 1.0})
    assert (run.end.output, run.end.output_json) == ("L.", {"a": 1.0})


def test_a_parallel_run_with_many_last_tasks_has_the_outputs_of_all():
    run = Run.started(crew(task("one"), task("two"), process=PARALLEL))
    run.ends("two", "Second.")
    run.ends("one", "First.")
    assert run.end.output == "## one\n\nFirst.\n\n## two\n\nSecond."


def test_an_output_cut_by_a_limit_counts_and_the_run_is_incomplete():
    run = Run.started(crew(task("one"), task("two")))
    run.ends("one", "Half.", status=TaskStatus.INCOMPLETE, reason="STEPS_EXHAUSTED")
    assert "Half." in run.asked("two").message
    run.ends("two", "Whole.")
    assert run.shown("one").status is TaskStatus.INCOMPLETE
    assert (run.end.status, run.end.reason, run.end.output) == (RunStatus.INCOMPLETE, "STEPS_EXHAUSTED", "Whole.")


def test_a_limit_that_left_no_output_is_a_failure():
    run = Run.started(crew(task("one")))
    run.ends("one", status=TaskStatus.INCOMPLETE, reason="STEPS_EXHAUSTED")
    assert run.shown("one").status is TaskStatus.FAILED


# Failures


def test_what_may_pass_is_tried_again_after_pauses_that_double_until_no_attempt_is_left():
    policy = RetryPolicy(max_attempts=3, initial_pause=2)
    run = Run.started(crew(task("one", retry=policy)))
    ids = []
    for pause in (2, 4):
        ids.append(run.id_of("one"))
        run.fails("one", retryable=True)
        assert run.shown("one").status is TaskStatus.RETRYING
        assert run.timers[-1].seconds == pause
        run.fires()
    ids.append(run.id_of("one"))
    run.fails("one", retryable=True)
    assert ids == ["run-1.1", "run-1.2", "run-1.3"]
    assert run.shown("one").attempts == 3
    assert (run.end.status, run.end.reason) == (RunStatus.FAILED, "TASK_FAILED")
    assert [each.attempt for each in run.told("task_started")] == [1, 2, 3]


def test_what_cannot_pass_is_not_tried_again():
    run = Run.started(crew(task("one")))
    run.fails("one", reason="TOOL_NOT_FOUND")
    assert (run.shown("one").reason, run.end.reason) == ("TOOL_NOT_FOUND", "TASK_FAILED")


def test_a_cut_output_is_tried_again_where_the_task_says_so_and_else_kept():
    policy = RetryPolicy(max_attempts=2, retry_incomplete=True)
    run = Run.started(crew(task("one", retry=policy)))
    run.ends("one", "Half.", status=TaskStatus.INCOMPLETE, reason="X")
    run.fires()
    run.ends("one", "More.", status=TaskStatus.INCOMPLETE, reason="X")
    assert (run.end.status, run.end.output) == (RunStatus.INCOMPLETE, "More.")


def test_failing_fast_stops_what_is_in_flight_and_keeps_what_is_done():
    run = Run.started(crew(task("a"), task("b"), task("c"), task("d", "c"), process=PARALLEL))
    run.ends("a", "Kept.")
    flying = run.id_of("c")
    run.fails("b")
    assert run.cancelled == [flying]
    assert run.state.end is None
    run.ends("c", status=TaskStatus.CANCELLED)
    assert run.statuses() == {"a": "COMPLETED", "b": "FAILED", "c": "CANCELLED", "d": "SKIPPED"}
    assert (run.end.status, run.end.reason) == (RunStatus.FAILED, "TASK_FAILED")
    assert run.shown("a").output == "Kept."
    assert run.shown("d").reason == "TASK_FAILED"


def test_without_failing_fast_what_does_not_depend_on_the_failure_goes_on():
    run = Run.started(chain(fail_fast=False))
    run.fails("one")
    assert run.shown("two").reason == "DEPENDENCY_FAILED"
    run.ends("three", "Three.")
    assert (run.end.status, run.end.reason) == (RunStatus.INCOMPLETE, "TASK_FAILED")
    assert run.end.output == "## three\n\nThree."


def test_without_failing_fast_a_run_of_which_nothing_is_done_failed():
    run = Run.started(chain(process=Process.SEQUENTIAL, fail_fast=False))
    run.fails("one")
    assert run.statuses() == {"one": "FAILED", "two": "SKIPPED", "three": "SKIPPED"}
    assert run.end.status is RunStatus.FAILED


def test_a_task_cancelled_from_outside_has_failed():
    run = Run.started(crew(task("one")))
    run.ends("one", status=TaskStatus.CANCELLED, retryable=True)
    assert (run.shown("one").status, run.end.status) == (TaskStatus.CANCELLED, RunStatus.FAILED)


def test_what_is_too_long_for_a_task_is_not_sent():
    run = Run.started(crew(task("one", description="{text}")), inputs={"text": "x" * 200_001})
    assert run.begun == []
    assert run.shown("one").reason == "TASK_TOO_LARGE"


# Guardrails


def test_an_output_that_breaks_a_guardrail_goes_back_with_why_until_the_rounds_are_over():
    rule = Guardrail(matches="^Dear", message="Begin with a greeting.")
    run = Run.started(crew(task("one", guardrails=(rule,), max_guardrail_rounds=1)))
    run.ends("one", "Hey!")
    assert run.told("task_retried")[0].data["reason"] == "GUARDRAIL_FAILED"
    message = run.asked("one").message
    assert "Begin with a greeting." in message
    assert "Hey!" in message
    run.ends("one", "Hi!")
    assert (run.shown("one").status, run.shown("one").reason) == (TaskStatus.FAILED, "GUARDRAIL_FAILED")
    assert run.shown("one").attempts == 2


def test_an_output_that_was_put_right_is_taken():
    run = Run.started(crew(task("one", guardrails=(Guardrail(min_length=5),))))
    run.ends("one", "No.")
    run.ends("one", "Yes, indeed.")
    assert (run.end.status, run.end.output) == (RunStatus.COMPLETED, "Yes, indeed.")


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (Guardrail(matches="[0-9]{4}"), "In 1984.", "In May."),
        (Guardrail(matches_not="(?i)secret"), "Open.", "A SECRET."),
        (Guardrail(min_length=3), "abc", "ab"),
        (Guardrail(max_length=3), "abc", "abcd"),
        (Guardrail(expression="output.startsWith('a') && json.score > 0.5"), "abc", "bcd"),
        (Guardrail(expression="json.none == 1"), None, "An expression that cannot be evaluated."),
        (Guardrail(matches="("), None, "A pattern that cannot be read."),
        (Guardrail(matches_not="("), None, "A pattern that cannot be read."),
    ],
)
def test_guardrails_hold_or_do_not(rule, good, bad):
    run = Run.started(crew(task("good", guardrails=(rule,)), task("bad", guardrails=(rule,)), process=PARALLEL))
    run.ends("bad", bad, output_json={"score": 1.0})
    assert run.shown("bad").status is TaskStatus.IN_PROGRESS
    assert run.begun[-1] == "bad"
    if good is not None:
        run.ends("good", good, output_json={"score": 1.0})
        assert run.shown("good").status is TaskStatus.COMPLETED


def test_a_criterion_is_judged_by_the_same_agent_without_tools_or_review():
    rules = (Guardrail(criterion="It rhymes."), Guardrail(criterion="It is short."))
    run = Run.started(crew(task("one", guardrails=rules, human_input=HumanInput()), memory=True))
    run.ends("one", "A poem.")
    judge = run.asked("one")
    assert "It rhymes." in judge.message
    assert "A poem." in judge.message
    assert set(judge.response_schema["properties"]) == {"accepted", "reason"}
    assert (judge.tools, judge.review, judge.memory_agent_id, judge.agent.recall) == ((), None, "", False)
    assert judge.agent.id == "crew-team-ann"
    run.answers_json("one", {"accepted": True, "reason": ""})
    assert "It is short." in run.asked("one").message
    run.answers_json("one", {"accepted": True, "reason": ""})
    assert (run.end.output, run.shown("one").attempts) == ("A poem.", 1)


def test_what_a_judge_does_not_accept_goes_back_with_its_reason():
    run = Run.started(crew(task("one", guardrails=(Guardrail(criterion="It rhymes."),))))
    run.ends("one", "A poem.")
    run.answers_json("one", {"accepted": False, "reason": "Line two does not."})
    assert "Line two does not." in run.asked("one").message
    assert run.asked("one").response_schema is None


def test_what_nobody_can_judge_is_not_taken():
    policy = RetryPolicy(max_attempts=2)
    run = Run.started(crew(task("one", guardrails=(Guardrail(criterion="It rhymes."),), retry=policy)))
    run.ends("one", "A poem.")
    run.answers_json("one", {"accepted": "maybe"})
    run.fires()
    run.fails("one", retryable=True)
    assert run.shown("one").reason == "GUARDRAIL_FAILED"
    assert run.end.status is RunStatus.FAILED


# Humans, pauses, cancelling, time


def test_a_task_that_waits_for_a_human_says_so_and_goes_on():
    run = Run.started(crew(task("one", human_input=HumanInput(question="Good?"))))
    task_id = run.id_of("one")
    assert run.asked("one").review.question == "Good?"
    run.send(TaskWaits, task_id=task_id, approval_id="approval-1", agent_run_id="job-1")
    assert (run.shown("one").status, run.shown("one").approval_id) == (TaskStatus.WAITING, "approval-1")
    assert run.view.status is RunStatus.IN_PROGRESS
    run.send(TaskResumes, task_id=task_id)
    assert (run.shown("one").status, run.shown("one").approval_id) == (TaskStatus.IN_PROGRESS, "")
    # A fact that comes late.
    assert run.send(TaskWaits, task_id=task_id, approval_id="approval-1") == ()
    run.ends("one", "Done.")
    assert run.end.status is RunStatus.COMPLETED


def test_a_paused_run_begins_nothing_and_remembers_what_was_due():
    run = Run.started(crew(task("a"), task("b"), task("c"), process=PARALLEL, max_parallel=2))
    run.fails("a", retryable=True)
    run.send(PauseAsked)
    assert run.view.status is RunStatus.INTERRUPTED
    begun = list(run.begun)
    run.ends("b", "Finished all the same.")
    run.fires()
    assert run.send(PauseAsked) == ()
    assert run.begun == begun
    run.send(ResumeAsked)
    assert run.view.status is RunStatus.IN_PROGRESS
    assert run.begun == [*begun, "a"]
    assert run.send(ResumeAsked) == ()


def test_a_cancelled_run_ends_when_all_that_was_in_flight_has():
    run = Run.started(crew(task("a"), task("b"), task("c", "a"), process=PARALLEL))
    ids = list(run.flight)
    run.send(CancelAsked, comment="Enough.")
    assert run.told("cancelling")[0].data == {"comment": "Enough."}
    assert run.cancelled == ids
    assert run.view.status is RunStatus.CANCELLING
    assert run.send(CancelAsked) == ()
    run.ends("a", "It was faster.")
    run.ends("b", status=TaskStatus.CANCELLED)
    assert run.end.status is RunStatus.CANCELLED
    assert run.statuses() == {"a": "COMPLETED", "b": "CANCELLED", "c": "SKIPPED"}


def test_a_run_with_nothing_in_flight_is_cancelled_at_once():
    run = Run.started(crew(task("one")))
    run.fails("one", retryable=True)
    run.send(PauseAsked)
    run.send(CancelAsked)
    assert run.end.status is RunStatus.CANCELLED


def test_a_run_whose_time_is_over_expires():
    run = Run.started(crew(task("one"), task("two")), RunLimits(max_seconds=60))
    assert (run.timers[0].timer, run.timers[0].seconds) == ("deadline", 60)
    run.fires()
    assert run.cancelled == ["run-1.1"]
    run.ends("one", status=TaskStatus.CANCELLED)
    assert (run.end.status, run.end.reason) == (RunStatus.EXPIRED, "RUN_EXPIRED")
    assert run.shown("two").reason == "RUN_EXPIRED"


def test_without_a_limit_of_time_no_timer_runs():
    assert Run.started(crew(task("one"))).timers == []


def test_what_is_unknown_late_or_doubled_changes_nothing():
    run = Run.started(crew(task("one"), task("two")))
    run.ends("one", "First.")
    state = run.state
    outcome = TaskOutcome(status=TaskStatus.FAILED)
    for kind, fields in (
        (Started, {}),
        (TaskEnded, {"task_id": "run-1.1", "outcome": outcome}),
        (TaskEnded, {"task_id": "", "outcome": outcome}),
        (TaskWaits, {"task_id": "run-1.1", "approval_id": "x"}),
        (TaskResumes, {"task_id": "run-1.2"}),
        (TimerFired, {"timer": ""}),
        (TimerFired, {"timer": "retry:1:one"}),
        (SignalCame, {"signal": "tea", "signal_id": "1"}),
    ):
        assert run.send(kind, **fields) == ()
        assert run.state is state


# Budgets


def test_each_task_has_a_share_of_what_is_left_and_the_last_has_all_of_it():
    run = Run.started(crew(task("a"), task("b"), task("c")), RunLimits(max_tokens=90_000, max_cost_micros=9_000))
    assert run.asked("a").limits.max_tokens == 30_000
    assert run.asked("a").limits.max_cost_micros == 3_000
    run.ends("a", usage=Usage(input_tokens=5_000, output_tokens=5_000))
    assert run.asked("b").limits.max_tokens == 40_000
    run.ends("b", usage=Usage(input_tokens=40_000))
    assert run.asked("c").limits.max_tokens == 40_000


def test_who_finds_too_little_left_waits_for_what_others_give_back():
    run = Run.started(crew(task("a"), task("b"), task("c"), process=PARALLEL), RunLimits(max_tokens=4_500))
    assert run.begun == ["a", "b"]
    run.ends("a", "A.", usage=Usage(input_tokens=1_000))
    assert run.begun == ["a", "b"]
    run.ends("b", "B.", usage=Usage(input_tokens=1_000))
    assert run.asked("c").limits.max_tokens == 2_500


def test_when_the_budget_is_spent_the_rest_is_skipped():
    run = Run.started(crew(task("a"), task("b"), task("c")), RunLimits(max_tokens=10_000))
    run.ends("a", "A.", usage=Usage(input_tokens=10_000))
    assert run.begun == ["a"]
    assert run.shown("c").reason == "RUN_BUDGET_EXHAUSTED"
    assert (run.end.status, run.end.reason, run.end.output) == (RunStatus.INCOMPLETE, "RUN_BUDGET_EXHAUSTED", "A.")


def test_a_run_that_spent_its_budget_for_nothing_has_failed():
    run = Run.started(crew(task("a"), task("b")), RunLimits(max_tokens=10_000))
    run.ends("a", status=TaskStatus.FAILED, retryable=True, usage=Usage(input_tokens=10_000))
    run.fires()
    assert run.statuses() == {"a": "FAILED", "b": "SKIPPED"}
    assert (run.end.status, run.end.reason) == (RunStatus.FAILED, "RUN_BUDGET_EXHAUSTED")


def test_calls_of_tools_are_shared_among_those_who_have_some():
    agents = (agent("ann", agent_id="kept"), agent("ben"))
    tasks = (task("a"), task("b", agent="ben"), task("c"))
    run = Run.started(crew(*tasks, agents=agents), RunLimits(max_tool_calls=3))
    assert run.asked("a").limits.max_tool_calls == 1
    run.ends("a", "A.", usage=Usage(tool_calls=3))
    assert run.asked("b").limits.max_tool_calls == 0
    run.ends("b", "B.")
    assert run.shown("c").reason == "RUN_BUDGET_EXHAUSTED"


def test_an_output_that_nobody_has_the_budget_to_judge_is_kept_as_incomplete():
    run = Run.started(crew(task("one", guardrails=(Guardrail(criterion="It rhymes."),))), RunLimits(max_tokens=9))
    run.ends("one", "A poem.", usage=Usage(output_tokens=9))
    assert run.shown("one").status is TaskStatus.INCOMPLETE
    assert (run.end.status, run.end.reason, run.end.output) == (RunStatus.INCOMPLETE, "RUN_BUDGET_EXHAUSTED", "A poem.")


def test_a_run_shows_what_its_tasks_took_and_when():
    run = Run.started(crew(task("one", output_file="poem.md"), task("two")))
    started = run.time
    run.ends("one", "A.", usage=Usage(input_tokens=3, steps=1), model="openai/small", agent_run_id="job-1")
    shown = run.shown("one")
    assert (shown.usage.input_tokens, shown.model, shown.agent_run_id, shown.file) == (
        3,
        "openai/small",
        "job-1",
        "poem.md",
    )
    assert (shown.start_time, shown.finish_time) == (started, started + timedelta(seconds=1))
    run.ends("two", usage=Usage(input_tokens=4))
    assert run.view.usage == Usage(input_tokens=7, steps=1)
