"""Messages that are answered in the background."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from loremesh_kit.errors import ServiceError

from loremesh_agent.domain.events import Answer

# Kept so long after its end; the contract says so.
KEPT = timedelta(days=7)


class Status(StrEnum):
    """Where a job stands."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
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

    @property
    def expire_time(self) -> datetime | None:
        """Until when it is kept."""
        return self.finish_time and self.finish_time + KEPT
