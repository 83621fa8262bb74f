"""Facts and messages on a real Postgres and NATS."""

import asyncio
import json

import pytest
from loremesh_kit.consumer import Consumer, consume
from loremesh_kit.errors import DependencyUnavailable
from loremesh_kit.events import connect, stream_of, subject
from loremesh_kit.inbox import first_time
from loremesh_kit.outbox import Relay, emit
from loremesh_kit.telemetry import traces
from loremesh_kit.testing import caller

pytestmark = pytest.mark.steelthread


async def emit_facts(workshop, *names: str):
    with caller():
        async with workshop.database.transaction() as connection:
            return [await emit(connection, name=name, payload={"document_id": name}) for name in names]


def facts(workshop, durable="reader"):
    return Consumer(
        bus=workshop.bus,
        stream=stream_of(workshop.service),
        durable=durable,
        subjects=[subject(workshop.service, "events.>")],
    )


async def take(consumer, count, seconds=10):
    taken = []
    async with asyncio.timeout(seconds):
        while len(taken) < count:
            for message in await consumer.take(count):
                await message.ack()
                taken.append(message)
    return taken


async def test_a_fact_is_published_once_its_transaction_commits(workshop):
    tracing = traces.configure(service="agent", endpoint="")
    with tracing.get_tracer("test").start_as_current_span("root"):
        (message_id,) = await emit_facts(workshop, "DocumentIndexed")
    async with workshop.open():
        (message,) = await take(facts(workshop), 1)

    assert message.id == message_id
    assert message.subject == f"loremesh.{workshop.service}.events.DocumentIndexed"
    assert json.loads(message.data) == {"document_id": "DocumentIndexed"}
    assert message.headers["x-loremesh-tenant"] == "acme"
    assert message.headers["x-request-id"] == "request-1"
    assert message.headers["traceparent"].startswith("00-")
    (row,) = await workshop.rows("SELECT sent_at, held_until FROM outbox")
    assert row["sent_at"] is not None
    assert row["held_until"] is None


async def test_a_fact_of_a_failed_transaction_never_happened(workshop):
    with caller(), pytest.raises(RuntimeError):
        await _emit_and_fail(workshop)
    async with workshop.open():
        await emit_facts(workshop, "Other")
        (message,) = await take(facts(workshop), 1)

    assert message.subject.endswith(".Other")


async def _emit_and_fail(workshop):
    async with workshop.database.transaction() as connection:
        await emit(connection, name="Never", payload={})
        raise RuntimeError


@pytest.mark.parametrize(
    ("name", "payload"), [("a b", {}), ("a.*", {}), ("", {}), ("ไทย", {}), ("Fine", {"text": "x" * 100_000})]
)
async def test_what_the_broker_would_refuse_is_refused_when_written(workshop, name, payload):
    """It would be tried for ever, and nothing behind it sent."""
    with caller(), pytest.raises(ValueError, match=r"name|larger"):
        async with workshop.database.transaction() as connection:
            await emit(connection, name=name, payload=payload)
    if name != "Fine":
        with pytest.raises(ValueError, match="name"):
            await workshop.enqueue(name)


async def test_two_relays_send_each_message_once(workshop):
    await emit_facts(workshop, *(f"E{index}" for index in range(300)))
    async with workshop.open(Relay(database=workshop.database, bus=workshop.bus, service=workshop.service)):
        messages = await take(facts(workshop), 300)
        await asyncio.sleep(0.3)
        info = await workshop.bus.require_connection().jetstream().stream_info(stream_of(workshop.service))

    assert len({message.id for message in messages}) == 300
    assert info.state.messages == 300


async def test_a_message_sent_twice_arrives_once(workshop):
    await emit_facts(workshop, "Once")
    relay = Relay(database=workshop.database, bus=workshop.bus, service=workshop.service)
    await workshop.bus.ensure_service_stream()
    await relay.relay()
    await workshop.database.fetch_across_tenants("UPDATE outbox SET sent_at = NULL")
    await relay.relay()

    info = await workshop.bus.require_connection().jetstream().stream_info(stream_of(workshop.service))
    assert info.state.messages == 1


async def test_without_a_broker_messages_wait_unharmed(workshop, broker):
    async with connect(broker.url, service=workshop.service, on_closed=lambda: None) as bus:
        relay = Relay(database=workshop.database, bus=bus, service=workshop.service)
        await emit_facts(workshop, "Patient")
        with pytest.raises(DependencyUnavailable):
            await relay.relay()

    (row,) = await workshop.rows("SELECT sent_at, held_until FROM outbox")
    assert (row["sent_at"], row["held_until"]) == (None, None)


async def test_without_a_stream_one_is_made_and_nothing_is_lost(workshop):
    await emit_facts(workshop, "Early")
    relay = Relay(database=workshop.database, bus=workshop.bus, service=workshop.service)
    with pytest.raises(DependencyUnavailable):
        await relay.relay()

    assert await relay.relay() == 1


async def test_facts_of_a_stream_that_was_lost_are_sent_again(workshop):
    async with workshop.open():
        (first,) = await emit_facts(workshop, "Lasting")
        await take(facts(workshop, "before"), 1)
        await workshop.bus.require_connection().jetstream().delete_stream(stream_of(workshop.service))
        (again,) = await take(facts(workshop, "after"), 1)

    assert again.id == first


