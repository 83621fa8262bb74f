"""Calls a model asks for: whether they are made, and what humans make of them."""

import re
from dataclasses import replace

from loremesh_agent.domain import delegation
from loremesh_agent.domain.loop_state import InHand, Phase, State
from loremesh_agent.domain.loop_words import CheckedCall, HumanDecided
from loremesh_agent.domain.tools import ApprovalPolicy, Effect, Outcome, ToolSpec, ToolUse
from loremesh_agent.errors import CoworkerUnknown

# A tool nobody calls: the question goes to a human.
ASK_HUMAN = "ask_human"
_LONGEST_NAME = 64
_NAME = re.compile(r"[^A-Za-z0-9_.-]")


def in_hand(state: State, call: CheckedCall, *, call_id: str, affordable: bool) -> InHand:
    """Whether a call is made, asked about, or refused; `affordable` where there is a budget for it."""
    rules, name = state.rules, _NAME.sub("_", call.name)[:_LONGEST_NAME]
    spec = rules.tools.get(call.name)
    taken = InHand(call_id=call_id, name=name, arguments=call.arguments or {}, phase=Phase.CALL)
    if spec is None:
        return _refused(taken, "TOOL_NOT_ALLOWED", f"The tool {name!r} is not one of yours.")
    if call.arguments is None:
        return _refused(taken, "TOOL_ARGUMENTS_INVALID", f"Not called. The arguments are not valid: {call.problem}")
    if rules.hands_on(name) and delegation.found(rules.coworkers, call.arguments["coworker"]) is None:
        known = ", ".join(each.name for each in rules.coworkers)
        unknown = CoworkerUnknown(name, coworker=call.arguments["coworker"], known=known)
        return _refused(taken, unknown.reason, unknown.message)
    if not affordable:
        return _refused(taken, "BUDGET_EXHAUSTED", "Not called. There are no tool calls left in this run's budget.")
    asks = name == ASK_HUMAN or needs_approval(spec, rules.uses.get(call.name), untrusted=state.untrusted)
    return replace(taken, phase=Phase.ASK if asks else Phase.CALL)


def needs_approval(spec: ToolSpec, use: ToolUse | None, *, untrusted: bool) -> bool:
    """Whether a human is asked before a call; `untrusted` while text of strangers is in play."""
    policy = use.approval if use else ApprovalPolicy.AS_NEEDED
    if policy is ApprovalPolicy.AS_NEEDED:
        return untrusted and spec.effect is not Effect.READ_ONLY
    return policy is ApprovalPolicy.ALWAYS


def _refused(call: InHand, reason: str, content: str) -> InHand:
    return replace(call, phase=Phase.ANSWERED, outcome=Outcome.REFUSED, reason=reason, content=content)


def decided(call: InHand, event: HumanDecided, *, is_all: bool) -> InHand:
    """A call of which a human decided; `is_all` where the run is this one call."""
    if event.answer:
        as_it_is = is_all or call.phase is Phase.REVIEW
        content = event.answer if as_it_is else f"A human answered: {event.answer}"
        return replace(call, phase=Phase.ANSWERED, number=event.number, content=content)
    if not event.granted or call.name == ASK_HUMAN:
        comment = f": {event.comment}" if event.comment else "."
        return replace(_refused(call, "TOOL_DENIED", f"A human denied this call{comment}"), number=event.number)
    if event.problem:
        content = f"Not called. The arguments are not valid: {event.problem}"
        return replace(_refused(call, "TOOL_ARGUMENTS_INVALID", content), number=event.number)
    arguments = call.arguments if event.arguments is None else event.arguments
    return replace(call, phase=Phase.CALL, number=event.number, arguments=arguments, approval_id="")
