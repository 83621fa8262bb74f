"""Every interceptor on every arity, in one process."""

import asyncio
import gc
import time

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2
from grpc import aio
from grpc_status import rpc_status
from loremesh.agent.v1.chat_pb2 import ChatRequest
from loremesh_kit import deadline, identity
from loremesh_kit.channel import reason_of
from loremesh_kit.errors import Code, DependencyUnavailable, FilterInvalid, ServiceError
from prometheus_client import REGISTRY

pytestmark = pytest.mark.unit

HELLO = ChatRequest(message="hello")


class AgentNotFound(ServiceError):
    code = Code.NOT_FOUND
    reason = "AGENT_NOT_FOUND"


class Uncatalogued(ServiceError):
    code = Code.NOT_FOUND
    reason = "MADE_UP"


def details(error, kind):
    found = kind()
    status = rpc_status.from_call(error)
    return found if any(detail.Unpack(found) for detail in status.details) else None


def raising(error):
    async def act(_):
        raise error

    return act


async def refusal(start_echo, arity, act, *messages: ChatRequest):
    async with start_echo(act) as echo:
        with pytest.raises(aio.AioRpcError) as raised:
            await echo.call(arity, *(messages or (HELLO,)))
    return raised.value


async def test_what_is_fine_passes(start_echo, arity):
    async with start_echo() as echo:
        answers = await echo.call(arity, HELLO, HELLO)

    assert answers == ([HELLO, HELLO] if arity in ("ServerStream", "Bidi") else [HELLO])


# errors


async def test_what_is_no_message_is_refused_like_any_other_bad_request(start_echo, arity):
    arities = {"Unary": "unary_unary", "ServerStream": "unary_stream", "ClientStream": "stream_unary"}
    request = b"\x0a\x01\xff"
    async with start_echo() as echo:
        call = getattr(echo.channel, arities.get(arity, "stream_stream"))(echo.method(arity))
        given = request if arity in ("Unary", "ServerStream") else [HELLO.SerializeToString(), request]
        asked = call(given, timeout=5, metadata=echo.as_caller)
        with pytest.raises(aio.AioRpcError) as raised:
            await asked if arity in ("Unary", "ClientStream") else [answer async for answer in asked]
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(raised.value) == "INVALID_FIELD"


async def test_a_service_error_is_told_in_full(start_echo, arity):
    failure = AgentNotFound(
        "No agent has this id.",
        metadata={"agent_id": "x"},
        field="agent_id",
        retry_after=1.5,
        resource=("Agent", "x"),
    )

    error = await refusal(start_echo, arity, raising(failure))

    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "No agent has this id."
    assert reason_of(error) == "AGENT_NOT_FOUND"
    info = details(error, error_details_pb2.ErrorInfo)
    assert (info.domain, dict(info.metadata)) == ("agent.loremesh.dev", {"agent_id": "x"})
    assert details(error, error_details_pb2.BadRequest).field_violations[0].field == "agent_id"
    assert details(error, error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() == 1500
    assert details(error, error_details_pb2.ResourceInfo).resource_name == "x"
    assert dict(error.trailing_metadata())["retry-after"] == "2"


async def test_an_unknown_exception_says_nothing_but_the_request_id(start_echo, arity):
    with structlog.testing.capture_logs() as logs:
        error = await refusal(start_echo, arity, raising(RuntimeError("canary-3141")))

    assert error.code() is grpc.StatusCode.INTERNAL
    assert reason_of(error) == "INTERNAL"
    assert details(error, error_details_pb2.ErrorInfo).metadata["request_id"] == "request-1"
    assert "canary" not in f"{error.details()}{error.trailing_metadata()}"
    assert any(isinstance(line.get("exc_info"), RuntimeError) for line in logs)


async def test_a_reason_outside_the_catalogue_stays_inside(start_echo, arity):
    error = await refusal(start_echo, arity, raising(Uncatalogued("canary-3141")))

    assert error.code() is grpc.StatusCode.INTERNAL
    assert "canary" not in f"{error.details()}{error.trailing_metadata()}"


async def test_a_handler_that_cancels_itself_still_answers(start_echo, arity):
    error = await refusal(start_echo, arity, raising(asyncio.CancelledError()))

    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INTERNAL, "INTERNAL")


