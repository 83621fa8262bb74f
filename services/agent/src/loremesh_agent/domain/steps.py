"""Steps of a run as its journal keeps them, and a run as it stands by them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from loremesh_agent.domain import loop
from loremesh_agent.domain.agents import Agent
from loremesh_agent.domain.approvals import Kind
from loremesh_agent.domain.budgets import NOTHING, Budget
from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.definitions import LimitPolicy
from loremesh_agent.domain.delegation import Coworker
from loremesh_agent.domain.events import FinishReason, Payload
from loremesh_agent.domain.journal import Kept, source
from loremesh_agent.domain.passages import Source
from loremesh_agent.domain.prompts import PromptMessage
from loremesh_agent.domain.reviews import Review
from loremesh_agent.domain.tools import ApprovalPolicy, Effect, ExpiryPolicy, Outcome, ToolCall, ToolSpec, ToolUse


class StepKind(StrEnum):
    """What a step is."""

    MODEL = "MODEL"
    TOOL = "TOOL"
    APPROVAL = "APPROVAL"


class StepState(StrEnum):
    """Where a step stands."""

    # Intended; nothing is known of its end.
    STARTED = "STARTED"
    DONE = "DONE"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step; `name` is the model, the tool, or the approval's id."""

    number: int
    kind: StepKind
    state: StepState
    name: str
    input: Kept = field(default_factory=dict)
    output: Kept = field(default_factory=dict)
    usage: Usage | None = None
    # What asking the model may take at most, while it is being asked.
    reserved: Usage = NOTHING
    idempotency_key: str = ""
    start_time: datetime | None = None
    finish_time: datetime | None = None
    # Seconds since it began, where that is not written yet.
    age: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What becomes true of a run in one transaction."""

    steps: Sequence[Step] = ()
    happened: Sequence[Payload] = ()
    # All that the run took so far, and what of it is new.
    usage: Usage | None = None
    taken: Usage = NOTHING
    # What the run was made with, where that is not kept yet or has changed.
    record: Kept | None = None


def record(agent: Agent, *, model: str, generations: Mapping[str, int]) -> Kept:
    """What any run is made with; `generations` are of the indexes searched, by vector store."""
    return {
        "agent_revision": agent.revision,
        "model": model,
        "prompt": asdict(agent.prompt) if agent.prompt else None,
        "tool_schemas": {},
        "index_generations": dict(generations),
    }


def joined(intended: Sequence[Step], came: Sequence[Step], *, age: float) -> list[Step]:
    """Steps intended `age` seconds ago and not written since, as what came of some of them leaves them."""
    outcome = {step.number: step for step in came}
    whole = {step.number: replace(outcome.get(step.number, step), input=step.input, age=age) for step in intended}
    return [*whole.values(), *(step for step in came if step.number not in whole)]


def begun(state: loop.State) -> Kept:
    """The input of a run's first step: all that it knows before it asks the model."""
    return {
        "messages": [asdict(replace(message, attachments=())) for message in state.messages],
        "sources": [asdict(each) for each in state.sources],
        "untrusted": state.untrusted,
    }


def added(state: loop.State) -> Kept:
    """The input of a later question to the model: what it is told beyond what it knew."""
    last = max((at for at, message in enumerate(state.messages) if message.role == "assistant"), default=0)
    return {"messages": [asdict(message) for message in state.messages[last:]]}


def first_sources(journal: Sequence[Step]) -> tuple[Source, ...]:
    """The passages that a run began with."""
    return tuple(map(source, journal[0].input.get("sources", ())))


def model_answered(event: loop.ModelAnswered) -> Step:
    """The step of asking a model."""
    output = {
        "text": event.text,
        "calls": [asdict(call) for call in event.calls],
        "finish_reason": event.reason,
        "problem": event.problem,
        "grounded": event.grounded,
    }
    return Step(
        number=event.number,
        kind=StepKind.MODEL,
        state=StepState.DONE,
        name=event.model,
        output=output,
        usage=event.usage,
    )


def tool_answered(event: loop.ToolTold, tool: str) -> Step:
    """The step of calling a tool."""
    output = {
        "content": event.content,
        "outcome": event.outcome,
        "reason": event.reason,
        "sources": [asdict(each) for each in event.sources],
    }
    state = StepState.DONE if event.outcome is Outcome.OK else StepState.FAILED
    return Step(number=event.number, kind=StepKind.TOOL, state=state, name=tool, output=output)


def refused(call: loop.InHand) -> Step:
    """A call that is not made."""
    return Step(
        number=call.number,
        kind=StepKind.TOOL,
        state=StepState.FAILED,
        name=call.name,
        input={"call_id": call.call_id, "arguments": dict(call.arguments)},
        output={"content": call.content, "outcome": call.outcome, "reason": call.reason, "sources": []},
    )


