"""Mutating calls under a key, through a real server onto a real Postgres."""

import asyncio
from contextlib import suppress

import pytest
from grpc import aio
from loremesh.agent.v1.chat_pb2 import ChatRequest
from loremesh_kit import idempotency
from loremesh_kit.errors import DependencyUnavailable
from loremesh_kit.postgres import touch
from loremesh_kit.testing import caller
from psycopg.errors import UniqueViolation

pytestmark = pytest.mark.steelthread

_EFFECT = "INSERT INTO inbox (tenant, consumer, message_id) VALUES (current_setting('app.tenant'), %s, %s)"
_UNARY = "/loremesh.agent.v1.EchoService/Unary"


@pytest.fixture
def start(start_echo, database):
    """The echo service, whose unary method is idempotent."""

    def go(act, **wired):
        return start_echo(act, wired={"idempotent": frozenset({_UNARY}), "database": database, **wired})

    return go


def say(echo, message, key, **options):
    metadata = (*echo.as_caller, *((("idempotency-key", key),) if key is not None else ()))
    return echo.call("Unary", ChatRequest(message=message), metadata=metadata, **options)


async def effects(database):
    with caller():
        return [row["message_id"] for row in await database.fetch("SELECT message_id FROM inbox ORDER BY message_id")]


async def write(database, message):
    async with database.transaction() as connection:
        await connection.execute(_EFFECT, ["test", message])


async def test_a_repeated_call_has_one_effect_and_the_same_answer(start, database):
    calls = []

    async def act(request):
        calls.append(request.message)
        await write(database, f"{request.message} {len(calls)}")
        return ChatRequest(message=f"answer {len(calls)}")

    async with start(act) as echo:
        answers = [(await say(echo, "a", "k"))[0].message for _ in range(3)]
        other = (await say(echo, "a", "k2"))[0].message
        without = [(await say(echo, "a", None))[0].message for _ in range(2)]

    assert answers == ["answer 1"] * 3
    assert (other, without) == ("answer 2", ["answer 3", "answer 4"])
    assert await effects(database) == ["a 1", "a 2", "a 3", "a 4"]


async def test_the_stored_answer_is_given_byte_for_byte(start, database):
    async def act(_):
        return ChatRequest(message="x", conversation_id="y")

    async with start(act) as echo:
        first = await _raw(echo)
        (row,) = await _stored(database)
        assert first == bytes(row["response"])
        assert await _raw(echo) == first


async def _raw(echo):
    method = echo.channel.unary_unary(_UNARY)
    return await method(
        ChatRequest(message="m").SerializeToString(), metadata=(*echo.as_caller, ("idempotency-key", "k")), timeout=10
    )


async def _stored(database):
    with caller():
        return await database.fetch("SELECT response FROM idempotency")


async def test_the_key_with_another_body_is_refused(start, database):
    async def act(request):
        await write(database, request.message)
        return request

    async with start(act) as echo:
        await say(echo, "a", "k")
        with pytest.raises(aio.AioRpcError) as raised:
            await say(echo, "b", "k")

    assert raised.value.code().name == "ALREADY_EXISTS"
    assert await effects(database) == ["a"]


@pytest.mark.parametrize("key", ["", "k" * 201, "\u00e9".encode().decode("latin-1"), "a\tb"])
async def test_a_key_that_is_none_is_refused(key):
    with idempotency.scope(key), pytest.raises(idempotency.IdempotencyKeyInvalid):
        idempotency.key()


async def test_an_empty_key_is_refused_with_its_reason(start):
    async def act(request):
        return request

    async with start(act) as echo:
        with pytest.raises(aio.AioRpcError) as raised:
            await say(echo, "a", "k" * 201)
    assert raised.value.code().name == "INVALID_ARGUMENT"
    assert "idempotency key" in raised.value.details()


