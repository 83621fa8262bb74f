"""Conversations: kept, read, changed, deleted, rated."""

from collections.abc import Mapping, Sequence
from typing import Any

from loremesh_kit.attributes import check
from loremesh_kit.ids import new_id
from loremesh_kit.pages import Position

from loremesh_agent.domain.conversations import Conversation, Feedback, Message
from loremesh_agent.engine.quoting import Quoting
from loremesh_agent.ports import AgentDirectory, ConversationChange, ConversationStore

_FIELD = "conversation.attributes"


class ConversationEngine:
    """The use cases around conversations."""

    def __init__(self, *, store: ConversationStore, agents: AgentDirectory, quoting: Quoting) -> None:
        self._store = store
        self._quoting = quoting
        self._agents = agents

    async def create(self, *, title: str, agent_id: str, attributes: Mapping[str, Any]) -> Conversation:
        """Make an empty conversation; raises AgentNotFound, AttributesInvalid."""
        check(attributes, field=_FIELD)
        agent = await self._agents.get(agent_id)
        conversation_id = new_id()
        await self._store.create(conversation_id, title=title, agent_id=agent.id, attributes=attributes)
        return await self._store.get(conversation_id)

    async def get(self, conversation_id: str) -> Conversation:
        """Raises ConversationNotFound."""
        return await self._store.get(conversation_id)

    async def page(self, *, after: Position | None, limit: int) -> Sequence[Conversation]:
        """The one changed last first."""
        return await self._store.page(after=after, limit=limit)

    async def update(self, conversation_id: str, change: ConversationChange, *, etag: str) -> Conversation:
        """Raises ConversationNotFound, EtagMismatch, AttributesInvalid."""
        if change.attributes is not None:
            check(change.attributes, field=_FIELD)
        return await self._store.update(conversation_id, change, etag=etag)

    async def delete(self, conversation_id: str) -> None:
        """Raises ConversationNotFound."""
        await self._store.delete(conversation_id)

    async def messages(self, conversation_id: str, *, after: int, limit: int) -> Sequence[Message]:
        """Oldest first; raises ConversationNotFound."""
        return await self._quoting.messages(await self._store.messages(conversation_id, after=after, limit=limit))

    async def rate(self, message_id: str, feedback: Feedback | None) -> Message:
        """Raises MessageNotFound."""
        (rated,) = await self._quoting.messages([await self._store.rate(message_id, feedback)])
        return rated
