"""How a run's answer is judged, and what is kept and told of it."""

import re

from loremesh_kit.errors import ServiceError

from loremesh_agent.domain import loop
from loremesh_agent.domain.conversations import State
from loremesh_agent.domain.events import Answer, Completed, Incomplete
from loremesh_agent.domain.passages import Source, shown
from loremesh_agent.errors import ApprovalExpired, KeptFailure, ModelOutputInvalid, OutputRejected
from loremesh_agent.ports import FinishedTurn, NewTurn

# Of what a tool fails with, that which may be otherwise later.
_PASSING = frozenset({"DEADLINE_EXCEEDED", "DEPENDENCY_UNAVAILABLE", "TOOL_TIMEOUT", "TOOL_UNAVAILABLE"})
_CITATION = re.compile(r"\[(\d{1,3})\]")


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
        finish_limit=answer.limit,
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


def failure(state: loop.State) -> ServiceError:
    """Why there is no answer."""
    error, problem = (state.end.error, state.end.problem) if state.end else ("", "")
    if error == ApprovalExpired.reason:
        return ApprovalExpired(problem)
    if error == OutputRejected.reason:
        return OutputRejected(problem)
    if state.end and state.invoked:
        return _call_failure(state.end, state.calls[0].name)
    provider, _, model = state.model.rpartition("/")
    return ModelOutputInvalid(problem, provider=provider, model=model)


def _call_failure(end: loop.Finish, tool: str) -> KeptFailure:
    """Why a run failed that was one call."""
    return KeptFailure(end.problem, reason=end.error, retryable=end.error in _PASSING, metadata={"tool": tool})
