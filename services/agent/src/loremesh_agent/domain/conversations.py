"""Conversations and their messages."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from loremesh_agent.domain.passages import Source

_TITLE_CHARS = 80


class Role(StrEnum):
    """Who wrote a message."""

    USER = "USER"
    AGENT = "AGENT"


class State(StrEnum):
    """How an answer stands."""

    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    INCOMPLETE = "INCOMPLETE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Rating(StrEnum):
    """How good an answer was said to be."""

    GOOD = "GOOD"
    BAD = "BAD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """An opinion of an answer; `rating` is None for a comment alone."""

    rating: Rating | None
    comment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a run took: tokens read and written, those of cache and reasoning among them, and money."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    # Millionths of a US dollar; zero where a price is not known.
    cost_micros: int = 0
    steps: int = 0
    tool_calls: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A conversation; `revision` grows with each change of title or attributes."""

    id: str
    title: str
    agent_id: str
    attributes: Mapping[str, Any]
    message_count: int
    create_time: datetime
    update_time: datetime
    revision: int

    @property
    def etag(self) -> str:
        """What an update sends back to change only what was read."""
        return str(self.revision)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message as it is kept; `position` counts from 1 in its conversation."""

    id: str
    conversation_id: str
    position: int
    role: Role
    content: str
    state: State
    create_time: datetime
    run_id: str = ""
    model: str = ""
    grounded: bool = False
    sources: tuple[Source, ...] = ()
    usage: Usage | None = None
    feedback: Feedback | None = None
    # Name of a FinishReason; empty for what a limit did not end, and for answers of long ago.
    finish_reason: str = ""
    # The limit, with LIMIT.
    finish_limit: str = ""
    # Of the agent that wrote it; zero for people's.
    agent_revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A question of the past and what was answered, from which documents."""

    question: str
    answer: str
    document_ids: frozenset[str] = frozenset()


def title_of(message: str) -> str:
    """A conversation's title made of its first message: its first words, in one line."""
    line = " ".join(message.split())
    if len(line) <= _TITLE_CHARS:
        return line
    cut = line[: _TITLE_CHARS - 1]
    # Scripts without spaces are cut where the limit is.
    head, _, _ = cut.rpartition(" ")
    return f"{head if len(head) > _TITLE_CHARS // 2 else cut}…"
