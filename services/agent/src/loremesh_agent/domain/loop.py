"""The agent loop: what is to be done next, from what has happened. Without I/O, clock or chance.

Whatever happened before is a state; an event makes the next one, and what a state wants done are its effects. The same
events make the same state in any process, so that a run is taken up anywhere by telling its journal again.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from loremesh_agent.domain import loop_calls
from loremesh_agent.domain.approvals import Kind
from loremesh_agent.domain.budgets import NOTHING, Limit, added, calls_left, reached
from loremesh_agent.domain.definitions import LimitPolicy
from loremesh_agent.domain.events import FinishReason
from loremesh_agent.domain.loop_calls import ASK_HUMAN
from loremesh_agent.domain.loop_state import InHand, Phase, State
from loremesh_agent.domain.loop_words import (
    AskHuman,
    AskModel,
    Begun,
    CallTool,
    CancelledByCaller,
    CheckedCall,
    End,
    Event,
    Finish,
    HandOn,
    HumanAsked,
    HumanDecided,
    LimitReached,
    ModelAnswered,
    Rules,
    ToolLost,
    ToolTold,
    Wanted,
)
from loremesh_agent.domain.prompts import PromptMessage
from loremesh_agent.domain.reviews import Draft, remark
from loremesh_agent.domain.tools import Outcome, ToolCall
from loremesh_agent.domain.untrusted import framed

__all__ = [
    "ASK_HUMAN",
    "CALLS_AT_ONCE",
    "VERSION",
    "AskHuman",
    "AskModel",
    "Begun",
    "CallTool",
    "CancelledByCaller",
    "CheckedCall",
    "End",
    "Event",
    "Finish",
    "HandOn",
    "HumanAsked",
    "HumanDecided",
    "InHand",
    "LimitReached",
    "ModelAnswered",
    "Phase",
    "Rules",
    "State",
    "ToolLost",
    "ToolTold",
    "Wanted",
    "handed_on",
    "step",
    "wanted",
]

# Of the rules below: a journal is told again by the rules it was written with.
VERSION = 1
# More are refused: no model needs them, and every one costs an answer.
CALLS_AT_ONCE = 32


def step(state: State, event: Event) -> tuple[State, tuple[Wanted, ...]]:
    """The state after an event, and what is to be done that was not before; an end is an end."""
    if state.end is not None:
        return state, ()
    before = wanted(state)
    after = _after(state, event)
    return after, tuple(each for each in wanted(after) if each not in before)


def wanted(state: State) -> tuple[Wanted, ...]:
    """What is to be done now, for whoever takes the run up in this state."""
    if state.end is not None:
        return (state.end,)
    if state.limit is not None:
        return () if state.limit_approval_id else (AskHuman(kind=Kind.BUDGET, limit=state.limit),)
    if state.asking:
        return (AskModel(number=state.asking, model=state.model),)
    if state.draft is not None:
        return () if state.draft.approval_id else (AskHuman(kind=Kind.OUTPUT, output=state.draft.text),)
    return tuple(each for call in state.calls for each in _wanted_of(call, state.rules))


def handed_on(state: State) -> tuple[HandOn, ...]:
    """The calls that coworkers do, whatever else the run waits for."""
    made = (_wanted_of(call, state.rules) for call in state.calls if call.phase is Phase.CALL)
    return tuple(each for effects in made for each in effects if isinstance(each, HandOn))


def _wanted_of(call: InHand, rules: Rules) -> tuple[Wanted, ...]:
    if call.phase is Phase.CALL:
        how = HandOn if rules.hands_on(call.name) else CallTool
        return (how(number=call.number, call_id=call.call_id, name=call.name, arguments=call.arguments),)
    if call.phase is Phase.ANSWERED or call.approval_id:
        return ()
    kind = Kind.REVIEW if call.phase is Phase.REVIEW else Kind.QUESTION if call.name == ASK_HUMAN else Kind.TOOL_CALL
    return (AskHuman(kind=kind, call_id=call.call_id, name=call.name, arguments=call.arguments),)


def _after(state: State, event: Event) -> State:  # noqa: PLR0911 - one for each event
    match event:
        case Begun():
            return _begun(state, event)
        case ModelAnswered():
            return _answered(state, event)
        case ToolTold():
            return _told(state, event)
        case ToolLost(number):
            return _with_call(state, number, phase=Phase.REVIEW, approval_id="")
        case HumanAsked():
            return _asked(state, event)
        case HumanDecided():
            return _decided(state, event)
        case LimitReached(limit):
            return _limited(state, limit)
        case CancelledByCaller():
            return replace(state, end=Finish(end=End.CANCELLED, text=state.text))


def _begun(state: State, event: Begun) -> State:
    if state.messages or state.invoked:
        return state
    state = replace(state, messages=event.messages, sources=event.sources, untrusted=state.untrusted or event.untrusted)
    return _ask_model(state) if event.call is None else _invoke(state, event.call)


def _invoke(state: State, call: CheckedCall) -> State:
    """The one call that the run is."""
    in_hand = loop_calls.in_hand(state, call, call_id="call_0_0", affordable=True)
    if in_hand.phase is Phase.CALL:
        in_hand = replace(in_hand, number=1)
    return _round_off(
        replace(
            state, invoked=True, calls=(in_hand,), number=in_hand.number,
            spent=added(state.spent, replace(NOTHING, tool_calls=1)),
        )
    )  # fmt: skip


def _ask_model(state: State) -> State:
    limit = reached(state.rules.budget, state.spent, grants=state.grants)
    state = replace(state, asking=state.number + 1, number=state.number + 1)
    return state if limit is None else _limited(state, limit)


def _limited(state: State, limit: Limit) -> State:
    """A budget is spent: stop, ask, or go on with the cheaper model, once."""
    rules = state.rules
    if state.limit is not None:
        return state
    falls_back = rules.on_limit is LimitPolicy.FALL_BACK and limit == "cost" and rules.fallback_model
    if falls_back and state.model != rules.fallback_model and state.asking:
        return replace(state, model=rules.fallback_model)
    if rules.on_limit is LimitPolicy.ASK:
        return replace(state, limit=limit)
    return _stopped(state, limit)


def _stopped(state: State, limit: Limit) -> State:
    finish = Finish(end=End.INCOMPLETE, text=state.text, reason=FinishReason.LIMIT, limit=limit)
    return replace(state, limit=limit, end=finish)


def _answered(state: State, event: ModelAnswered) -> State:
    if not event.number or event.number != state.asking:
        return state
    taken = replace(event.usage, steps=1, tool_calls=0)
    state = replace(
        state, asking=0, model=event.model, spent=added(state.spent, taken), text=event.text or state.text,
        limit=None, limit_approval_id="", grounded=event.grounded,
    )  # fmt: skip
    if event.calls and event.reason in (FinishReason.STOP, FinishReason.TOOL_CALLS):
        return _take_up(state, event)
    if event.problem and event.reason is FinishReason.STOP:
        return _repair(state, event)
    if event.reason in (FinishReason.STOP, FinishReason.TOOL_CALLS):
        return _answered_with(state, event.text)
    return replace(state, end=Finish(end=End.INCOMPLETE, text=event.text, reason=event.reason))


def _answered_with(state: State, text: str) -> State:
    """Take it as the output, unless a human has to accept it first."""
    if state.rules.review is not None:
        return replace(state, draft=Draft(text=text))
    return replace(state, end=Finish(end=End.COMPLETED, text=text))


def _repair(state: State, event: ModelAnswered) -> State:
    """The one chance to put an answer right that does not fulfil its schema."""
    if state.repairing:
        return _unusable(state, event.problem)
    told = (
        PromptMessage("assistant", event.text),
        PromptMessage("user", f"That is not what was asked for: {event.problem} Answer again, with the JSON alone."),
    )
    return _ask_model(replace(state, messages=(*state.messages, *told), repairing=True))


def _unusable(state: State, problem: str) -> State:
    return replace(state, end=Finish(end=End.FAILED, text=state.text, error="MODEL_OUTPUT_INVALID", problem=problem))


def _take_up(state: State, event: ModelAnswered) -> State:
    """Decide of each call whether it is made, asked about, or refused."""
    calls, surplus = event.calls[:CALLS_AT_ONCE], event.calls[CALLS_AT_ONCE:]
    invalid = [call for call in calls if call.name in state.rules.tools and call.arguments is None]
    if invalid and state.repairing:
        return _unusable(state, invalid[0].problem)
    left = calls_left(state.rules.budget, state.spent, grants=state.grants)
    makeable = [call for call in calls if call.name in state.rules.tools and call.arguments is not None]
    if makeable and not left and state.rules.on_limit is not LimitPolicy.ASK:
        return _stopped(state, "tool_calls")
    asks_for_more = makeable and not left
    if asks_for_more:
        # Should they be granted, there are as many again.
        left = calls_left(state.rules.budget, state.spent, grants={**state.grants, "tool_calls": 1_000_000})
    taken: list[InHand] = []
    for index, call in enumerate(calls):
        in_hand = loop_calls.in_hand(state, call, call_id=f"call_{event.number}_{index}", affordable=left > 0)
        left -= in_hand.phase is not Phase.ANSWERED
        if in_hand.phase is not Phase.ASK:
            state = replace(state, number=state.number + 1)
            in_hand = replace(in_hand, number=state.number)
        taken.append(in_hand)
    refused = tuple(each for each in taken if each.phase is Phase.ANSWERED)
    made = len(taken) - len(refused)
    state = replace(
        state, calls=tuple(taken), surplus=len(surplus), repairing=bool(invalid), text=event.text,
        spent=added(state.spent, replace(NOTHING, tool_calls=made)),
        refusals=(*state.refusals, *refused), limit="tool_calls" if asks_for_more else None,
    )  # fmt: skip
    return _round_off(state)


def _told(state: State, event: ToolTold) -> State:
    call = _call_of(state, event.number)
    if call is None or call.phase is not Phase.CALL:
        return state
    spec = state.rules.tools.get(call.name)
    state = replace(
        state,
        sources=tuple(sorted((*state.sources, *event.sources), key=lambda source: source.number)),
        untrusted=state.untrusted or spec is None or spec.untrusted,
    )
    strange = not state.invoked and (event.sources or spec is None or spec.untrusted)
    content = framed(call.name, event.content, event.sources) if strange else event.content
    return _round_off(
        _with_call(
            state, event.number, phase=Phase.ANSWERED, content=content, outcome=event.outcome, reason=event.reason
        )
    )


def _asked(state: State, event: HumanAsked) -> State:
    state = replace(state, number=max(state.number, event.number))
    if event.kind is Kind.BUDGET:
        return replace(state, limit=event.limit, limit_approval_id=event.approval_id)
    if event.kind is Kind.OUTPUT:
        return replace(state, draft=replace(state.draft, approval_id=event.approval_id) if state.draft else None)
    calls = (
        replace(call, approval_id=event.approval_id) if call.call_id == event.call_id else call for call in state.calls
    )
    return replace(state, calls=tuple(calls))


def _decided(state: State, event: HumanDecided) -> State:
    state = replace(state, number=max(state.number, event.number))
    if event.approval_id and event.approval_id == state.limit_approval_id:
        return _limit_decided(state, event)
    if state.draft is not None and event.approval_id and event.approval_id == state.draft.approval_id:
        return _draft_decided(state, state.draft, event)
    call = next((each for each in state.calls if each.approval_id == event.approval_id), None)
    if call is None or call.phase not in (Phase.ASK, Phase.REVIEW):
        return state
    if event.fails_run:
        return replace(state, end=_expired(state, event))
    changed = loop_calls.decided(call, event, is_all=state.invoked)
    refused = (changed,) if changed.outcome is Outcome.REFUSED else ()
    calls = tuple(changed if each is call else each for each in state.calls)
    return _round_off(replace(state, calls=calls, refusals=(*state.refusals, *refused)))


def _expired(state: State, event: HumanDecided) -> Finish:
    return Finish(end=End.FAILED, text=state.text, error="APPROVAL_EXPIRED", problem=event.approval_id)


def _draft_decided(state: State, draft: Draft, event: HumanDecided) -> State:
    """Take the output, the human's in its place, or have the model answer again to what they say of it."""
    if event.answer:
        return replace(state, grounded=False, end=Finish(end=End.COMPLETED, text=event.answer))
    if event.granted:
        return replace(state, end=Finish(end=End.COMPLETED, text=draft.text))
    review = state.rules.review
    # A call of a tool answers the same again.
    is_final = event.fails_run or not event.comment or state.invoked
    if is_final or review is None or state.rounds >= review.max_rounds:
        rejected = Finish(end=End.FAILED, text=draft.text, error="OUTPUT_REJECTED", problem=event.approval_id)
        return replace(state, end=rejected)
    told = (PromptMessage("assistant", draft.text), PromptMessage("user", remark(event.comment)))
    messages = (*state.messages, *told)
    return _ask_model(replace(state, messages=messages, draft=None, rounds=state.rounds + 1, repairing=False))


