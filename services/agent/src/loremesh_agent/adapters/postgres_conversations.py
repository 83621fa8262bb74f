"""Conversations in Postgres. Row-level security adds the tenant to every statement."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from loremesh_kit.errors import EtagMismatch, PageTokenInvalid
from loremesh_kit.pages import Position
from loremesh_kit.postgres import Database
from psycopg.types.json import Jsonb

from loremesh_agent.adapters.postgres_chat_jobs import forget_jobs
from loremesh_agent.adapters.postgres_rows import CONVERSATION, MESSAGE, conversation, message
from loremesh_agent.domain.conversations import Conversation, Feedback, Message
from loremesh_agent.errors import ConversationNotFound, MessageNotFound
from loremesh_agent.ports import ConversationChange

# May run twice, as `Database.fetch` asks: the second time it changes nothing.
_CREATE = """
INSERT INTO conversations (id, title, agent_id, attributes)
VALUES (%(id)s, %(title)s, %(agent_id)s, %(attributes)s) ON CONFLICT DO NOTHING
"""

_GET = f"SELECT {CONVERSATION} FROM conversations WHERE id = %s"  # noqa: S608 - made of constants, as all here

_PAGE = f"""
SELECT {CONVERSATION} FROM conversations
WHERE NOT hidden AND (%(time)s::timestamptz IS NULL OR (update_time, id) < (%(time)s::timestamptz, %(id)s))
ORDER BY update_time DESC, id DESC LIMIT %(limit)s
"""  # noqa: S608

_LOCK = "SELECT revision FROM conversations WHERE id = %s FOR UPDATE"

_UPDATE = f"""
UPDATE conversations SET
    title = coalesce(%(title)s, title), attributes = coalesce(%(attributes)s, attributes),
    revision = revision + 1, update_time = now()
WHERE id = %(id)s RETURNING {CONVERSATION}
"""  # noqa: S608

# A task's goes with the task.
_DELETE = "DELETE FROM conversations WHERE id = %s AND NOT hidden RETURNING id"

_MESSAGES = f"""
SELECT {MESSAGE} FROM messages WHERE conversation_id = %(id)s AND position > %(after)s
ORDER BY position LIMIT %(limit)s
"""  # noqa: S608

_ANSWER = f"SELECT {MESSAGE} FROM messages WHERE id = %s AND role = 'AGENT'"  # noqa: S608

_RATE = f"""
UPDATE messages SET rating = %(rating)s, comment = %(comment)s WHERE id = %(id)s AND role = 'AGENT'
RETURNING {MESSAGE}
"""  # noqa: S608


class PostgresConversations:
    """The tables `conversations` and `messages`, as their owners see them."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def create(self, conversation_id: str, *, title: str, agent_id: str, attributes: Mapping[str, Any]) -> None:
        """See ports.ConversationStore."""
        parameters = {"id": conversation_id, "title": title, "agent_id": agent_id, "attributes": Jsonb(attributes)}
        await self._database.fetch(_CREATE, parameters)

    async def get(self, conversation_id: str) -> Conversation:
        """See ports.ConversationStore."""
        rows = await self._database.fetch(_GET, [conversation_id])
        if not rows:
            raise ConversationNotFound(conversation_id)
        return conversation(rows[0])

    async def page(self, *, after: Position | None, limit: int) -> Sequence[Conversation]:
        """See ports.ConversationStore."""
        parameters = {"time": _time(after), "id": after.id if after else "", "limit": limit}
        return [conversation(row) for row in await self._database.fetch(_PAGE, parameters)]

    async def update(self, conversation_id: str, change: ConversationChange, *, etag: str) -> Conversation:
        """See ports.ConversationStore."""
        attributes = None if change.attributes is None else Jsonb(change.attributes)
        async with self._database.transaction() as connection:
            row = await (await connection.execute(_LOCK, [conversation_id])).fetchone()
            if row is None:
                raise ConversationNotFound(conversation_id)
            if etag not in ("", str(row["revision"])):
                raise EtagMismatch
            parameters = {"id": conversation_id, "title": change.title, "attributes": attributes}
            changed = await (await connection.execute(_UPDATE, parameters)).fetchone()
        if changed is None:
            raise ConversationNotFound(conversation_id)
        return conversation(changed)

    async def delete(self, conversation_id: str) -> None:
        """See ports.ConversationStore."""
        async with self._database.transaction() as connection:
            await forget_jobs(connection, conversation_id)
            if await (await connection.execute(_DELETE, [conversation_id])).fetchone() is None:
                raise ConversationNotFound(conversation_id)

    async def messages(self, conversation_id: str, *, after: int, limit: int) -> Sequence[Message]:
        """See ports.ConversationStore."""
        parameters = {"id": conversation_id, "after": after, "limit": limit}
        rows = await self._database.fetch(_MESSAGES, parameters)
        if not rows:
            await self.get(conversation_id)
        return [message(row) for row in rows]

    async def answer(self, message_id: str) -> Message:
        """See ports.ConversationStore."""
        rows = await self._database.fetch(_ANSWER, [message_id])
        if not rows:
            raise MessageNotFound(message_id)
        return message(rows[0])

    async def rate(self, message_id: str, feedback: Feedback | None) -> Message:
        """See ports.ConversationStore."""
        parameters = {
            "id": message_id,
            "rating": feedback.rating if feedback else None,
            "comment": feedback.comment if feedback else None,
        }
        rows = await self._database.fetch(_RATE, parameters)
        if not rows:
            raise MessageNotFound(message_id)
        return message(rows[0])


def _time(after: Position | None) -> datetime | None:
    if after is None:
        return None
    try:
        return datetime.fromisoformat(after.sort_key)
    except ValueError as error:
        raise PageTokenInvalid from error
