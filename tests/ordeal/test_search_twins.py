"""Searches that ask what is live, and calls that are repeated: with and without what makes them safe."""

import pytest

from tests.ordeal import twins
from tests.ordeal.acts import SMALL
from tests.ordeal.checker import EVERY_PROMISE, Promise, Wrong
from tests.ordeal.life import Aim, Mode, Point
from tests.ordeal.steel import WHOLE

pytestmark = [pytest.mark.steelthread, pytest.mark.timeout(120)]


async def _require(lot, promise):
    if promise not in await lot.promises():
        pytest.skip(f"{promise} is not promised yet")


async def test_a_search_that_asks_the_index_alone_finds_what_is_deleted(make_lot):
    async with make_lot(twins.SLUGGISH_INDEX) as lot:
        await _require(lot, Promise.STRICT_SEARCH)
        document_id = await lot.upload(SMALL)
        await lot.quiet()
        await lot.delete(document_id)
        await lot.search(document_id)
        assert Wrong.STALE not in {finding.wrong for finding in await lot.verdict(promises=EVERY_PROMISE)}
        await lot.search(document_id, strict=False)
        assert Wrong.STALE in {finding.wrong for finding in await lot.verdict(promises=EVERY_PROMISE)}


async def test_a_search_that_asks_the_index_alone_mixes_generations(make_lot):
    async with make_lot() as lot:
        document_id = await lot.upload(SMALL)
        await lot.quiet()
        await lot.switch()
        await lot.search(document_id)
        assert await lot.verdict(promises=EVERY_PROMISE) == []
        await lot.search(document_id, strict=False)
        assert {finding.wrong for finding in await lot.verdict(promises=EVERY_PROMISE)} == {Wrong.STALE}


@pytest.mark.parametrize(("twin", "expected"), [(WHOLE, set()), (twins.KEY_IGNORED, {Wrong.DUPLICATED})])
async def test_indexing_anew_twice_under_one_key_is_once(make_lot, twin, expected):
    async with make_lot(twin) as lot:
        document_id = await lot.upload(SMALL)
        await lot.quiet()
        struck = lot.process.life
        struck.aim(Aim(Point("database.commit@idempotency._once"), Mode.AFTER))
        await lot.index(document_id, key="once")
        assert struck.died.is_set()
        await lot.start()
        await lot.index(document_id, key="once")
        assert {finding.wrong for finding in await lot.settled_verdict(promises={Promise.IDEMPOTENCY})} == expected


@pytest.mark.parametrize(("twin", "expected"), [(WHOLE, set()), (twins.KEY_IGNORED, {Wrong.DUPLICATED})])
async def test_an_upload_repeated_under_its_key_is_the_same_upload(make_lot, twin, expected):
    async with make_lot() as whole:
        await _require(whole, Promise.UPLOAD_KEYS)
    async with make_lot(twin) as lot:
        await lot.upload("The first upload makes the default vector store.")
        for number, mode in enumerate((Mode.TIMEOUT, Mode.AFTER)):
            struck = lot.process.life
            struck.aim(Aim(Point("database.commit@uploads._once"), mode))
            await lot.upload(SMALL, key=f"key-{number}")
            if struck.died.is_set():
                await lot.start()
            await lot.upload(SMALL, key=f"key-{number}")
        # What is alike is recognised even without a key; what was changed since is not.
        document_id = await lot.upload(SMALL, key="renamed")
        await lot.rename(document_id)
        again = await lot.upload(SMALL, key="renamed")
        assert (again == document_id) is (twin is WHOLE)
        assert {finding.wrong for finding in await lot.settled_verdict(promises=EVERY_PROMISE)} == expected
