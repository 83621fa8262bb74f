"""What may be decided, and when somebody is told again."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from loremesh_agent.domain.approvals import Alarm, Approval, Decision, Kind, State, Verdict, check, said_before
from loremesh_agent.domain.tools import ExpiryPolicy
from loremesh_agent.errors import ApprovalDecided, DecisionInvalid, ToolArgumentsInvalid

pytestmark = pytest.mark.unit

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
ASKED = Approval(
    id="a",
    kind=Kind.TOOL_CALL,
    state=State.PENDING,
    run_id="r",
    conversation_id="c",
    agent_id="default",
    tool_name="send_mail",
    arguments={"to": "ada"},
    question="May it send this?",
    create_time=NOON,
    due_time=NOON + timedelta(hours=10),
    on_expiry=ExpiryPolicy.DENY,
    revision=1,
)
APPROVE, DENY = Decision(verdict=Verdict.APPROVE), Decision(verdict=Verdict.DENY)
ANSWER = Decision(verdict=Verdict.ANSWER, answer="At noon.")
FITTING = {
    (Kind.TOOL_CALL, Verdict.APPROVE),
    (Kind.BUDGET, Verdict.APPROVE),
    (Kind.REVIEW, Verdict.APPROVE),
    (Kind.QUESTION, Verdict.ANSWER),
    (Kind.REVIEW, Verdict.ANSWER),
    (Kind.OUTPUT, Verdict.APPROVE),
    (Kind.OUTPUT, Verdict.ANSWER),
}


@pytest.mark.parametrize(("kind", "verdict"), list(product(Kind, Verdict)))
def test_each_kind_takes_its_decisions_and_no_other(kind: Kind, verdict: Verdict) -> None:
    asked = replace(ASKED, kind=kind)
    decision = {Verdict.APPROVE: APPROVE, Verdict.DENY: DENY, Verdict.ANSWER: ANSWER}[verdict]
    if verdict is Verdict.DENY or (kind, verdict) in FITTING:
        check(asked, decision)
        return
    with pytest.raises(DecisionInvalid) as refused:
        check(asked, decision)
    assert refused.value.metadata == {"kind": kind, "decision": verdict}


@pytest.mark.parametrize(
    ("kind", "decision"),
    [
        (Kind.TOOL_CALL, Decision(verdict=Verdict.DENY, arguments={})),
        (Kind.TOOL_CALL, Decision(verdict=Verdict.APPROVE, answer="yes")),
        (Kind.BUDGET, Decision(verdict=Verdict.APPROVE, arguments={"max_steps": 99})),
        (Kind.REVIEW, Decision(verdict=Verdict.APPROVE, arguments={"to": "eve"})),
        (Kind.QUESTION, Decision(verdict=Verdict.ANSWER, answer=" \n")),
        (Kind.QUESTION, Decision(verdict=Verdict.DENY, answer="no")),
    ],
)
def test_what_does_not_belong_to_a_decision_is_refused(kind: Kind, decision: Decision) -> None:
    with pytest.raises(DecisionInvalid):
        check(replace(ASKED, kind=kind), decision)


@pytest.mark.parametrize("arguments", [{"n": float("nan")}, {"n": [float("inf")]}, {"text": "x" * 65_536}])
def test_arguments_that_are_no_json_or_too_long_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ToolArgumentsInvalid) as refused:
        check(ASKED, replace(APPROVE, arguments=arguments))
    assert refused.value.metadata["tool"] == "send_mail"


def test_the_same_decision_again_is_known_and_another_is_refused() -> None:
    assert not said_before(ASKED, DENY)
    approved = replace(ASKED, state=State.APPROVED)
    edited = replace(approved, arguments={"to": "eve"}, edited=True)
    answered = replace(ASKED, kind=Kind.QUESTION, state=State.ANSWERED, answer="At noon.")
    to_eve = replace(APPROVE, arguments={"to": "eve"})
    assert said_before(approved, APPROVE)
    assert said_before(approved, replace(APPROVE, comment="Another word."))
    assert said_before(approved, replace(APPROVE, arguments={"to": "ada"}))
    assert said_before(edited, to_eve)
    assert said_before(answered, ANSWER)
    others = [
        (approved, DENY),
        (approved, to_eve),
        # Whoever says so has not seen what it was edited to.
        (edited, APPROVE),
        (answered, replace(ANSWER, answer="At one.")),
        (replace(ASKED, state=State.EXPIRED), DENY),
        (replace(ASKED, state=State.CANCELLED), DENY),
    ]
    for decided, decision in others:
        with pytest.raises(ApprovalDecided) as refused:
            said_before(decided, decision)
        assert refused.value.metadata == {"approval_id": "a", "state": decided.state}


@pytest.mark.parametrize(
    ("hours", "changes", "alarm"),
    [
        (4.9, {}, None),
        (5, {}, Alarm.REMIND),
        (5, {"remind_time": NOON}, None),
        (9, {"remind_time": NOON}, Alarm.ESCALATE),
        (9, {}, Alarm.ESCALATE),
        (9.9, {"escalate_time": NOON}, None),
        (10, {"escalate_time": NOON}, Alarm.EXPIRE),
        (99, {}, Alarm.EXPIRE),
        (99, {"state": State.DENIED}, None),
    ],
)
def test_time_reminds_escalates_and_expires(hours: float, changes: dict[str, object], alarm: Alarm | None) -> None:
    assert replace(ASKED, **changes).alarm(NOON + timedelta(hours=hours)) is alarm


@pytest.mark.parametrize(
    ("state", "policy", "granted", "fails"),
    [
        (State.PENDING, ExpiryPolicy.APPROVE, False, False),
        (State.APPROVED, ExpiryPolicy.FAIL, True, False),
        (State.DENIED, ExpiryPolicy.APPROVE, False, False),
        (State.EXPIRED, ExpiryPolicy.DENY, False, False),
        (State.EXPIRED, ExpiryPolicy.APPROVE, True, False),
        (State.EXPIRED, ExpiryPolicy.FAIL, False, True),
        (State.CANCELLED, ExpiryPolicy.APPROVE, False, False),
    ],
)
def test_what_a_run_may_do_follows_from_state_and_policy(
    state: State, policy: ExpiryPolicy, granted: bool, fails: bool
) -> None:
    approval = replace(ASKED, state=state, on_expiry=policy)
    assert (approval.granted, approval.fails_run) == (granted, fails)