async def test_a_call_that_fails_undoes_everything_and_leaves_its_key_free(start, database):
    async def act(request):
        await write(database, request.message)
        if request.message == "first":
            raise DependencyUnavailable("embedding")
        return request

    async with start(act) as echo:
        with pytest.raises(aio.AioRpcError):
            await say(echo, "first", "k")
        assert await effects(database) == []
        await say(echo, "second", "k")

    assert await effects(database) == ["second"]


async def test_two_calls_at_once_have_one_effect(start, database):
    entered = []

    async def act(request):
        entered.append(1)
        await write(database, request.message)
        await asyncio.sleep(0.3)
        return ChatRequest(message=f"answer {len(entered)}")

    async with start(act) as echo, asyncio.TaskGroup() as group:
        calls = [group.create_task(say(echo, "a", "k")) for _ in range(4)]

    assert {call.result()[0].message for call in calls} == {"answer 1"}
    assert await effects(database) == ["a"]


async def test_a_wait_for_the_first_call_ends_with_the_callers_deadline(start):
    gate, entered = asyncio.Event(), asyncio.Event()

    async def act(request):
        entered.set()
        await gate.wait()
        return request

    async with start(act) as echo, asyncio.TaskGroup() as group:
        first = group.create_task(say(echo, "a", "k"))
        await entered.wait()
        with pytest.raises(aio.AioRpcError) as raised:
            await say(echo, "a", "k", seconds=0.5)
        gate.set()
    assert raised.value.code().name == "DEADLINE_EXCEEDED"
    assert first.result()


async def test_a_reply_that_is_lost_can_be_asked_for_again(start, database):
    """The caller leaves while the transaction commits, and comes back with the key."""

    async def act(request):
        await write(database, request.message)
        await asyncio.sleep(0.2)
        return ChatRequest(message="done")

    async with start(act) as echo:
        for patience in (0.05, 0.15, 0.21, 0.25):
            with suppress(aio.AioRpcError):
                await say(echo, "a", "k", seconds=patience)
        assert (await say(echo, "a", "k"))[0].message == "done"

    assert await effects(database) == ["a"]


# the transaction that others join


async def test_what_is_done_inside_commits_or_rolls_back_together(database):
    with caller():
        with pytest.raises(RuntimeError):
            await _write_and_fail(database)
        assert await effects(database) == []
        async with database.joined_transaction():
            await write(database, "a")
            await database.fetch(_EFFECT, ["test", "b"])
            assert await effects(database) == ["a", "b"]
        assert await effects(database) == ["a", "b"]


async def _write_and_fail(database):
    async with database.joined_transaction():
        await write(database, "a")
        await database.fetch(_EFFECT, ["test", "b"])
        raise RuntimeError


async def test_a_part_that_fails_is_undone_alone(database):
    with caller():
        async with database.joined_transaction():
            await write(database, "a")
            with pytest.raises(UniqueViolation):
                await database.fetch(_EFFECT, ["test", "a"])
            with pytest.raises(UniqueViolation):
                await write(database, "a")
            await write(database, "b")
        assert await effects(database) == ["a", "b"]


async def test_other_tasks_and_other_tenants_do_not_join(database):
    with caller():
        async with database.joined_transaction():
            await write(database, "mine")
            async with asyncio.TaskGroup() as group:
                other_task = group.create_task(effects(database))
            async with database.transaction(tenant="globex") as connection:
                await connection.execute(_EFFECT, ["test", "theirs"])
            assert other_task.result() == []
        assert await effects(database) == ["mine"]
    with caller(tenant="globex"):
        rows = await database.fetch("SELECT message_id FROM inbox")
    assert [row["message_id"] for row in rows] == ["theirs"]


async def test_listeners_are_told_after_the_one_commit(database):
    told = []
    database.listen(told.append)
    with caller():
        async with database.joined_transaction():
            async with database.transaction() as connection:
                touch(connection, "topic")
            assert told == []
        assert told == ["topic"]
        with pytest.raises(RuntimeError):
            await _touch_and_fail(database)
    assert told == ["topic"]


async def _touch_and_fail(database):
    async with database.joined_transaction():
        async with database.transaction() as connection:
            touch(connection, "never")
        raise RuntimeError
