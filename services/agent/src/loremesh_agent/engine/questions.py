"""What a run asks of humans, and what it makes of what they say."""

import json
from dataclasses import asdict
from datetime import timedelta

from loremesh_agent.domain import loop
from loremesh_agent.domain.agents import Agent
from loremesh_agent.domain.approvals import Approval, Kind, NewApproval
from loremesh_agent.domain.approvals import State as ApprovalState
from loremesh_agent.domain.reviews import QUESTION, Review
from loremesh_agent.domain.steps import Step, StepKind, StepState
from loremesh_agent.domain.tools import ExpiryPolicy, ToolCall
from loremesh_agent.errors import ToolArgumentsInvalid
from loremesh_agent.ports import Asking, Tools

_DUE_IN = timedelta(hours=24)
_LONGEST_QUESTION = 2000


def asking(
    wanted: loop.AskHuman, *, number: int, rules: loop.Rules, run_id: str, conversation_id: str, agent: Agent
) -> Asking:
    """A question of the run; it binds to the exact arguments, or to the exact output."""
    if wanted.kind is Kind.OUTPUT:
        review = rules.review or Review()
        new = NewApproval(
            kind=wanted.kind,
            run_id=run_id,
            conversation_id=conversation_id,
            agent_id=agent.id,
            question=review.question or QUESTION,
            due_in=review.due_in,
            on_expiry=review.on_expiry,
            assignee=review.assignee,
            output=wanted.output,
            output_schema=agent.response_schema,
        )
        return Asking(number=number, new=new)
    use = rules.uses.get(wanted.name)
    on_expiry = use.on_expiry if use else ExpiryPolicy.DENY
    if wanted.kind is Kind.REVIEW and on_expiry is ExpiryPolicy.APPROVE:
        # Silence never repeats a call that may have been made.
        on_expiry = ExpiryPolicy.DENY
    new = NewApproval(
        kind=wanted.kind,
        run_id=run_id,
        conversation_id=conversation_id,
        agent_id=agent.id,
        tool_name="" if wanted.kind in (Kind.BUDGET, Kind.QUESTION) else wanted.name,
        arguments=wanted.arguments,
        question=_question(wanted),
        due_in=use.approval_time if use else _DUE_IN,
        on_expiry=on_expiry,
    )
    return Asking(number=number, new=new, call_id=wanted.call_id, limit=wanted.limit)


def _question(wanted: loop.AskHuman) -> str:
    match wanted.kind:
        case Kind.BUDGET:
            return f"The run has reached its limit of {wanted.limit}. May it take as much again?"
        case Kind.REVIEW:
            return f"{wanted.name} was called and nobody knows how that ended. Call it again, or say what it answered?"
        case Kind.QUESTION:
            return str(wanted.arguments.get("question", ""))[:_LONGEST_QUESTION]
    return f"May {wanted.name} be called with these arguments?"


def decided(approval: Approval, *, number: int, tools: Tools, rules: loop.Rules) -> loop.HumanDecided:
    """A decision as the loop takes it; arguments of a human are checked as a model's are."""
    arguments, problem = None, ""
    spec = rules.tools.get(approval.tool_name)
    if approval.edited and spec is not None:
        call = ToolCall(id=approval.id, name=spec.name, arguments=json.dumps(approval.arguments))
        try:
            arguments = tools.check(spec, call)
        except ToolArgumentsInvalid as error:
            problem = error.metadata["problem"]
    comment = approval.comment.strip()
    if approval.state is ApprovalState.EXPIRED:
        # Of an output the model is told what a human said, and nothing else sends it back.
        comment = "" if approval.kind is Kind.OUTPUT else "Nobody decided in time."
    return loop.HumanDecided(
        approval_id=approval.id,
        granted=approval.granted,
        number=number,
        fails_run=approval.fails_run,
        arguments=arguments,
        problem=problem,
        answer=approval.answer if approval.state is ApprovalState.ANSWERED else "",
        comment=comment,
    )


def settled(approval: Approval, event: loop.HumanDecided, *, number: int) -> Step:
    """The question's step, decided."""
    output = {name: value for name, value in asdict(event).items() if name != "approval_id"}
    went_ahead = event.granted or bool(event.answer)
    return Step(
        number=number,
        kind=StepKind.APPROVAL,
        state=StepState.DONE if went_ahead else StepState.FAILED,
        name=approval.id,
        output=output,
    )
