"""JetStream: how work and facts travel. What it loses, the tables in Postgres can send again."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.js.api import ConsumerConfig, PubAck, RetentionPolicy, StorageType, StreamConfig
from nats.js.client import JetStreamContext
from nats.js.errors import NotFoundError

from loremesh_kit.errors import DependencyUnavailable
from loremesh_kit.loops import background

MESSAGE_ID = "Nats-Msg-Id"
_PUBLISH_SECONDS = 5.0
_PROBE_SECONDS = 2.0
# Consumed messages stay (Limits retention): a work queue forgets message ids at each restart of the broker.
_MAX_AGE = 24 * 3600.0
_MAX_BYTES = 256 * 1024 * 1024
_DUPLICATE_WINDOW = 3600.0
_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_UNTOKENABLE = re.compile(r"[^A-Za-z0-9_.-]|\.(?=\.|$)")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """A message to publish; JetStream drops a second one with the same id within the hour."""

    subject: str
    data: bytes
    message_id: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Message:
    """A message received."""

    message: Msg

    @property
    def id(self) -> str:
        """The publisher's message id."""
        return self.headers.get(MESSAGE_ID, "")

    @property
    def subject(self) -> str:
        """The subject it was published to."""
        return self.message.subject

    @property
    def data(self) -> bytes:
        """Its body."""
        return self.message.data

    @property
    def headers(self) -> Mapping[str, str]:
        """What came with it."""
        return self.message.headers or {}

    async def ack(self) -> None:
        """Say that its effect is committed; should this be lost, it comes again."""
        with translated():
            await self.message.ack()

    async def nak(self, delay: float) -> None:
        """Have it again after `delay` seconds."""
        with translated():
            await self.message.nak(delay=delay)


@dataclass(eq=False, kw_only=True)
class _Ear:
    """Somebody who listens for nudges; the client keeps a subscription through reconnections."""

    subject: str
    nudged: asyncio.Event = field(default_factory=asyncio.Event)
    subscribed: bool = False
    subscription: Subscription | None = None

    async def hear(self, _: Msg) -> None:
        self.nudged.set()

    async def close(self) -> None:
        if self.subscription is not None:
            with suppress(NatsError):
                await self.subscription.unsubscribe()


