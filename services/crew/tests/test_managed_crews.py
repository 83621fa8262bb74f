"""Crews with a manager: plans, what comes of them, and the result."""

import pytest
from loremesh_crew.domain.definitions import Guardrail, HumanInput, Process, RunLimits, ToolUse
from loremesh_crew.domain.machine import CancelAsked, RunStatus, TaskStatus, Usage
from loremesh_crew.domain.planning import MAX_CHAIN, MAX_PIECES, PlanRefused, read

from .crew_runs import Run, agent, crew, task

pytestmark = pytest.mark.unit

PLAN, CHECK = "manager/plan-1", "manager/check-1"
YES, NO = {"accepted": True, "reason": ""}, {"accepted": False, "reason": "The price is missing."}


def started(*tasks, limits=None, **fields):
    tasks = tasks or (task("report", expected_output="A page with a price."),)
    return Run.started(crew(*tasks, process=Process.HIERARCHICAL, **fields), limits)


def piece(name, agent="ann", *depends_on, **fields):
    return {"name": name, "agent": agent, "description": f"Do {name}.", "depends_on": list(depends_on), **fields}


def planned(run, *pieces, plan=PLAN):
    run.answers_json(plan, {"tasks": list(pieces)})


def test_a_run_is_planned_done_written_and_checked():
    run = started()
    request = run.asked(PLAN)
    assert request.agent.id == "crew-team-manager"
    assert (request.tools, request.review) == ((), None)
    assert "A page with a price." in request.message
    assert "Role of ben" in request.message
    planned(run, piece("facts"), piece("draft", "ben", "facts"))
    assert [each["name"] for each in run.told("plan_made")[0].data["tasks"]] == ["plan-1/facts", "plan-1/draft"]
    run.ends("plan-1/facts", "Tea is old.")
    assert "Tea is old." in run.asked("plan-1/draft").message
    run.ends("plan-1/draft", "A draft on tea.")
    request = run.asked("report")
    assert "Tea is old." in request.message
    assert "A draft on tea." in request.message
    assert run.shown("report").agent == "manager"
    run.ends("report", "Tea costs 3 euros.")
    assert run.shown("report").status is TaskStatus.IN_PROGRESS
    request = run.asked(CHECK)
    assert "Tea costs 3 euros." in request.message
    assert "A page with a price." in request.message
    run.answers_json(CHECK, YES)
    assert (run.end.status, run.end.output) == (RunStatus.COMPLETED, "Tea costs 3 euros.")
    assert [each.name for each in run.view.tasks] == ["report", PLAN, "plan-1/facts", "plan-1/draft", CHECK]
    assert run.shown("plan-1/facts").delegated_by == "manager"


def test_a_manager_of_the_crew_is_asked_with_its_own_instructions_and_without_its_tools():
    agents = (agent("ann", tools=(ToolUse(name="search"),)), agent("ben"))
    run = started(agents=agents, manager="ann")
    request = run.asked(PLAN)
    assert (request.agent.id, request.agent.tools) == ("crew-team-ann", ())
    planned(run, piece("facts", "ann"))
    refused = run.told("plan_refused")[0].data
    assert refused["reason"] == "PLAN_AGENT_UNKNOWN"
    assert "ann is the manager" in refused["message"]


def test_a_manager_is_not_called_as_one_of_the_crew():
    run = started(agents=(agent("manager"),), manager_model="openai/large")
    assert (run.shown(PLAN).agent, run.asked(PLAN).agent.model) == ("manager_", "openai/large")


def test_a_plan_that_cannot_be_done_goes_back_with_the_reason_and_three_of_them_end_the_run():
    run = started()
    for number in (1, 2, 3):
        planned(run, piece("facts", "zoe"))
        assert len(run.told("plan_refused")) == number
        if number < 3:
            assert "There is no agent 'zoe'; there are: ann, ben." in run.asked(PLAN).message
    assert (run.end.status, run.end.reason) == (RunStatus.FAILED, "PLANS_EXHAUSTED")
    assert run.shown("report").status is TaskStatus.SKIPPED


