"""A fact that comes twice, since the broker lost its store, has one effect with an inbox and two without."""

import asyncio

import pytest
from loremesh_ingestion.wiring import SERVICE
from loremesh_kit import events, inbox
from loremesh_kit.consumer import Consumer
from loremesh_kit.events import stream_of, subject
from loremesh_kit.postgres import open_database
from loremesh_kit.testing import caller

from tests.ordeal.acts import SMALL
from tests.ordeal.checker import Wrong, judge
from tests.ordeal.lot import TENANT
from tests.ordeal.stores import Stores

pytestmark = [pytest.mark.steelthread, pytest.mark.timeout(120)]
READER = "reader"


async def _first_time(connection, message):
    return await inbox.first_time(connection, consumer=READER, message_id=message.id)


async def _always(connection, message):
    return True


async def _read_facts(lot, effects, *, is_new):
    """Take what the stream holds, with one effect for each message that `is_new`."""
    async with (
        open_database(lot.ground.settings()) as database,
        events.connect(lot.ground.nats_url, service=SERVICE, on_closed=lambda: None) as bus,
    ):
        async with asyncio.timeout(20):
            while not bus.is_connected:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        consumer = Consumer(bus=bus, stream=stream_of(SERVICE), durable=READER, subjects=[subject(SERVICE, "events.>")])
        with caller(tenant=TENANT):
            for message in await consumer.take(10):
                async with database.transaction() as connection:
                    if await is_new(connection, message):
                        effects.append(message.id)
                await message.ack()
        await consumer.close()
        await bus.require_connection().jetstream().delete_stream(stream_of(SERVICE))


@pytest.mark.parametrize(("is_new", "expected"), [(_first_time, set()), (_always, {Wrong.DUPLICATED})])
async def test_a_fact_that_comes_again_has_no_second_effect(make_lot, is_new, expected):
    effects = []
    async with make_lot() as lot:
        await lot.upload(SMALL)
        await lot.quiet()
        await _read_facts(lot, effects, is_new=is_new)
        await lot.process.kill()
        await lot.start()
        await lot.settle()
        await _read_facts(lot, effects, is_new=is_new)
    assert effects
    assert {finding.wrong for finding in judge([], Stores(effects=effects))} == expected
