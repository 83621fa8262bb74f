"""Messages that are answered in the background."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from loremesh_kit.errors import ServiceError

from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.events import Answer

# Kept so long after its end; the contract says so.
KEPT = timedelta(days=7)


class Status(StrEnum):
    """Where a job stands."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    # For a human: no worker holds it.
    WAITING = "WAITING"
    COMPLETED = "COMPLETED"
    INCOMPLETE = "INCOMPLETE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatJob:
    """A job; `answer` is there once it is COMPLETED or INCOMPLETE and was asked for, `error` once it is FAILED."""

    id: str
    status: Status
    conversation_id: str
    attempt: int
    create_time: datetime
    finish_time: datetime | None = None
    answer: Answer | None = None
    error: ServiceError | None = None
    agent_id: str = ""
    # What it was made with, as its journal keeps it; None before it began, and without a journal.
    record: Mapping[str, Any] | None = None
    usage: Usage | None = None

    @property
    def expire_time(self) -> datetime | None:
        """Until when it is kept."""
        return self.finish_time and self.finish_time + KEPT
