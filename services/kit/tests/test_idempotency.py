import asyncio

import pytest
from loremesh_kit import idempotency
from loremesh_kit.errors import IdempotencyConflict
from loremesh_kit.testing import caller

pytestmark = pytest.mark.steelthread


@pytest.fixture(autouse=True)
def _as_somebody():
    with caller():
        yield


async def request(database, key="k", request_hash=b"h", method="Create", effects=None):
    """What a servicer does: ask, work, remember."""
    async with database.transaction() as connection:
        stored = await idempotency.once(connection, key=key, method=method, request_hash=request_hash)
        if stored is not None:
            return stored
        effects = effects if effects is not None else []
        effects.append(key)
        await asyncio.sleep(0.05)
        response = f"answer {len(effects)}".encode()
        await idempotency.remember(connection, key=key, method=method, response=response)
        return response


async def test_a_repeated_request_gets_the_same_answer_and_one_effect(database):
    effects = []

    answers = [await request(database, effects=effects) for _ in range(3)]

    assert answers == [b"answer 1"] * 3
    assert effects == ["k"]


async def test_repeats_at_the_same_time_wait_for_the_first(database):
    effects = []

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(request(database, effects=effects)) for _ in range(5)]

    assert {task.result() for task in tasks} == {b"answer 1"}
    assert effects == ["k"]


async def test_the_key_with_another_request_is_refused(database):
    await request(database)

    with pytest.raises(IdempotencyConflict) as raised:
        await request(database, request_hash=b"other")
    assert raised.value.metadata == {"key": "k"}


async def test_keys_belong_to_their_tenant_and_method(database):
    effects = []
    await request(database, effects=effects)
    await request(database, method="Delete", request_hash=b"x", effects=effects)
    with caller(tenant="globex"):
        await request(database, request_hash=b"y", effects=effects)

    assert len(effects) == 3


async def test_a_failed_request_may_be_tried_again(database):
    with pytest.raises(RuntimeError):
        await _fail(database)

    assert await request(database, request_hash=b"other") == b"answer 1"


async def _fail(database):
    async with database.transaction() as connection:
        await idempotency.once(connection, key="k", method="Create", request_hash=b"h")
        raise RuntimeError


async def test_answers_are_kept_for_a_day_and_then_swept(workshop):
    await request(workshop.database, key="old")
    await request(workshop.database, key="new")
    async with workshop.database.transaction() as connection:
        await connection.execute("UPDATE idempotency SET created_at = now() - interval '25 hours' WHERE key = 'old'")
    await workshop.worker()._sweeper._purge()

    assert [row["key"] for row in await workshop.database.fetch("SELECT key FROM idempotency")] == ["new"]