async def test_a_sister_that_is_down_is_a_dependency_that_is_down(start_echo, arity):
    down = aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, details="canary: connection refused to 10.0.0.7")

    error = await refusal(start_echo, arity, raising(down))

    assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
    assert "canary" not in str(error.details())


async def test_a_very_long_message_still_fits_the_trailers(start_echo):
    error = await refusal(start_echo, "Unary", raising(FilterInvalid("é" * 20_000, field="filter")))

    assert reason_of(error) == "FILTER_INVALID"


async def test_a_handlers_own_abort_passes_as_it_is(start_echo):
    class Aborting(EchoLike):
        async def unary(self, _, context):
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "there")

    async with start_echo(servicer=Aborting()) as echo:
        with pytest.raises(aio.AioRpcError) as raised:
            await echo.call("Unary", HELLO)

    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.ALREADY_EXISTS, "there")


async def test_a_caller_who_leaves_cancels_the_handler_and_its_clean_up_runs(start_echo, arity):
    entered, cleaned = asyncio.Event(), asyncio.Event()

    async def act(_):
        entered.set()
        try:
            await asyncio.sleep(30)
        finally:
            cleaned.set()

    async with start_echo(act) as echo:
        call = asyncio.create_task(echo.call(arity, HELLO))
        await asyncio.wait_for(entered.wait(), 5)
        call.cancel()
        await asyncio.wait_for(cleaned.wait(), 5)


async def test_a_caller_who_leaves_while_we_write_has_the_stream_closed_at_once(start_echo):
    """A write that waits for a slow reader is no place where a generator would be resumed."""
    closed = asyncio.Event()

    class Flood(EchoLike):
        async def server_stream(self, request, _):
            try:
                while True:
                    yield request
            finally:
                closed.set()

    async with start_echo(servicer=Flood()) as echo:
        method = echo.channel.unary_stream(
            echo.method("ServerStream"),
            request_serializer=ChatRequest.SerializeToString,
            response_deserializer=ChatRequest.FromString,
        )
        rpc = method(ChatRequest(message="x" * 30_000), metadata=echo.as_caller, timeout=20)
        await rpc.read()
        await asyncio.sleep(0.3)
        gc.disable()
        try:
            rpc.cancel()
            await asyncio.wait_for(closed.wait(), 5)
        finally:
            gc.enable()


class EchoLike:
    """Something with a method for every arity."""

    async def unary(self, request, _):
        return request

    client_stream = server_stream = bidi = unary


# identity


@pytest.mark.parametrize("tenant", [None, "", "*", "a b", "é", "a" * 200, "-a"])
async def test_without_a_tenant_nobody_is_served(start_echo, arity, tenant):
    metadata = () if tenant is None else (("x-loremesh-tenant", tenant.encode("utf-8").decode("latin-1")),)
    if tenant == "é":
        metadata = (("x-loremesh-tenant", "a%C3%A9"),)
    async with start_echo() as echo:
        with pytest.raises(aio.AioRpcError) as raised:
            await echo.call(arity, HELLO, metadata=metadata)

    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason_of(raised.value) == "IDENTITY_MISSING"


async def test_the_handler_knows_its_caller(start_echo, arity):
    seen = []

    async def act(request):
        seen.append(identity.current())
        return request

    async with start_echo(act) as echo:
        await echo.call(arity, HELLO)

    assert seen[0] == identity.Identity(tenant="acme", principal="ada", request_id="request-1")


