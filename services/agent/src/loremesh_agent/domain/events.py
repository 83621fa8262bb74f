"""What happens while a message is answered; the same for streams, single replies and, one day, logs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from loremesh_kit.errors import ServiceError

from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.passages import Source
from loremesh_agent.domain.tools import Outcome


class FinishReason(StrEnum):
    """How a block of text ended."""

    STOP = "STOP"
    LENGTH = "LENGTH"
    CONTENT_FILTER = "CONTENT_FILTER"
    REFUSAL = "REFUSAL"
    # Tools were asked for: the run goes on.
    TOOL_CALLS = "TOOL_CALLS"
    # A limit of the run.
    LIMIT = "LIMIT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer, whole or cut by a limit."""

    text: str
    run_id: str
    conversation_id: str
    message_id: str
    finish_reason: FinishReason
    grounded: bool
    sources: tuple[Source, ...] = ()
    usage: Usage | None = None
    model: str = ""
    # The limit that ended it, with LIMIT.
    limit: str = ""


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The request is accepted."""

    conversation_id: str
    agent_id: str
    message_id: str


@dataclass(frozen=True, slots=True)
class SourcesFound:
    """The passages the model is given."""

    sources: Sequence[Source]
    # What was searched for; empty in events of long ago.
    search_text: str = ""


@dataclass(frozen=True, slots=True)
class TextStart:
    """A block of text begins."""

    block: int = 0


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of it."""

    text: str
    block: int = 0


@dataclass(frozen=True, slots=True)
class TextFinish:
    """It ends."""

    reason: FinishReason
    block: int = 0


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """A tool is called."""

    call_id: str
    name: str
    arguments: Mapping[str, Any]
    step: int


@dataclass(frozen=True, slots=True)
class ToolAnswered:
    """It answered; `content` is the beginning of what the model is told."""

    call_id: str
    name: str
    outcome: Outcome
    content: str
    reason: str = ""
    duration_ms: int = 0
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True, slots=True)
class UsageTold:
    """What the run took so far."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class Waiting:
    """The run waits for a human."""

    approval_id: str
    question: str
    due_time: datetime


@dataclass(frozen=True, slots=True)
class Resumed:
    """It goes on."""

    approval_id: str


@dataclass(frozen=True, slots=True)
class CitationResolved:
    """`[number]` in a block of text means a source; `start_char` counts code points."""

    number: int
    block: int
    start_char: int


@dataclass(frozen=True, slots=True)
class ModelChanged:
    """Another model took over; models are `provider/model`."""

    before: str
    after: str
    reason: str


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing happened for a while; the run lives."""


@dataclass(frozen=True, slots=True)
class Completed:
    """Terminal: the whole answer."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Incomplete:
    """Terminal: a limit cut the answer short."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Failed:
    """Terminal: there is no whole answer."""

    error: ServiceError


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Terminal: nobody wants the answer any more."""


Terminal = Completed | Incomplete | Failed | Cancelled
Acted = ToolCalled | ToolAnswered | UsageTold | Waiting | Resumed | CitationResolved | ModelChanged
Payload = RunStarted | SourcesFound | TextStart | TextDelta | TextFinish | Acted | Heartbeat | Terminal


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event of a run; `seq` counts from 1 without gaps, through all attempts, and is zero in heartbeats."""

    run_id: str
    seq: int
    time: datetime
    payload: Payload
    attempt: int = 1

    @property
    def terminal(self) -> bool:
        """Whether it is the last one."""
        return isinstance(self.payload, Terminal)