class Bus:
    """A connection to NATS which outlives the broker's restarts."""

    def __init__(self, *, client: Client, service: str, on_closed: Callable[[], None]) -> None:
        """`client` may still be connecting; until it has, methods raise DependencyUnavailable."""
        self._client = client
        self._jetstream = JetStreamContext(client, timeout=_PUBLISH_SECONDS)
        self._service = service
        self._on_closed = on_closed
        self._started = self._closing = False
        self._outgoing_nudges: asyncio.Queue[str] = asyncio.Queue(maxsize=1000)
        self._reconnect_listeners: set[Callable[[], None]] = set()
        self._ears: set[_Ear] = set()
        # Connections and streams made by this process so far: the store behind a new one may be another one.
        self.beginnings = 0

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return bool(self._client.is_connected)

    def require_connection(self) -> Client:
        """The connected client; raises DependencyUnavailable while there is no connection."""
        if not self.is_connected:
            raise DependencyUnavailable("nats")
        return self._client

    async def probe(self) -> None:
        """Ask JetStream for an answer; raises DependencyUnavailable."""
        with translated():
            async with asyncio.timeout(_PROBE_SECONDS):
                await self._connected_jetstream().account_info()

    async def publish(
        self,
        subject: str,
        data: bytes,
        *,
        message_id: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Publish and wait for the stream's acknowledgement; raises DependencyUnavailable after 5 s without one."""
        outgoing = Outgoing(subject=subject, data=data, message_id=message_id, headers=headers or {})
        if not await self.publish_all([outgoing]):
            raise DependencyUnavailable("nats")

    async def publish_all(self, messages: Sequence[Outgoing]) -> list[str]:
        """Publish all at once; the ids of those a stream acknowledged within 5 s."""
        futures: dict[str, asyncio.Future[PubAck]] = {}
        with translated():
            jetstream = self._connected_jetstream()
            for message in messages:
                futures[message.message_id] = await jetstream.publish_async(
                    message.subject,
                    message.data,
                    headers={**message.headers, MESSAGE_ID: message.message_id},
                )
        await asyncio.wait(futures.values(), timeout=_PUBLISH_SECONDS)
        for future in futures.values():
            future.cancel()
        return [id_ for id_, future in futures.items() if not future.cancelled() and future.exception() is None]

    async def ensure_stream(self, name: str, subjects: Sequence[str]) -> None:
        """Make the stream, or bring its configuration up to date."""
        config = StreamConfig(
            name=name,
            subjects=list(subjects),
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            max_age=_MAX_AGE,
            max_bytes=_MAX_BYTES,
            duplicate_window=_DUPLICATE_WINDOW,
        )
        with translated():
            jetstream = self._connected_jetstream()
            # Asked first: the answer to add_stream calls a stream created that was there before.
            try:
                await jetstream.stream_info(name)
            except NotFoundError:
                await jetstream.add_stream(config)
                self.beginnings += 1
                _log.info("stream made", stream=name)
            else:
                await jetstream.update_stream(config)

    async def service_stream_made(self) -> datetime | None:
        """When the broker made the stream of this service; None where there is none."""
        with translated():
            try:
                info = await self._connected_jetstream().stream_info(stream_of(self._service))
            except NotFoundError:
                return None
        return info.created

    async def ensure_service_stream(self) -> None:
        """The stream that carries this service's jobs and facts."""
        await self.ensure_stream(
            stream_of(self._service),
            [subject(self._service, "jobs.>"), subject(self._service, "events.>")],
        )

    async def ensure_consumer(self, stream: str, config: ConsumerConfig) -> None:
        """Make the durable consumer, or bring its configuration up to date; our own stream too, should it be gone."""
        if stream == stream_of(self._service):
            await self.ensure_service_stream()
        with translated():
            await self._connected_jetstream().add_consumer(stream, config)

    async def backlog(self, stream: str, durable: str) -> int | None:
        """How many messages the consumer has still to deliver; None when the broker knows no such consumer.

        Those out with a worker do not count: it may be frozen.
        """
        with translated():
            try:
                info = await self._connected_jetstream().consumer_info(stream, durable)
            except NotFoundError:
                return None
        return info.num_pending or 0

    def nudge(self, topic: str) -> None:
        """Wake whoever waits for `topic`, in any process; best effort, returns at once."""
        with suppress(asyncio.QueueFull):
            self._outgoing_nudges.put_nowait(topic)

    @asynccontextmanager
    async def nudges(self, topic: str) -> AsyncIterator[asyncio.Event]:
        """An event set by each nudge for `topic`; while there is no connection none come, so poll as well."""
        ear = _Ear(subject=self._nudge_subject(topic))
        self._ears.add(ear)
        try:
            await self._subscribe(ear)
            yield ear.nudged
        finally:
            self._ears.discard(ear)
            await ear.close()

    def on_reconnect(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after each reconnection, until the function this returns is called."""
        self._reconnect_listeners.add(listener)
        return lambda: self._reconnect_listeners.discard(listener)

    async def run(self, url: str) -> None:
        """Connect, however long that takes, and carry nudges for ever."""
        self._started = True
        await self._client.connect(
            url,
            name=f"loremesh-{self._service}",
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            # A hung broker is noticed after 15 s; the default would be six minutes.
            ping_interval=5,
            max_outstanding_pings=2,
            error_cb=_report_error,
            disconnected_cb=self._disconnected,
            reconnected_cb=self._reconnected,
            closed_cb=self._closed,
        )
        self.beginnings += 1
        _log.info("nats connected")
        await self._subscribe_all()
        while True:
            topic = await self._outgoing_nudges.get()
            with suppress(NatsError):
                await self._client.publish(self._nudge_subject(topic))

    async def close(self) -> None:
        """Flush and close for good."""
        self._closing = True
        if self._started:
            await self._client.close()

    def _connected_jetstream(self) -> JetStreamContext:
        self.require_connection()
        return self._jetstream

    async def _subscribe(self, ear: _Ear) -> None:
        with suppress(NatsError, DependencyUnavailable):
            client = self.require_connection()
            # Before the first await: a connection made meanwhile must not subscribe it a second time.
            ear.subscribed = True
            ear.subscription = await client.subscribe(ear.subject, cb=ear.hear)

    async def _subscribe_all(self) -> None:
        """Have those hear nudges who began to listen without a connection; what came before, they look for now."""
        for ear in [each for each in self._ears if not each.subscribed]:
            await self._subscribe(ear)
            ear.nudged.set()
            if ear not in self._ears:
                await ear.close()

    def _nudge_subject(self, topic: str) -> str:
        return subject(self._service, f"nudges.{_UNTOKENABLE.sub('_', topic)}")

    async def _disconnected(self) -> None:
        if not self._closing:
            _log.warning("nats disconnected")

    async def _reconnected(self) -> None:
        self.beginnings += 1
        _log.info("nats reconnected")
        await self._subscribe_all()
        for listener in tuple(self._reconnect_listeners):
            listener()

    async def _closed(self) -> None:
        if not self._closing:
            _log.critical("nats gave up the connection")
            self._on_closed()


def stream_of(service: str) -> str:
    """The name of a service's stream."""
    return service.upper()


def subject(service: str, rest: str) -> str:
    """`loremesh.<service>.<rest>`."""
    return f"loremesh.{service}.{rest}"


def check_name(name: str) -> None:
    """Raise ValueError unless `name` can stand in a subject: one the broker refuses would block those behind it."""
    if not _NAME.fullmatch(name):
        message = f"{name!r} is no name for a job or a fact"
        raise ValueError(message)


@contextmanager
def translated() -> Iterator[None]:
    """Whatever the client raises becomes DependencyUnavailable."""
    try:
        yield
    except (NatsError, TimeoutError, OSError) as error:
        _log.warning("nats failed", error=repr(error))
        raise DependencyUnavailable("nats") from error


async def _report_error(error: Exception) -> None:
    _log.debug("nats error", error=repr(error))


def end_process() -> None:
    """Ask this process to stop, so that its supervisor starts it afresh."""
    os.kill(os.getpid(), signal.SIGTERM)


@asynccontextmanager
async def connect(
    url: str,
    *,
    service: str,
    on_closed: Callable[[], None] = end_process,
) -> AsyncIterator[Bus]:
    """A bus that connects in the background and stays connected; `on_closed` is called if it cannot any more."""
    bus = Bus(client=Client(), service=service, on_closed=on_closed)
    async with background() as group:
        running = group.create_task(bus.run(url))
        try:
            yield bus
        finally:
            running.cancel()
            await bus.close()