async def test_a_call_without_request_id_gets_one_and_a_strange_one_is_replaced(start_echo):
    seen = []

    async def act(request):
        seen.append(identity.current().request_id)
        return request

    async with start_echo(act) as echo:
        await echo.call("Unary", HELLO, metadata=(("x-loremesh-tenant", "acme"),))
        await echo.call("Unary", HELLO, metadata=(("x-loremesh-tenant", "acme"), ("x-request-id", "a b" * 99)))

    assert all(request_id and " " not in request_id for request_id in seen)
    assert len(set(seen)) == 2


# deadline


async def test_the_callers_deadline_is_in_force(start_echo, arity):
    seen = []

    async def act(request):
        seen.append(deadline.remaining())
        return request

    async with start_echo(act) as echo:
        await echo.call(arity, HELLO, seconds=7)

    assert 6 < seen[0] < 8  # a timeout on the wire may be rounded up


async def test_without_a_deadline_ours_ends_the_call(start_echo, arity):
    async def act(_):
        await asyncio.sleep(30)

    async with start_echo(act, default_deadline_seconds=0.2) as echo:
        started = time.monotonic()
        with pytest.raises(aio.AioRpcError) as raised:
            await echo.call(arity, HELLO, seconds=None)

    assert time.monotonic() - started < 5
    assert (raised.value.code(), reason_of(raised.value)) == (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "DEADLINE_EXCEEDED",
    )


async def test_a_long_lived_stream_may_go_on(start_echo):
    async def act(request):
        await asyncio.sleep(0.4)
        return request

    method = "/loremesh.agent.v1.EchoService/ServerStream"
    async with start_echo(act, wired={"long_lived": frozenset({method})}, default_deadline_seconds=0.2) as echo:
        assert await echo.call("ServerStream", HELLO, seconds=None) == [HELLO, HELLO]


async def test_a_timeout_of_the_handlers_own_is_our_fault(start_echo):
    error = await refusal(start_echo, "Unary", raising(TimeoutError("canary")))

    assert reason_of(error) == "INTERNAL"


# admission


