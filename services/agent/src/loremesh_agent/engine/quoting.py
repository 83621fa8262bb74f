"""What may be quoted: nothing of a document that was deleted, from the moment it was."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import structlog
from loremesh_kit.errors import ServiceError

from loremesh_agent.domain.conversations import Exchange, Message
from loremesh_agent.domain.events import Answer, Completed, Incomplete, Payload, SourcesFound, ToolAnswered
from loremesh_agent.domain.passages import Known, Source, documents, quotable
from loremesh_agent.ports import DocumentRegistry

_log = structlog.get_logger(__name__)


class Quoting:
    """Takes from what was kept the passages that may not be shown any more; where nobody can say, all of them."""

    def __init__(self, *, documents: DocumentRegistry) -> None:
        self._documents = documents

    async def messages(self, kept: Sequence[Message]) -> list[Message]:
        """Messages as they may be shown."""
        known = await self._known(source for message in kept for source in message.sources)
        return [replace(message, sources=quotable(message.sources, known)) for message in kept]

    async def answer(self, kept: Answer) -> Answer:
        """An answer as it may be shown."""
        return replace(kept, sources=quotable(kept.sources, await self._known(kept.sources)))

    async def payload(self, happened: Payload) -> Payload:
        """An event as it may be shown."""
        match happened:
            case SourcesFound(sources):
                return replace(happened, sources=quotable(sources, await self._known(sources)))
            case ToolAnswered(sources=sources) if sources:
                known = await self._known(sources)
                content = happened.content if documents(sources) <= known.live else ""
                return replace(happened, sources=quotable(sources, known), content=content)
            case Completed(answer):
                return Completed(await self.answer(answer))
            case Incomplete(answer):
                return Incomplete(await self.answer(answer))
        return happened

    async def history(self, told: Sequence[Exchange]) -> list[Exchange]:
        """What a model may be told of what was said: no answer that rests on a document which is gone."""
        known = await self._ask(frozenset[str]().union(*(exchange.document_ids for exchange in told)))
        return [exchange for exchange in told if exchange.document_ids <= known.live]

    async def without_deleted(self, sources: Sequence[Source]) -> tuple[Source, ...]:
        """Sources found a moment ago, without the documents that are known to have been deleted since."""
        known = await self._known(sources)
        return quotable(sources, known) if known.told else tuple(sources)

    async def _known(self, sources: Iterable[Source]) -> Known:
        return await self._ask(documents(sources))

    async def _ask(self, document_ids: frozenset[str]) -> Known:
        if not document_ids:
            return Known()
        try:
            return Known(await self._documents.live(document_ids))
        except ServiceError as error:
            _log.warning("quotations are withheld", reason=error.reason, error=error.message)
            return Known(told=False)