def _limit_decided(state: State, event: HumanDecided) -> State:
    limit = state.limit
    if limit is None:
        return state
    if event.fails_run:
        return replace(state, end=_expired(state, event))
    if not event.granted:
        return _stopped(state, limit)
    grants = {**state.grants, limit: state.grants.get(limit, 0) + 1}
    state = replace(state, grants=grants, limit=None, limit_approval_id="")
    if state.asking:
        still = reached(state.rules.budget, state.spent, grants=grants)
        return state if still is None else _limited(state, still)
    # The last of the calls may have been answered meanwhile.
    return _round_off(state)


def _round_off(state: State) -> State:
    """Once every call is answered, tell the model so and ask it again."""
    if not state.calls or state.limit or any(call.phase is not Phase.ANSWERED for call in state.calls):
        return state
    if state.invoked:
        return _invoked(state, state.calls[0])
    asked = tuple(ToolCall(id=each.call_id, name=each.name, arguments=_json(each.arguments)) for each in state.calls)
    told = [PromptMessage("tool", each.content, tool_call_id=each.call_id) for each in state.calls]
    if state.surplus:
        surplus = f"\n{state.surplus} more calls were refused: no more than {CALLS_AT_ONCE} at once."
        told[-1] = replace(told[-1], content=told[-1].content + surplus)
    messages = (*state.messages, PromptMessage("assistant", state.text, tool_calls=asked), *told)
    return _ask_model(replace(state, messages=messages, calls=(), surplus=0))


def _invoked(state: State, call: InHand) -> State:
    """How a run goes on that was this one call."""
    if call.outcome is not Outcome.OK:
        failed = Finish(end=End.FAILED, error=call.reason or "TOOL_FAILED", problem=call.content)
        return replace(state, end=failed)
    return state if state.draft else _answered_with(state, call.content)


def _json(arguments: Mapping[str, Any]) -> str:
    return json.dumps(arguments, ensure_ascii=False, sort_keys=True)


def _call_of(state: State, number: int) -> InHand | None:
    return next((call for call in state.calls if number and call.number == number), None)


def _with_call(state: State, number: int, **changes: Any) -> State:
    """The state with its call of this step changed, unless that is answered."""
    calls = tuple(
        replace(call, **changes) if number and call.number == number and call.phase is Phase.CALL else call
        for call in state.calls
    )
    return replace(state, calls=calls)
