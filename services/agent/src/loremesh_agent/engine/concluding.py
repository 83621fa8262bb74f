"""How a run's answer is judged, and what is kept and told of it."""

import json
import re
from collections.abc import Mapping
from typing import Any

from loremesh_agent.domain import loop, schemas
from loremesh_agent.domain.conversations import State
from loremesh_agent.domain.events import Answer, Completed, Incomplete
from loremesh_agent.domain.grounding import is_refusal, support
from loremesh_agent.domain.passages import Source, shown
from loremesh_agent.domain.wording import Wording
from loremesh_agent.engine.block import Block
from loremesh_agent.errors import KeptFailure
from loremesh_agent.ports import FinishedTurn, NewTurn

# Of what a tool fails with, that which may be otherwise later.
_PASSING = frozenset({"DEADLINE_EXCEEDED", "DEPENDENCY_UNAVAILABLE", "TOOL_TIMEOUT", "TOOL_UNAVAILABLE"})
_CITATION = re.compile(r"\[(\d{1,3})\]")


def problem(schema: Mapping[str, Any], text: str) -> str:
    """What is wrong with an answer that should be JSON by this schema; empty where nothing is."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "It is not JSON."
    return schemas.problem(schema, value) or ""


def ground(state: loop.State, block: Block | None, *, question: str, wording: Wording) -> bool:
    """Whether the answer rests on sources; where it does not say on which, that is added to it."""
    if block is None or not state.sources:
        return False
    if block.cited:
        return True
    if not block.text or is_refusal(block.text, refusal=wording.refusal):
        return False
    found = support(block.text, question=question, passages=[source.passage for source in state.sources])
    if found.numbers:
        numbers = sorted(state.sources[number - 1].number for number in found.numbers)
        block.add(" " + "".join(f"[{number}]" for number in numbers))
    return bool(found.numbers)


def sources(state: loop.State, text: str) -> tuple[Source, ...]:
    """Those the answer cites, or all there are where it cites none."""
    cited = {int(citation[1]) for citation in _CITATION.finditer(text)}
    marked = [Source(number=each.number, passage=each.passage, cited=each.number in cited) for each in state.sources]
    return shown(marked)


def finished(answer: Answer, end: loop.Finish) -> FinishedTurn:
    """What is kept of it."""
    return FinishedTurn(
        content=answer.text,
        state=State.COMPLETED if end.end is loop.End.COMPLETED else State.INCOMPLETE,
        sources=answer.sources,
        usage=answer.usage,
        model=answer.model,
        grounded=answer.grounded,
        finish_reason=answer.finish_reason,
    )


def answer(state: loop.State, end: loop.Finish, turn: NewTurn, *, text: str, grounded: bool) -> Answer:
    """The answer, without its sources."""
    return Answer(
        text=text,
        run_id=turn.run_id,
        conversation_id=turn.conversation_id or turn.new_conversation_id,
        message_id=turn.answer_id,
        finish_reason=end.reason,
        grounded=grounded,
        usage=state.spent,
        model=state.model,
        limit=end.limit or "",
    )


def terminal(answer: Answer, end: loop.Finish) -> Completed | Incomplete:
    """What is told of it."""
    return Completed(answer) if end.end is loop.End.COMPLETED else Incomplete(answer)


def call_failure(end: loop.Finish, tool: str) -> KeptFailure:
    """Why a run failed that was one call."""
    return KeptFailure(end.problem, reason=end.error, retryable=end.error in _PASSING, metadata={"tool": tool})