def test_what_is_no_plan_is_refused():
    run = started()
    run.fails(PLAN, reason="MODEL_OUTPUT_INVALID")
    refused = run.told("plan_refused")[0].data
    assert (refused["reason"], refused["message"]) == ("PLAN_INVALID", "It broke.")
    assert "It broke." in run.asked(PLAN).message
    run.ends(PLAN, "Let us begin with the facts.")
    assert len(run.told("plan_refused")) == 2


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ([], "PLAN_INVALID"),
        ([piece(f"p{number}") for number in range(MAX_PIECES + 1)], "PLAN_INVALID"),
        ([{"name": "a", "agent": "ann"}], "PLAN_INVALID"),
        (["a"], "PLAN_INVALID"),
        ([piece("a") | {"depends_on": "b"}], "PLAN_INVALID"),
        ([piece("p0"), *(piece(f"p{n}", "ann", f"p{n - 1}") for n in range(1, MAX_CHAIN + 1))], "PLAN_INVALID"),
        ([piece("a", "zoe")], "PLAN_AGENT_UNKNOWN"),
        ([piece("a", "boss")], "PLAN_AGENT_UNKNOWN"),
        ([piece("a"), piece("a")], "PLAN_REPEATED"),
        ([piece("a"), piece("b") | {"description": " do  A."}], "PLAN_REPEATED"),
        ([piece("b") | {"description": "Was done."}], "PLAN_REPEATED"),
        ([piece("a", "ann", "a")], "PLAN_CYCLE"),
        ([piece("a", "ann", "b"), piece("b", "ann", "a")], "PLAN_CYCLE"),
        ([piece("a", "ann", "z")], "PLAN_CYCLE"),
    ],
)
def test_plans_are_refused_each_with_its_reason(pieces, reason):
    with pytest.raises(PlanRefused) as refused:
        read({"tasks": pieces}, agents=["ann", "ben"], manager="boss", done=[("ann", "was done.")])
    assert refused.value.reason == reason
    assert refused.value.message


def test_names_and_numbers_of_a_plan_are_taken_as_small_models_write_them():
    given = piece(" The facts/first ") | {"max_tokens": None, "seconds": -1, "depends_on": None}
    (taken,) = read({"tasks": [given]}, agents=["ann"], manager="boss")
    assert (taken.name, taken.max_tokens, taken.seconds, taken.depends_on) == ("The-facts-first", 0, None, ())


def test_a_plan_may_limit_its_pieces():
    run = started(limits=RunLimits(max_tokens=100_000))
    planned(run, piece("facts", max_tokens=500, seconds=30))
    limits = run.asked("plan-1/facts").limits
    assert (limits.max_tokens, limits.max_seconds) == (500, 30.0)


def test_pieces_are_done_at_once_up_to_max_parallel():
    run = started(max_parallel=2)
    planned(run, piece("a"), piece("b"), piece("c"))
    assert run.begun[1:] == ["plan-1/a", "plan-1/b"]


def test_the_result_is_written_when_every_piece_has_an_outcome_also_a_failure():
    run = started()
    planned(run, piece("facts"), piece("draft", "ben", "facts"), piece("price", "ben"))
    run.fails("plan-1/facts")
    assert run.shown("plan-1/draft").reason == "DEPENDENCY_FAILED"
    assert "report" not in run.begun
    run.ends("plan-1/price", "3 euros.")
    message = run.asked("report").message
    assert 'from="plan-1/facts" status="FAILED">\nIt broke.' in message
    assert "3 euros." in message
    run.ends("report", "It costs 3 euros.")
    run.answers_json(CHECK, YES)
    assert run.end.status is RunStatus.COMPLETED


def test_tasks_are_written_one_after_the_other_with_their_own_rules():
    tasks = (
        task("facts", guardrails=(Guardrail(min_length=5),)),
        task("report", "facts", human_input=HumanInput(), output_schema={"type": "object"}),
    )
    run = started(*tasks)
    planned(run, piece("a"))
    run.ends("plan-1/a", "Stuff.")
    run.ends("facts", "No.")
    run.ends("facts", "The facts are these.")
    request = run.asked("report")
    assert "The facts are these." in request.message
    assert request.review is not None
    assert request.response_schema == {"type": "object"}
    run.ends("report", "{}", output_json={})
    run.answers_json(CHECK, YES)
    assert run.end.status is RunStatus.COMPLETED


def test_a_result_that_is_not_accepted_is_planned_on_with_what_it_lacks():
    run = started()
    planned(run, piece("facts"))
    run.ends("plan-1/facts", "Tea is old.")
    run.ends("report", "Tea is old, it seems.")
    run.answers_json(CHECK, NO)
    message = run.asked("manager/plan-2").message
    assert "The price is missing." in message
    assert "Tea is old." in message
    planned(run, piece("facts"), plan="manager/plan-2")
    assert run.told("plan_refused")[0].data["reason"] == "PLAN_REPEATED"
    planned(run, piece("price"), plan="manager/plan-2")
    run.ends("plan-2/price", "3 euros.")
    message = run.asked("report").message
    assert "The price is missing." in message
    assert "Tea is old, it seems." in message
    assert "3 euros." in message
    run.ends("report", "Old, and 3 euros.")
    run.answers_json("manager/check-2", YES)
    assert (run.end.status, run.end.output) == (RunStatus.COMPLETED, "Old, and 3 euros.")
    assert len([each for each in run.told("task_finished") if each.path == ("report",)]) == 1


