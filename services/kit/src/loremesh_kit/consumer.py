"""A pull consumer: takes messages as they come, as many as there is room for."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress

import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import AckPolicy, ConsumerConfig

from loremesh_kit.errors import DependencyUnavailable
from loremesh_kit.events import Bus, Message, translated
from loremesh_kit.loops import unless

_ASK_SECONDS = 5.0
# Past this without a word, the request or its answer is lost.
_SILENCE_SECONDS = _ASK_SECONDS + 2.0
_PAUSE_SECONDS = 0.5
_ACK_SECONDS = 30.0
_MOST_UNACKED = 10_000
_log = structlog.get_logger(__name__)


class Consumer:
    """A durable consumer of one stream, shared by all processes that name it the same."""

    def __init__(self, *, bus: Bus, stream: str, durable: str, subjects: Sequence[str]) -> None:
        """`subjects` choose from the stream's messages."""
        self._bus = bus
        self._stream = stream
        self._config = ConsumerConfig(
            durable_name=durable,
            filter_subjects=list(subjects),
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=_ACK_SECONDS,
            max_ack_pending=_MOST_UNACKED,
        )
        self._received: asyncio.Queue[Msg | None] = asyncio.Queue()
        self._subscription: Subscription | None = None
        self._forget_reconnect: Callable[[], None] = lambda: None
        # Messages of the one request under way that have not come yet.
        self._expected = 0

    async def take(self, limit: int) -> list[Message]:
        """Up to `limit` messages, as soon as there are any; an empty list after some seconds without.

        One request is under way at a time, for as many as there was room for, so a worker never holds messages
        which an idle one could take. Raises DependencyUnavailable.
        """
        with translated():
            if self._subscription is None:
                await self._open()
            if self._expected == 0:
                await self._ask(limit)
        try:
            async with asyncio.timeout(_SILENCE_SECONDS):
                first = await self._received.get()
        except TimeoutError:
            first = None
        messages = await self._sort(first)
        while len(messages) < limit and not self._received.empty():
            messages += await self._sort(self._received.get_nowait())
        return messages

    async def close(self) -> None:
        """Stop receiving, and leave what has come and was not taken to others."""
        self._forget_reconnect()
        subscription, self._subscription, self._expected = self._subscription, None, 0
        received, self._received = self._received, asyncio.Queue()
        if subscription is None:
            return
        with translated():
            await subscription.unsubscribe()
            while not received.empty():
                message = received.get_nowait()
                if message is not None and not _status(message):
                    await message.nak()

    async def _open(self) -> None:
        await self._bus.ensure_consumer(self._stream, self._config)
        received = self._received

        async def receive(message: Msg) -> None:
            received.put_nowait(message)

        client = self._bus.require_connection()
        self._inbox = client.new_inbox()
        self._subscription = await client.subscribe(self._inbox, cb=receive)
        # A request does not survive the connection it was made on.
        self._forget_reconnect = self._bus.on_reconnect(lambda: received.put_nowait(None))

    async def _ask(self, limit: int) -> None:
        request = {"batch": limit, "expires": int(_ASK_SECONDS * 1e9)}
        next_subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._config.durable_name}"
        await self._bus.require_connection().publish(next_subject, json.dumps(request).encode(), reply=self._inbox)
        self._expected = limit

    async def _sort(self, message: Msg | None) -> list[Message]:
        """The message if it is one; statuses of the request are dealt with here."""
        if message is None:
            await self.close()
            return []
        match _status(message):
            case "":
                self._expected = max(0, self._expected - 1)
                return [Message(message)]
            case "100":
                return []
            case "404" | "408":
                self._expected = 0
                return []
            case status:
                # The consumer is gone, or its server is going.
                _log.warning("consumer lost", durable=self._config.durable_name, status=status)
                await self.close()
                await asyncio.sleep(_PAUSE_SECONDS)
                return []


def _status(message: Msg) -> str:
    return (message.headers or {}).get("Status", "")


async def consume(
    bus: Bus,
    *,
    stream: str,
    durable: str,
    subjects: Sequence[str],
    stop: asyncio.Event,
    batch: int = 32,
) -> AsyncIterator[list[Message]]:
    """Batches of messages until `stop` is set, through the broker's restarts; ack each after its effect's commit."""
    consumer = Consumer(bus=bus, stream=stream, durable=durable, subjects=subjects)
    try:
        while not stop.is_set():
            try:
                messages = await unless(stop, consumer.take(batch))
            except DependencyUnavailable:
                await unless(stop, asyncio.sleep(_PAUSE_SECONDS))
            else:
                if messages:
                    yield messages
    finally:
        with suppress(DependencyUnavailable):
            await consumer.close()