async def test_facts_are_sent_again_where_whoever_made_the_new_stream_did_not_live_to_do_so(workshop, nats_url):
    async with workshop.open():
        (first,) = await emit_facts(workshop, "Lasting")
        await take(facts(workshop, "before"), 1)
    await workshop.bus.require_connection().jetstream().delete_stream(stream_of(workshop.service))
    await workshop.bus.ensure_service_stream()
    async with connect(nats_url, service=workshop.service) as bus:
        async with asyncio.timeout(10):
            while not bus.beginnings:  # noqa: ASYNC110 - nothing in the client tells
                await asyncio.sleep(0.01)
        relay = Relay(database=workshop.database, bus=bus, service=workshop.service)
        assert await relay.relay() == 1
        assert await relay.relay() == 0
    (again,) = await take(facts(workshop, "after"), 1)
    assert again.id == first


async def test_a_stream_that_was_there_all_along_was_not_lost(workshop):
    async with workshop.open(relay=False):
        await workshop.bus.ensure_service_stream()
        made = workshop.bus.beginnings
        await workshop.bus.ensure_service_stream()
        assert workshop.bus.beginnings == made


async def test_an_effect_happens_the_first_time_only(database):
    with caller(tenant="acme"):
        async with database.transaction() as connection:
            assert await first_time(connection, consumer="c", message_id="m")
        async with database.transaction() as connection:
            assert not await first_time(connection, consumer="c", message_id="m")
            assert await first_time(connection, consumer="d", message_id="m")
    with caller(tenant="globex"):
        async with database.transaction() as connection:
            assert await first_time(connection, consumer="c", message_id="m")


async def test_consumers_of_one_name_share_the_messages_and_others_get_their_own(workshop):
    await emit_facts(workshop, *(f"E{index}" for index in range(10)))
    async with workshop.open():
        shared = [facts(workshop, "shared"), facts(workshop, "shared")]
        halves = [*await take(shared[0], 5), *await take(shared[1], 5)]
        own = await take(facts(workshop, "own"), 10)

    assert len({message.id for message in halves}) == len({message.id for message in own}) == 10


async def test_what_was_not_acknowledged_comes_again(workshop):
    await emit_facts(workshop, "Again")
    async with workshop.open():
        consumer = facts(workshop)
        messages = []
        async with asyncio.timeout(10):
            while not messages:
                messages = await consumer.take(1)
        await messages[0].nak(0.1)
        (again,) = await take(consumer, 1)

    assert again.id == messages[0].id


async def test_what_was_received_and_not_taken_is_left_to_others(workshop):
    await emit_facts(workshop, "A", "B", "C")
    async with workshop.open():
        first = facts(workshop, "shared")
        async with asyncio.timeout(10):
            while not (taken := await first.take(1)):
                pass
        await taken[0].ack()
        first._expected = 0
        await first._ask(2)
        await asyncio.sleep(0.3)
        await first.close()
        others = await take(facts(workshop, "shared"), 2, seconds=5)

    assert len({message.id for message in [*taken, *others]}) == 3


async def test_consume_outlives_the_brokers_restart(workshop, broker):
    broker.start()
    stop, seen = asyncio.Event(), []
    async with connect(broker.url, service=workshop.service, on_closed=lambda: None) as bus:
        workshop.bus = bus
        async with workshop.open(), asyncio.TaskGroup() as group:

            async def read():
                stream, wanted = stream_of(workshop.service), [subject(workshop.service, "events.>")]
                async for batch in consume(bus, stream=stream, durable="reader", subjects=wanted, stop=stop):
                    for message in batch:
                        seen.append(message.id)
                        await message.ack()

            group.create_task(read())
            (first,) = await emit_facts(workshop, "Before")
            await _until(lambda: first in seen)
            await asyncio.to_thread(broker.stop)
            await asyncio.to_thread(broker.start)
            (second,) = await emit_facts(workshop, "After")
            await _until(lambda: second in seen)
            stop.set()


async def _until(holds, seconds=30):
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_the_bus_says_when_there_is_no_broker(broker):
    async with connect(broker.url, service="nobody", on_closed=lambda: None) as bus:
        for attempt in (bus.probe(), bus.ensure_service_stream(), bus.publish("a", b"", message_id="1")):
            with pytest.raises(DependencyUnavailable):
                await attempt
        broker.start()
        await _until(lambda: bus.is_connected)
        await bus.probe()


async def test_a_publish_nobody_keeps_is_a_failure(workshop):
    with pytest.raises(DependencyUnavailable):
        await workshop.bus.publish("loremesh.nowhere", b"", message_id="1")


async def test_a_client_that_is_closed_for_good_ends_the_process(nats_url):
    ended = asyncio.Event()
    async with connect(nats_url, service="doomed", on_closed=ended.set) as bus:
        await _until(lambda: bus.is_connected)
        await bus.require_connection().close()
        await asyncio.wait_for(ended.wait(), 5)


async def test_a_clean_end_is_no_emergency(nats_url):
    ended = asyncio.Event()
    async with connect(nats_url, service="content", on_closed=ended.set) as bus:
        await _until(lambda: bus.is_connected)
    assert not ended.is_set()
