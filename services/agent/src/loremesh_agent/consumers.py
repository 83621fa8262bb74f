"""Facts of other services, and what they mean for us."""

import asyncio
import json
from typing import NamedTuple

import structlog
from loremesh_kit import identity
from loremesh_kit.consumer import consume
from loremesh_kit.errors import ServiceError
from loremesh_kit.events import Bus, Message, stream_of, subject
from loremesh_kit.loops import repeat

from loremesh_agent.ports import Quotations

_SOURCE = "ingestion"
_DELETED = subject(_SOURCE, "events.DocumentDeleted")
_DURABLE = "agent-forgetting"
_AGAIN_SECONDS = 2.0
_log = structlog.get_logger(__name__)


class _Deletion(NamedTuple):
    who: identity.Identity
    document_id: str
    vector_store_id: str


class DocumentDeletions:
    """Has what is quoted of deleted documents forgotten; any number may run."""

    def __init__(self, *, bus: Bus, quotations: Quotations) -> None:
        self._bus = bus
        self._quotations = quotations

    async def run(self, stop: asyncio.Event) -> None:
        """Listen until `stop`."""
        await repeat(lambda: self._listen(stop), stop=stop, name="forgetting documents")

    async def _listen(self, stop: asyncio.Event) -> None:
        async for messages in consume(
            self._bus, stream=stream_of(_SOURCE), durable=_DURABLE, subjects=[_DELETED], stop=stop
        ):
            for message in messages:
                await self._take(message)

    async def _take(self, message: Message) -> None:
        deletion = _deletion(message)
        if deletion is None:
            _log.error("a fact that cannot be read", subject=message.subject, id=message.id)
        else:
            try:
                with identity.scope(deletion.who):
                    await self._quotations.forget(
                        deletion.document_id, vector_store_id=deletion.vector_store_id, message_id=message.id
                    )
            except ServiceError as error:
                _log.warning("will try again", reason=error.reason, document_id=deletion.document_id)
                await message.nak(_AGAIN_SECONDS)
                return
        await message.ack()


def _deletion(message: Message) -> _Deletion | None:
    tenant = message.headers.get(identity.TENANT_HEADER, "")
    try:
        body = json.loads(message.data)
    except ValueError:
        return None
    match body:
        case {"document_id": str(document_id), "vector_store_id": str(vector_store_id)} if tenant and message.id:
            who = identity.Identity(
                tenant=tenant,
                principal=message.headers.get(identity.PRINCIPAL_HEADER, ""),
                request_id=message.headers.get(identity.REQUEST_ID_HEADER, ""),
            )
            return _Deletion(who, document_id, vector_store_id)
    return None
