"""Steps as events of the log: those of now, and those that an attempt which died has told in vain."""

from collections.abc import Sequence

from loremesh_agent.domain import loop
from loremesh_agent.domain.events import (
    FinishReason,
    Payload,
    TextDelta,
    TextFinish,
    TextStart,
    ToolAnswered,
    ToolCalled,
    UsageTold,
)
from loremesh_agent.domain.journal import source
from loremesh_agent.domain.steps import Step, StepKind, StepState
from loremesh_agent.domain.tools import Outcome

_LONGEST_CONTENT = 4000


def called(effect: loop.CallTool | loop.HandOn) -> ToolCalled:
    """A call that is intended."""
    return ToolCalled(call_id=effect.call_id, name=effect.name, arguments=effect.arguments, step=effect.number)


def told(event: loop.ToolTold, effect: loop.CallTool | loop.HandOn, *, milliseconds: int) -> ToolAnswered:
    """A call that ended."""
    return ToolAnswered(
        call_id=effect.call_id,
        name=effect.name,
        outcome=event.outcome,
        content=event.content[:_LONGEST_CONTENT],
        reason=event.reason,
        duration_ms=milliseconds,
        sources=event.sources,
    )


def refused(call: loop.InHand) -> ToolAnswered:
    """A call that is not made."""
    return ToolAnswered(
        call_id=call.call_id, name=call.name, outcome=Outcome.REFUSED, content=call.content, reason=call.reason
    )


def retelling(journal: Sequence[Step], state: loop.State) -> list[Payload]:
    """What was done before, in its order."""
    happened: list[Payload] = []
    blocks = 0
    for step in journal:
        if step.kind is StepKind.MODEL and step.state is StepState.DONE and step.output["text"]:
            reason = FinishReason.TOOL_CALLS if step.output["calls"] else FinishReason(step.output["finish_reason"])
            text = TextDelta(step.output["text"], blocks)
            happened += [TextStart(blocks), text, TextFinish(reason, blocks)]
            blocks += 1
        elif step.kind is StepKind.TOOL:
            happened += _tool(step)
    return [*happened, UsageTold(state.spent)] if happened else []


def _tool(step: Step) -> list[Payload]:
    call_id, kept = step.input["call_id"], step.output
    call = ToolCalled(call_id=call_id, name=step.name, arguments=step.input["arguments"], step=step.number)
    if not kept:
        # It is called again, and told of then, or a human is asked.
        return []
    answer = ToolAnswered(
        call_id=call_id,
        name=step.name,
        outcome=Outcome(kept["outcome"]),
        content=kept["content"][:_LONGEST_CONTENT],
        reason=kept["reason"],
        duration_ms=round((step.finish_time - step.start_time).total_seconds() * 1000)
        if step.finish_time and step.start_time
        else 0,
        sources=tuple(map(source, kept["sources"])),
    )
    return [answer] if answer.outcome is Outcome.REFUSED else [call, answer]
