"""What happens while a message is answered; the same for streams, single replies and, one day, logs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from loremesh_kit.errors import ServiceError

from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.passages import Source


class FinishReason(StrEnum):
    """How a block of text ended."""

    STOP = "STOP"
    LENGTH = "LENGTH"
    CONTENT_FILTER = "CONTENT_FILTER"


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
Payload = RunStarted | SourcesFound | TextStart | TextDelta | TextFinish | Heartbeat | Terminal


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