async def test_more_than_the_limit_is_refused_and_told_when_to_come_back(start_echo, arity):
    entered, leave = asyncio.Event(), asyncio.Event()

    async def act(request):
        entered.set()
        await leave.wait()
        return request

    async with start_echo(act, admission_limit=1) as echo:
        first = asyncio.create_task(echo.call(arity, HELLO))
        await entered.wait()
        with pytest.raises(aio.AioRpcError) as raised:
            await echo.call(arity, HELLO)
        leave.set()
        assert await first
        assert await echo.call(arity, HELLO), "the slot is free again"

    assert (raised.value.code(), reason_of(raised.value)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert details(raised.value, error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() > 0


async def test_a_failed_call_gives_its_slot_back(start_echo, arity):
    async with start_echo(raising(DependencyUnavailable("postgres")), admission_limit=1) as echo:
        for _ in range(3):
            with pytest.raises(aio.AioRpcError) as raised:
                await echo.call(arity, HELLO)
            assert reason_of(raised.value) == "DEPENDENCY_UNAVAILABLE"


async def test_long_lived_streams_take_no_slot(start_echo):
    entered, leave = asyncio.Event(), asyncio.Event()

    async def act(request):
        if request.message == "wait":
            entered.set()
            await leave.wait()
        return request

    method = "/loremesh.agent.v1.EchoService/ServerStream"
    async with start_echo(act, wired={"long_lived": frozenset({method})}, admission_limit=1) as echo:
        watcher = asyncio.create_task(echo.call("ServerStream", ChatRequest(message="wait")))
        await entered.wait()
        assert await echo.call("Unary", HELLO) == [HELLO]
        leave.set()
        await watcher


# validation


async def test_a_broken_rule_names_field_and_reason(start_echo, arity):
    error = await refusal(start_echo, arity, None, ChatRequest(message="hi", top_k=0, conversation_id="c" * 65))

    violations = {
        violation.field: violation.reason for violation in details(error, error_details_pb2.BadRequest).field_violations
    }
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violations == {"top_k": "TOP_K_OUT_OF_RANGE", "conversation_id": "INVALID_FIELD"}
    assert reason_of(error) in ("TOP_K_OUT_OF_RANGE", "INVALID_FIELD")


async def test_a_rule_named_like_a_reason_is_the_reason(start_echo, arity):
    error = await refusal(start_echo, arity, None, ChatRequest(message=" "))

    assert reason_of(error) == "MESSAGE_EMPTY"


async def test_paths_lead_into_lists_and_messages(start_echo):
    request = ChatRequest(message="hi", vector_store_ids=["ok", ""])
    request.filter.eq.key = "k"

    error = await refusal(start_echo, "Unary", None, request)

    fields = {violation.field for violation in details(error, error_details_pb2.BadRequest).field_violations}
    assert fields == {"vector_store_ids[1]", "filter.eq.value"}


@pytest.mark.parametrize("streaming", ["ClientStream", "Bidi"])
async def test_of_a_stream_only_the_first_message_must_be_complete(start_echo, streaming):
    piece = ChatRequest()
    async with start_echo() as echo:
        assert piece in await echo.call(streaming, HELLO, piece)
        with pytest.raises(aio.AioRpcError) as raised:
            await echo.call(streaming, piece, HELLO)
    assert reason_of(raised.value) == "MESSAGE_EMPTY"


@pytest.mark.parametrize("streaming", ["ClientStream", "Bidi"])
async def test_every_message_is_checked_where_that_is_asked_for(start_echo, streaming):
    wired = {"every_message": frozenset({f"/loremesh.agent.v1.EchoService/{streaming}"})}
    async with start_echo(wired=wired) as echo:
        with pytest.raises(aio.AioRpcError) as raised:
            await echo.call(streaming, HELLO, ChatRequest())

    assert reason_of(raised.value) == "MESSAGE_EMPTY"


# telemetry


def sample(name, arity, **labels: str):
    kind = {"Unary": "unary", "ClientStream": "client_stream", "ServerStream": "server_stream", "Bidi": "bidi_stream"}
    key = {"grpc_type": kind[arity], "grpc_service": "loremesh.agent.v1.EchoService", "grpc_method": arity, **labels}
    return REGISTRY.get_sample_value(name, key) or 0


async def test_calls_and_messages_are_counted_by_outcome(start_echo, arity):
    before = [
        sample("grpc_server_handled_total", arity, grpc_code="OK"),
        sample("grpc_server_handled_total", arity, grpc_code="InvalidArgument"),
        sample("grpc_server_msg_received_total", arity),
        sample("grpc_server_msg_sent_total", arity),
    ]
    async with start_echo() as echo:
        await echo.call(arity, HELLO, HELLO)
        with pytest.raises(aio.AioRpcError):
            await echo.call(arity, ChatRequest())

    received = 3 if arity in ("ClientStream", "Bidi") else 2
    sent = 2 if arity in ("ServerStream", "Bidi") else 1
    after = [
        sample("grpc_server_handled_total", arity, grpc_code="OK"),
        sample("grpc_server_handled_total", arity, grpc_code="InvalidArgument"),
        sample("grpc_server_msg_received_total", arity),
        sample("grpc_server_msg_sent_total", arity),
    ]
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 1, received, sent]


async def test_each_call_is_one_log_line_with_its_code(start_echo, arity):
    with structlog.testing.capture_logs() as logs:
        await refusal(start_echo, arity, raising(AgentNotFound("no")))

    lines = [line for line in logs if line["event"] == "rpc"]
    assert [(line["code"], line["log_level"]) for line in lines] == [("NOT_FOUND", "info")]


async def test_an_unknown_method_is_unimplemented(start_echo):
    async with start_echo() as echo:
        with pytest.raises(aio.AioRpcError) as raised:
            await echo.channel.unary_unary("/loremesh.agent.v1.EchoService/Nothing")(b"", timeout=5)

    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
