"""What runs ask of humans: who may say what, and when somebody has to be told again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from loremesh_kit import schemas

from loremesh_agent.domain.tools import ExpiryPolicy
from loremesh_agent.errors import ApprovalDecided, DecisionInvalid, ToolArgumentsInvalid

# Of the time until it expires.
_REMINDED_AT = 1 / 2
_ESCALATED_AT = 9 / 10
# Of JSON; arguments are listed, watched and shown to the model.
_LONGEST_ARGUMENTS = 65_536


class Kind(StrEnum):
    """What is asked."""

    TOOL_CALL = "TOOL_CALL"
    QUESTION = "QUESTION"
    BUDGET = "BUDGET"
    # A call was begun and nobody knows how it ended.
    REVIEW = "REVIEW"
    # An output of a task is to be accepted.
    OUTPUT = "OUTPUT"


class State(StrEnum):
    """Where it stands."""

    PENDING = "PENDING"
    APPROVED = "APPROVED"
    DENIED = "DENIED"
    ANSWERED = "ANSWERED"
    EXPIRED = "EXPIRED"
    CANCELLED = "CANCELLED"


class Verdict(StrEnum):
    """What a human says."""

    APPROVE = "APPROVE"
    DENY = "DENY"
    ANSWER = "ANSWER"


class Alarm(StrEnum):
    """What time does to an approval that nobody decides."""

    REMIND = "REMIND"
    ESCALATE = "ESCALATE"
    EXPIRE = "EXPIRE"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewApproval:
    """Something to be asked; `arguments` are the exact ones that would be called with."""

    kind: Kind
    run_id: str
    conversation_id: str
    agent_id: str
    tool_name: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    question: str
    due_in: timedelta
    on_expiry: ExpiryPolicy = ExpiryPolicy.DENY
    # Who is asked; empty means anyone.
    assignee: str = ""
    # What is to be accepted, and what an output in its place must fulfil.
    output: str = ""
    output_schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What somebody says; `arguments` None means those that were shown."""

    verdict: Verdict
    arguments: Mapping[str, Any] | None = None
    answer: str = ""
    comment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """An approval as it stands; `revision` grows with every change."""

    id: str
    kind: Kind
    state: State
    run_id: str
    conversation_id: str
    agent_id: str
    tool_name: str
    arguments: Mapping[str, Any]
    question: str
    create_time: datetime
    due_time: datetime
    on_expiry: ExpiryPolicy
    revision: int
    # Whether `arguments` are those of whoever approved, in place of those that were shown.
    edited: bool = False
    remind_time: datetime | None = None
    escalate_time: datetime | None = None
    decide_time: datetime | None = None
    decided_by: str = ""
    comment: str = ""
    answer: str = ""
    # The run of a crew or flow, and what the task is called there; empty for chats.
    root_run_id: str = ""
    task_name: str = ""
    assignee: str = ""
    output: str = ""
    output_schema: Mapping[str, Any] | None = None

    @property
    def etag(self) -> str:
        """What a decision sends back to decide only what was read."""
        return str(self.revision)

    @property
    def granted(self) -> bool:
        """Whether the run may go ahead: somebody said so, or nobody spoke and that means yes."""
        return self.state is State.APPROVED or (self.state is State.EXPIRED and self.on_expiry is ExpiryPolicy.APPROVE)

    @property
    def fails_run(self) -> bool:
        """Whether the run must not go on, since nobody spoke."""
        return self.state is State.EXPIRED and self.on_expiry is ExpiryPolicy.FAIL

    def alarm(self, now: datetime) -> Alarm | None:
        """What is to be done now: the last that is due, so that nobody is reminded of what has expired."""
        left = self.due_time - self.create_time
        if self.state is not State.PENDING:
            return None
        if now >= self.due_time:
            return Alarm.EXPIRE
        if self.escalate_time is None and now >= self.create_time + left * _ESCALATED_AT:
            return Alarm.ESCALATE
        if self.escalate_time is None and self.remind_time is None and now >= self.create_time + left * _REMINDED_AT:
            return Alarm.REMIND
        return None


_FITTING = {
    Kind.TOOL_CALL: {Verdict.APPROVE, Verdict.DENY},
    Kind.QUESTION: {Verdict.ANSWER, Verdict.DENY},
    Kind.BUDGET: {Verdict.APPROVE, Verdict.DENY},
    Kind.REVIEW: {Verdict.APPROVE, Verdict.ANSWER, Verdict.DENY},
    Kind.OUTPUT: {Verdict.APPROVE, Verdict.ANSWER, Verdict.DENY},
}
_STATES = {Verdict.APPROVE: State.APPROVED, Verdict.DENY: State.DENIED, Verdict.ANSWER: State.ANSWERED}


def state_after(verdict: Verdict) -> State:
    """How an approval stands of which this was said."""
    return _STATES[verdict]


def check(approval: Approval, decision: Decision) -> None:
    """Raise DecisionInvalid where the decision is no answer to what is asked.

    And ToolArgumentsInvalid for arguments which no tool would take, whatever its schema.
    """
    kind, verdict = approval.kind, decision.verdict
    problem = ""
    if verdict not in _FITTING[kind]:
        problem = f"{verdict} is no answer to {kind}."
    elif decision.arguments is not None and (kind, verdict) != (Kind.TOOL_CALL, Verdict.APPROVE):
        problem = "Arguments can be given when a tool call is approved, and at no other time."
    elif verdict is Verdict.ANSWER and not decision.answer.strip():
        problem = "There is no answer."
    elif verdict is not Verdict.ANSWER and decision.answer:
        problem = f"{verdict} takes no answer; what the model is to be told beside it is a comment."
    elif verdict is Verdict.ANSWER and approval.output_schema is not None:
        problem = schemas.problem_of_text(approval.output_schema, decision.answer)
    if problem:
        raise DecisionInvalid(problem, kind=kind, decision=verdict)
    if decision.arguments is not None:
        _check_size(approval.tool_name, decision.arguments)


def _check_size(tool: str, arguments: Mapping[str, Any]) -> None:
    try:
        length = len(json.dumps(arguments, allow_nan=False, ensure_ascii=False).encode())
    except ValueError:
        raise ToolArgumentsInvalid(tool, problem="a number is not finite") from None
    if length > _LONGEST_ARGUMENTS:
        raise ToolArgumentsInvalid(tool, problem=f"they are longer than {_LONGEST_ARGUMENTS} bytes")


def said_before(approval: Approval, decision: Decision) -> bool:
    """Whether the approval was decided just so; raises ApprovalDecided where it was decided otherwise."""
    if approval.state is State.PENDING:
        return False
    same = approval.state is state_after(decision.verdict) and approval.answer == decision.answer
    if decision.arguments is None:
        same = same and not approval.edited
    else:
        same = same and approval.arguments == decision.arguments
    if not same:
        raise ApprovalDecided(approval.id, state=approval.state)
    return True
