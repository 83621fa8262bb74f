"""Says which claims of a text are supported."""

import asyncio
from collections.abc import Sequence

from loremesh_kit.errors import InvalidField

from loremesh_agent.domain import claims
from loremesh_agent.domain.claims import Claim
from loremesh_agent.engine.quoting import Quoting
from loremesh_agent.errors import PassagesRequired
from loremesh_agent.ports import ConversationStore

# A second's work for a long text.
_LONGEST_PASSAGES = 400_000


class Grounding:
    """The use case of GroundingService."""

    def __init__(self, *, conversations: ConversationStore, quoting: Quoting) -> None:
        self._conversations = conversations
        self._quoting = quoting

    async def check(self, text: str, *, question: str, passages: Sequence[str], message_id: str) -> list[Claim]:
        """The claims of the text, or of a kept answer, with what supports them.

        Passages of deleted documents support nothing any more. Raises PassagesRequired, MessageNotFound, InvalidField.
        """
        if sum(map(len, passages)) > _LONGEST_PASSAGES:
            message = f"passages must not be longer than {_LONGEST_PASSAGES} characters together"
            raise InvalidField(message, field="passages")
        if bool(passages) == bool(message_id) or not (text or message_id):
            raise PassagesRequired
        titles: Sequence[str] = ()
        if message_id:
            (kept,) = await self._quoting.messages([await self._conversations.answer(message_id)])
            text = text or kept.content
            given = {source.number: source.passage for source in kept.sources}
            numbered = [given.get(number) for number in range(1, max(given, default=0) + 1)]
            passages = [passage.content if passage else "" for passage in numbered]
            titles = [passage.title if passage else "" for passage in numbered]
        # A long text against many passages takes a while, which belongs to all who are waiting.
        return await asyncio.to_thread(claims.check, text, question=question, passages=passages, titles=titles)