def retold(rules: loop.Rules, model: str, steps: Sequence[Step], *, begun: loop.Begun | None = None) -> loop.State:
    """A run as it stands by its journal, in the order of the numbers; `begun` is a beginning that is not in it."""
    state = loop.State(rules=rules, model=model)
    if begun:
        state, _ = loop.step(state, begun)
    for step in steps:
        for event in _events(step, state):
            state, _ = loop.step(state, event)
    return state


def _events(step: Step, state: loop.State) -> list[loop.Event]:
    match step.kind:
        case StepKind.MODEL:
            first: list[loop.Event] = [] if state.messages else [_begun(step.input)]
            return [*first, *([_answered(step)] if step.state is StepState.DONE else [])]
        case StepKind.TOOL if step.state is not StepState.STARTED:
            return [_told(step)]
        case StepKind.TOOL:
            spec = state.rules.tools.get(step.name)
            # What changes nothing, or nothing more, is simply called again.
            return [loop.ToolLost(step.number)] if spec and spec.effect is Effect.SIDE_EFFECTING else []
        case StepKind.APPROVAL:
            asked = loop.HumanAsked(
                number=step.number,
                approval_id=step.name,
                kind=Kind(step.input["kind"]),
                call_id=step.input["call_id"],
                limit=step.input["limit"],
            )
            return [asked, loop.HumanDecided(approval_id=step.name, **step.output)] if step.output else [asked]


def _begun(kept: Kept) -> loop.Begun:
    return loop.Begun(
        messages=tuple(_message(each) for each in kept["messages"]),
        sources=tuple(map(source, kept["sources"])),
        untrusted=kept["untrusted"],
    )


def _message(kept: Kept) -> PromptMessage:
    calls = tuple(ToolCall(**call) for call in kept["tool_calls"])
    return PromptMessage(**{**kept, "tool_calls": calls, "attachments": ()})


def _answered(step: Step) -> loop.ModelAnswered:
    kept = step.output
    return loop.ModelAnswered(
        number=step.number,
        model=step.name,
        text=kept["text"],
        reason=FinishReason(kept["finish_reason"]),
        usage=step.usage or NOTHING,
        calls=tuple(loop.CheckedCall(**call) for call in kept["calls"]),
        problem=kept["problem"],
        grounded=kept.get("grounded", False),
    )


def _told(step: Step) -> loop.ToolTold:
    kept = step.output
    return loop.ToolTold(
        number=step.number,
        content=kept["content"],
        outcome=Outcome(kept["outcome"]),
        reason=kept["reason"],
        sources=tuple(map(source, kept["sources"])),
    )


def kept_rules(rules: loop.Rules) -> Kept:
    """Rules, to be read again by whoever takes the run up."""
    return {
        "version": loop.VERSION,
        "tools": [asdict(spec) for spec in rules.tools.values()],
        "uses": [{**asdict(use), "approval_time": use.approval_time.total_seconds()} for use in rules.uses.values()],
        "budget": asdict(rules.budget),
        "on_limit": rules.on_limit,
        "fallback_model": rules.fallback_model,
        "coworkers": [asdict(each) for each in rules.coworkers],
        "review": {**asdict(rules.review), "due_in": rules.review.due_in.total_seconds()} if rules.review else None,
    }


def read_rules(kept: Mapping[str, Any]) -> loop.Rules:
    """Rules that were kept."""
    tools = [ToolSpec(**{**each, "effect": Effect(each["effect"])}) for each in kept["tools"]]
    uses = [
        ToolUse(
            name=each["name"],
            approval=ApprovalPolicy(each["approval"]),
            approval_time=timedelta(seconds=each["approval_time"]),
            on_expiry=ExpiryPolicy(each["on_expiry"]),
        )
        for each in kept["uses"]
    ]
    return loop.Rules(
        tools={spec.name: spec for spec in tools},
        uses={use.name: use for use in uses},
        budget=Budget(**kept["budget"]),
        on_limit=LimitPolicy(kept["on_limit"]),
        fallback_model=kept["fallback_model"],
        # Of runs that began before there were any, nothing is kept of them.
        coworkers=tuple(Coworker(**each) for each in kept.get("coworkers", ())),
        review=_review(kept.get("review")),
    )


def _review(kept: Kept | None) -> Review | None:
    if kept is None:
        return None
    times = {"due_in": timedelta(seconds=kept["due_in"]), "on_expiry": ExpiryPolicy(kept["on_expiry"])}
    return Review(**{**kept, **times})
