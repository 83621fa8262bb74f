"""A proof must be able to fail: without its mechanism each promise is broken, and the checker says so."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.ordeal import twins
from tests.ordeal.acts import SMALL
from tests.ordeal.checker import Promise, Wrong
from tests.ordeal.life import Aim, Mode, Point
from tests.ordeal.lot import Lot
from tests.ordeal.steel import LEASE, WHOLE, Process, Twin

pytestmark = [pytest.mark.steelthread, pytest.mark.timeout(120)]

Ordeal = Callable[[Lot], Awaitable[None]]
PATIENCE = 4 * LEASE


async def killed_after_an_ok(lot: Lot) -> None:
    await lot.upload(SMALL)
    await lot.process.kill()
    await lot.start()


def killed_at(name: str, mode: Mode = Mode.BEFORE) -> Ordeal:
    """Upload, be struck there, start again."""

    async def ordeal(lot: Lot) -> None:
        struck = lot.process.life
        struck.aim(Aim(Point(name), mode))
        await lot.upload(SMALL)
        async with asyncio.timeout(20):
            await struck.died.wait()
        await lot.start()

    return ordeal


async def late(frozen: Process) -> None:
    """Have a frozen process go on and finish what it was at."""
    frozen.life.thaw()
    await asyncio.sleep(LEASE)
    await frozen.end()


async def frozen_while_another_indexed_anew(lot: Lot) -> None:
    """Two versions are under way; the older one's worker comes back late."""
    document_id = await lot.upload(SMALL)
    await lot.quiet()
    struck = lot.process
    struck.life.aim(Aim(Point("index.upsert@index:writing.write"), Mode.FROZEN))
    await lot.index(document_id)
    async with asyncio.timeout(20):
        await struck.life.frozen.wait()
    await lot.start()
    await lot.index(document_id)
    await lot.quiet()
    await lot.look(document_id)
    await late(struck)
    await lot.look(document_id)


async def frozen_while_another_replaced(lot: Lot) -> None:
    """As above, but it is another text that comes between."""
    document_id = await lot.upload(f"This is edition1. {SMALL}")
    await lot.quiet()
    struck = lot.process
    struck.life.aim(Aim(Point("index.upsert@index:writing.write"), Mode.FROZEN))
    await lot.replace(document_id, f"This is edition2. {SMALL}", key="2")
    async with asyncio.timeout(20):
        await struck.life.frozen.wait()
    await lot.start()
    await lot.replace(document_id, f"This is edition3. {SMALL}", key="3")
    await lot.quiet()
    lot.sees(document_id, edition=3)
    await late(struck)
    await lot.search(document_id)


async def uploaded_on_a_full_disk(lot: Lot) -> None:
    lot.ground.blobs.full = True
    await lot.upload(SMALL)
    lot.ground.blobs.full = False


async def uploaded_again_as_it_is(lot: Lot) -> None:
    document_id = await lot.upload(SMALL)
    await lot.quiet()
    await lot.upload_again(document_id, SMALL)
    await lot.quiet()


async def deleted(lot: Lot) -> None:
    document_id = await lot.upload(SMALL)
    await lot.quiet()
    await lot.delete(document_id)


CASES = {
    "OK before the commit": (twins.OK_BEFORE_COMMIT, killed_after_an_ok, Wrong.LOST),
    "ack before the claim": (twins.ACK_BEFORE_CLAIM, killed_at("database.fetch@leases._CLAIM"), Wrong.STUCK),
    "no sweeper": (twins.NO_SWEEPER, killed_at("index.upsert@index:writing.write"), Wrong.STUCK),
    "no outbox": (twins.NO_OUTBOX, killed_at("bus.publish_jobs@outbox.relay"), Wrong.STUCK),
    "random point ids": (
        twins.RANDOM_POINT_IDS,
        killed_at("index.upsert@index:writing.write", Mode.AFTER),
        Wrong.DUPLICATED,
    ),
    "no fence": (twins.NO_FENCE, frozen_while_another_indexed_anew, Wrong.STALE),
    "no fence, and another text": (twins.NO_FENCE, frozen_while_another_replaced, Wrong.STALE),
    "a refusal of the object store not heard": (twins.REFUSAL_UNHEARD, uploaded_on_a_full_disk, Wrong.STUCK),
    "the content there is not compared": (twins.CONTENT_UNKNOWN, uploaded_again_as_it_is, Wrong.DUPLICATED),
    "no purge of the object store": (twins.NO_PURGE, deleted, Wrong.ORPHANED),
}


async def found(make_lot, twin: Twin, ordeal: Ordeal) -> set[Wrong]:
    async with make_lot(twin) as lot:
        await lot.upload("The first upload makes the default vector store.")
        await lot.quiet()
        await ordeal(lot)
        promises = frozenset({Promise.STRICT_SEARCH, Promise.IDEMPOTENCY})
        if twin is WHOLE:
            return {finding.wrong for finding in await lot.settled_verdict(promises=promises)}
        await lot.pass_time()
        await lot.quiet(PATIENCE)
        assert not lot.unused_rewrites(), "the twin is not the service without its mechanism any more"
        return {finding.wrong for finding in await lot.verdict(promises=promises)}


@pytest.mark.parametrize("name", CASES)
async def test_without_its_mechanism_a_promise_is_broken_and_with_it_kept(make_lot, name):
    twin, ordeal, wrong = CASES[name]
    assert wrong not in await found(make_lot, WHOLE, ordeal)
    assert wrong in await found(make_lot, twin, ordeal)


async def deleted_while_a_frozen_worker_indexes(lot: Lot) -> None:
    struck = lot.process
    struck.life.aim(Aim(Point("index.upsert@index:writing.write"), Mode.FROZEN))
    document_id = await lot.upload(SMALL)
    async with asyncio.timeout(20):
        await struck.life.frozen.wait()
    await lot.start()
    await lot.delete(document_id)
    await lot.quiet()
    await late(struck)


@pytest.mark.parametrize("ordeal", [frozen_while_another_indexed_anew, deleted_while_a_frozen_worker_indexes])
async def test_a_late_worker_leaves_nothing_in_the_index(make_lot, ordeal):
    assert await found(make_lot, WHOLE, ordeal) == set()