def one_round(run, number):
    planned(run, piece(f"p{number}"), plan=f"manager/plan-{number}")
    run.ends(f"plan-{number}/p{number}", "Stuff.")
    run.ends("report", f"Report {number}.")
    run.answers_json(f"manager/check-{number}", NO)


def test_after_three_rounds_the_last_result_stays_as_incomplete():
    run = started()
    for number in (1, 2, 3):
        one_round(run, number)
    assert (run.end.status, run.end.reason, run.end.output) == (RunStatus.INCOMPLETE, "GUARDRAIL_FAILED", "Report 3.")


def test_what_a_round_made_is_kept_when_the_next_cannot_be_planned():
    run = started()
    one_round(run, 1)
    for _ in range(3):
        planned(run, plan="manager/plan-2")
    assert (run.end.status, run.end.reason, run.end.output) == (RunStatus.INCOMPLETE, "PLANS_EXHAUSTED", "Report 1.")


def test_what_a_round_made_is_kept_when_the_next_cannot_be_written():
    run = started()
    one_round(run, 1)
    planned(run, piece("price"), plan="manager/plan-2")
    run.ends("plan-2/price", "3 euros.")
    run.fails("report")
    assert (run.end.status, run.end.output) == (RunStatus.INCOMPLETE, "Report 1.")


def test_what_a_round_made_is_kept_when_what_it_depends_on_fails_in_the_next():
    tasks = (task("facts", guardrails=(Guardrail(min_length=5),), max_guardrail_rounds=0), task("report", "facts"))
    run = started(*tasks, fail_fast=False)
    planned(run, piece("a"))
    run.ends("plan-1/a", "Stuff.")
    run.ends("facts", "The facts.")
    run.ends("report", "A report.")
    run.answers_json(CHECK, NO)
    planned(run, piece("b"), plan="manager/plan-2")
    run.ends("plan-2/b", "More.")
    run.ends("facts", "No.")
    assert (run.shown("facts").status, run.shown("report").status) == (TaskStatus.FAILED, TaskStatus.INCOMPLETE)
    assert (run.end.status, run.end.output) == (RunStatus.INCOMPLETE, "A report.")


def test_a_result_that_cannot_be_checked_stays_as_incomplete():
    run = started()
    planned(run, piece("facts"))
    run.ends("plan-1/facts", "Stuff.")
    run.ends("report", "A report.")
    run.fails(CHECK, reason="MODEL_OUTPUT_INVALID")
    assert (run.end.status, run.end.reason) == (RunStatus.INCOMPLETE, "MODEL_OUTPUT_INVALID")
    assert run.end.output == "A report."


def test_a_manager_that_cannot_be_asked_fails_the_run():
    run = started()
    run.fails(PLAN, retryable=True)
    run.fires()
    run.fails(PLAN, reason="PROVIDER_NOT_CONFIGURED")
    assert (run.end.status, run.end.reason) == (RunStatus.FAILED, "TASK_FAILED")


def test_a_manager_without_a_crew_does_it_alone():
    run = started(agents=(agent("ann"),), manager="ann")
    assert run.begun == ["report"]
    run.ends("report", "A report.")
    run.answers_json(CHECK, NO)
    assert "The price is missing." in run.asked("report").message


def test_agents_hand_work_to_each_other_but_not_to_the_manager():
    agents = (agent("ann", allow_delegation=True), agent("ben", allow_delegation=True), agent("cid"))
    run = started(agents=agents, manager="ann")
    assert run.asked(PLAN).coworkers == ()
    planned(run, piece("facts", "ben"))
    assert run.asked("plan-1/facts").coworkers == (("cid", "Role of cid"),)
    run.delegates("plan-1/facts", "ann")
    assert [each.reason for each in run.answers] == ["DELEGATION_REFUSED"]
    run.delegates("plan-1/facts", "cid")
    assert run.begun[-1] == "plan-1/facts/cid-1"


def test_a_budget_spent_on_the_pieces_leaves_no_result():
    run = started(limits=RunLimits(max_tokens=10_000))
    planned(run, piece("facts"))
    run.ends("plan-1/facts", "Stuff.", usage=Usage(input_tokens=10_000))
    assert (run.end.status, run.end.reason) == (RunStatus.FAILED, "RUN_BUDGET_EXHAUSTED")


def test_a_managed_run_is_cancelled_at_any_stage():
    run = started()
    planned(run, piece("facts"))
    run.ends("plan-1/facts", "Stuff.")
    run.ends("report", "A report.")
    run.send(CancelAsked)
    run.ends(CHECK, status=TaskStatus.CANCELLED)
    assert run.end.status is RunStatus.CANCELLED
    assert run.shown("report").status is TaskStatus.INCOMPLETE
