"""Facts of other services, and what they change here."""

import asyncio
import json

import structlog
from loremesh_kit import identity
from loremesh_kit.consumer import consume
from loremesh_kit.errors import ServiceError
from loremesh_kit.events import Bus, Message, stream_of, subject
from loremesh_kit.identity import Identity
from loremesh_kit.loops import repeat

from loremesh_ingestion.engine.receipts import Receipts

_AGENT = "agent"
_DURABLE = "ingestion-receipts"
_AGAIN_SECONDS = 5.0
_log = structlog.get_logger(__name__)


class ForgottenDocuments:
    """Completes receipts when the agent says that its conversations quote a deleted document no more."""

    def __init__(self, *, bus: Bus, receipts: Receipts) -> None:
        self._bus = bus
        self._receipts = receipts

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop`; the agent makes the stream, and until it has there is nothing to hear."""
        await repeat(lambda: self._consume(stop), stop=stop, name="forgotten documents")

    async def _consume(self, stop: asyncio.Event) -> None:
        subjects = [subject(_AGENT, "events.DocumentForgotten")]
        batches = consume(self._bus, stream=stream_of(_AGENT), durable=_DURABLE, subjects=subjects, stop=stop)
        async for messages in batches:
            for message in messages:
                try:
                    await self._take(message)
                except ServiceError as error:
                    _log.warning("fact left for later", reason=error.reason)
                    await message.nak(_AGAIN_SECONDS)
                else:
                    await message.ack()

    async def _take(self, message: Message) -> None:
        match _fact(message):
            case {"document_id": str(document_id), "passages": int(passages)}:
                with identity.scope(_sender(message)):
                    await self._receipts.forgotten(document_id, passages=passages, message_id=message.id)
            case _:
                _log.error("not a fact of ours", subject=message.subject, message_id=message.id)


def _fact(message: Message) -> object:
    try:
        fact: object = json.loads(message.data)
    except ValueError:
        return None
    return fact if message.headers.get(identity.TENANT_HEADER) else None


def _sender(message: Message) -> Identity:
    headers = message.headers
    return Identity(
        tenant=headers[identity.TENANT_HEADER],
        principal=headers.get(identity.PRINCIPAL_HEADER, ""),
        request_id=headers.get(identity.REQUEST_ID_HEADER, ""),
    )
