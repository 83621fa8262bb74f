import asyncio
import time
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc import aio
from loremesh.agent.v1.chat_pb2 import ChatRequest
from loremesh_kit import deadline, identity
from loremesh_kit.channel import open_channel, reason_of
from loremesh_kit.errors import DependencyUnavailable
from loremesh_kit.telemetry import traces
from loremesh_kit.testing import caller
from opentelemetry import trace

pytestmark = pytest.mark.unit

HELLO = ChatRequest(message="hello")
KINDS = {
    "Unary": "unary_unary",
    "ClientStream": "stream_unary",
    "ServerStream": "unary_stream",
    "Bidi": "stream_stream",
}


async def call(channel, arity, **options: object):
    method = getattr(channel, KINDS[arity])(
        f"/loremesh.agent.v1.EchoService/{arity}",
        request_serializer=ChatRequest.SerializeToString,
        response_deserializer=ChatRequest.FromString,
        _registered_method=True,
    )
    rpc = method(iter([HELLO]) if arity in ("ClientStream", "Bidi") else HELLO, **options)
    return [answer async for answer in rpc] if arity in ("ServerStream", "Bidi") else [await rpc]


def observing(seen, look):
    async def act(request):
        seen.append(look())
        return request

    return act


async def test_identity_travels(start_echo, arity):
    seen = []
    async with start_echo(observing(seen, identity.current)) as echo, open_channel(echo.target) as channel:
        with caller(tenant="t", principal="p", request_id="r"):
            await call(channel, arity)

    assert seen[0] == identity.Identity(tenant="t", principal="p", request_id="r")


async def test_without_identity_none_is_made_up(start_echo):
    async with start_echo() as echo, open_channel(echo.target) as channel:
        with pytest.raises(aio.AioRpcError) as raised:
            await call(channel, "Unary")

    assert reason_of(raised.value) == "IDENTITY_MISSING"


async def test_the_trace_travels(start_echo, arity):
    seen = []
    tracing = traces.configure(service="agent", endpoint="")

    def trace_id():
        return trace.get_current_span().get_span_context().trace_id

    async with start_echo(observing(seen, trace_id)) as echo, open_channel(echo.target) as channel:
        with caller(), tracing.get_tracer("test").start_as_current_span("root") as root:
            await call(channel, arity)

    assert seen[0] == root.get_span_context().trace_id != 0


async def test_what_is_left_of_the_deadline_travels_less_a_margin(start_echo, arity):
    seen = []
    async with start_echo(observing(seen, deadline.remaining)) as echo, open_channel(echo.target) as channel:
        with caller(), deadline.scope(5):
            await call(channel, arity)
            await call(channel, arity, timeout=60)
            await call(channel, arity, timeout=2)

    whole = [seen[0], seen[-1 - len(seen) // 3], seen[-1]]
    assert 4.5 < whole[0] < 4.98
    assert 4.5 < whole[1] < 4.98
    assert 1.5 < whole[2] < 2.03


async def test_a_unary_call_always_has_a_deadline(start_echo):
    seen = []
    async with start_echo(observing(seen, deadline.remaining)) as echo, open_channel(echo.target) as channel:
        with caller():
            await call(channel, "Unary")

    assert 25 < seen[0] <= 30


async def test_a_spent_deadline_is_not_waited_for(start_echo):
    async def late(request):
        await asyncio.sleep(30)
        return request

    async with start_echo(late) as echo, open_channel(echo.target) as channel:
        with caller(), deadline.scope(0), pytest.raises(aio.AioRpcError) as raised:
            await call(channel, "Unary")

    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@asynccontextmanager
async def out_of_reach(times):
    """A peer which is UNAVAILABLE the way a network is, without the kit's word, this many times."""
    attempts = []

    async def answer(request, context):
        attempts.append(1)
        if len(attempts) <= times:
            await context.abort(grpc.StatusCode.UNAVAILABLE)
        return request

    handler = grpc.unary_unary_rpc_method_handler(answer, ChatRequest.FromString, ChatRequest.SerializeToString)
    server = aio.server()
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("loremesh.agent.v1.EchoService", {"Unary": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", attempts
    finally:
        await server.stop(None)


async def test_a_peer_out_of_reach_is_tried_again():
    async with out_of_reach(2) as (target, attempts), open_channel(target) as channel:
        with caller():
            assert await call(channel, "Unary") == [HELLO]

    assert len(attempts) == 3


async def test_retries_end():
    async with out_of_reach(100) as (target, attempts), open_channel(target) as channel:
        with caller(), pytest.raises(aio.AioRpcError):
            await call(channel, "Unary")

    assert len(attempts) == 4


async def test_what_a_service_refuses_is_not_tried_again(start_echo):
    attempts = []

    async def act(_):
        attempts.append(1)
        raise DependencyUnavailable("postgres")

    async with start_echo(act) as echo, open_channel(echo.target) as channel:
        with caller(), pytest.raises(aio.AioRpcError) as raised:
            await call(channel, "Unary")

    assert reason_of(raised.value) == "DEPENDENCY_UNAVAILABLE"
    assert len(attempts) == 1


async def test_a_stream_that_began_is_not_tried_again(start_echo):
    attempts = []

    async def act(request):
        attempts.append(1)
        if len(attempts) == 2:
            raise DependencyUnavailable("postgres")
        return request

    async with start_echo(act) as echo, open_channel(echo.target) as channel:
        with caller(), pytest.raises(aio.AioRpcError):
            await call(channel, "ServerStream")

    assert len(attempts) == 2


async def test_messages_of_several_megabytes_pass(start_echo):
    big = ChatRequest(conversation_id="x" * 8_000_000)

    async def act(_):
        return big

    async with start_echo(act) as echo, open_channel(echo.target) as channel:
        with caller():
            assert await call(channel, "Unary") == [big]


async def test_a_peer_that_is_not_there_fails_soon():
    async with open_channel("127.0.0.1:1") as channel:
        started = time.monotonic()
        with caller(), pytest.raises(aio.AioRpcError) as raised:
            await call(channel, "Unary")

    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - started < 10


async def test_calls_are_cancelled_with_their_caller(start_echo):
    cleaned = asyncio.Event()
    entered = asyncio.Event()

    async def act(_):
        entered.set()
        try:
            await asyncio.sleep(30)
        finally:
            cleaned.set()

    async with start_echo(act) as echo, open_channel(echo.target) as channel:
        with caller():
            task = asyncio.create_task(call(channel, "Unary"))
        await asyncio.wait_for(entered.wait(), 5)
        task.cancel()
        await asyncio.wait_for(cleaned.wait(), 5)
