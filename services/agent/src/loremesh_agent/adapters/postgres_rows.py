"""Rows of the agent's tables as what they stand for."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from psycopg.types.json import Jsonb

from loremesh_agent.domain import journal
from loremesh_agent.domain.conversations import Conversation, Feedback, Message, Rating, Role, State, Usage
from loremesh_agent.domain.passages import Source

Row = Mapping[str, Any]

CONVERSATION = "id, title, agent_id, attributes, message_count, create_time, update_time, revision"
MESSAGE = (
    "id, conversation_id, position, role, content, state, create_time, run_id, model, grounded, sources,"
    " input_tokens, output_tokens, rating, comment, finish_reason, finish_limit, agent_revision"
)


def conversation(row: Row) -> Conversation:
    """Of the columns in CONVERSATION."""
    return Conversation(**row)


def message(row: Row) -> Message:
    """Of the columns in MESSAGE."""
    fields = dict(row)
    usage = Usage(input_tokens=fields.pop("input_tokens") or 0, output_tokens=fields.pop("output_tokens") or 0)
    rating, comment = fields.pop("rating"), fields.pop("comment")
    return Message(
        **{
            **fields,
            "role": Role(row["role"]),
            "state": State(row["state"]),
            "sources": tuple(map(journal.source, row["sources"])),
            "usage": usage if row["input_tokens"] is not None else None,
            "feedback": None
            if comment is None
            else Feedback(rating=Rating(rating) if rating else None, comment=comment),
        }
    )


def sources(given: Sequence[Source]) -> Jsonb:
    """As the column keeps them."""
    return Jsonb([asdict(source) for source in given])
