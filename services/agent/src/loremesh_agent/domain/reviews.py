"""Outputs that a human accepts before they count."""

from dataclasses import dataclass
from datetime import timedelta

from loremesh_agent.domain.tools import ExpiryPolicy

QUESTION = "Is this output good?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A human accepts the output first: the assignee, or anyone; it goes back `max_rounds` times at most."""

    question: str = ""
    due_in: timedelta = timedelta(hours=24)
    on_expiry: ExpiryPolicy = ExpiryPolicy.DENY
    assignee: str = ""
    max_rounds: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An output that waits for its acceptance; `approval_id` is empty until somebody is asked."""

    text: str
    approval_id: str = ""


def remark(comment: str) -> str:
    """What the model is told of an output that was sent back; whoever decides is trusted."""
    return f"A human reviewed this answer and did not accept it: {comment}\n\nAnswer again, with this put right."
