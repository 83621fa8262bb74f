"""Events of a run as its log keeps them: a kind and a JSON object each."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, NamedTuple

from loremesh_kit.errors import ServiceError

from loremesh_agent.domain.conversations import Message, State, Usage
from loremesh_agent.domain.events import (
    Answer,
    Cancelled,
    CitationResolved,
    Completed,
    Failed,
    FinishReason,
    Incomplete,
    ModelChanged,
    Payload,
    Resumed,
    RunStarted,
    SourcesFound,
    TextDelta,
    TextFinish,
    TextStart,
    ToolAnswered,
    ToolCalled,
    UsageTold,
    Waiting,
)
from loremesh_agent.domain.passages import Passage, Source
from loremesh_agent.domain.tools import Outcome
from loremesh_agent.errors import KeptFailure

Kept = Mapping[str, Any]


class Entry(NamedTuple):
    """One event; `sources` in it is a list of sources where there are any."""

    kind: str
    payload: Kept


def entry(payload: Payload) -> Entry:
    """What is kept of an event; raises KeyError for a heartbeat, which is none."""
    kind = _KINDS[type(payload)]
    match payload:
        case Completed(answer) | Incomplete(answer):
            return Entry(kind, asdict(answer))
        case Failed(error):
            return Entry(kind, failure(error))
        case Waiting(due_time=due_time):
            return Entry(kind, {**asdict(payload), "due_time": due_time.isoformat()})
    return Entry(kind, asdict(payload))


def failure(error: ServiceError) -> Kept:
    """What is kept of a ServiceError."""
    return {
        "message": error.message,
        "reason": error.reason,
        "retryable": error.retryable,
        "metadata": dict(error.metadata),
        "code": error.code,
        "field": error.violations[0].field if error.violations else None,
    }


def payload_of(kind: str, kept: Kept) -> Payload:
    """The event of which this was kept."""
    return _READERS[kind](kept)


def source(kept: Kept) -> Source:
    """A source as `asdict` took it apart."""
    passage = kept["passage"]
    return Source(
        number=kept["number"],
        cited=kept["cited"],
        deleted=kept.get("deleted", False),
        passage=Passage(**{**passage, "heading_path": tuple(passage["heading_path"])}),
    )


def answer_of(said: Message) -> Answer:
    """The answer a message keeps; `said` is COMPLETED or INCOMPLETE."""
    reason = FinishReason.STOP if said.state is State.COMPLETED else FinishReason.LENGTH
    return Answer(
        text=said.content,
        run_id=said.run_id,
        conversation_id=said.conversation_id,
        message_id=said.id,
        finish_reason=FinishReason(said.finish_reason) if said.finish_reason else reason,
        grounded=said.grounded,
        sources=said.sources,
        usage=said.usage,
        model=said.model,
        limit=said.finish_limit,
    )


def _answer(kept: Kept) -> Answer:
    usage = kept["usage"]
    given = {
        "sources": tuple(map(source, kept["sources"])),
        "usage": Usage(**usage) if usage else None,
        "finish_reason": FinishReason(kept["finish_reason"]),
    }
    return Answer(**{**kept, **given})


_KINDS: Mapping[type, str] = {
    RunStarted: "run_started",
    SourcesFound: "sources",
    TextStart: "text_start",
    TextDelta: "text_delta",
    TextFinish: "text_finish",
    ToolCalled: "tool_call",
    ToolAnswered: "tool_result",
    UsageTold: "usage",
    Waiting: "waiting",
    Resumed: "resumed",
    CitationResolved: "citation",
    ModelChanged: "model_changed",
    Completed: "completed",
    Incomplete: "incomplete",
    Failed: "failed",
    Cancelled: "cancelled",
}

_READERS: Mapping[str, Callable[[Kept], Payload]] = {
    "run_started": lambda kept: RunStarted(**kept),
    "sources": lambda kept: SourcesFound(tuple(map(source, kept["sources"])), kept.get("search_text", "")),
    "text_start": lambda kept: TextStart(**kept),
    "text_delta": lambda kept: TextDelta(**kept),
    "text_finish": lambda kept: TextFinish(FinishReason(kept["reason"]), kept["block"]),
    "tool_call": lambda kept: ToolCalled(**kept),
    "tool_result": lambda kept: ToolAnswered(
        **{**kept, "outcome": Outcome(kept["outcome"]), "sources": tuple(map(source, kept["sources"]))}
    ),
    "usage": lambda kept: UsageTold(Usage(**kept["usage"])),
    "waiting": lambda kept: Waiting(**{**kept, "due_time": datetime.fromisoformat(kept["due_time"])}),
    "resumed": lambda kept: Resumed(**kept),
    "citation": lambda kept: CitationResolved(**kept),
    "model_changed": lambda kept: ModelChanged(**kept),
    "completed": lambda kept: Completed(_answer(kept)),
    "incomplete": lambda kept: Incomplete(_answer(kept)),
    "failed": lambda kept: Failed(KeptFailure(**kept)),
    "cancelled": lambda _: Cancelled(),
}
