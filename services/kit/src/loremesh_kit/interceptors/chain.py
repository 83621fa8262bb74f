"""One shape for interceptors, whatever the arity of the rpc they surround."""

import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any, Protocol, TypeAlias

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message
from grpc import aio

from loremesh_kit.errors import InvalidField
from loremesh_kit.identity import REQUEST_ID_HEADER

_PLUMBING = ("/grpc.health.v1.", "/grpc.reflection.")
# Stands for a request that is none.
_UNREADABLE = Empty()
_REQUEST_ID = re.compile(r"[!-~]{1,128}")

Proceed = Callable[[], Awaitable[Any]]
# Generic in its type stubs only.
RpcHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


@dataclass(slots=True)
class Call:
    """One rpc under way; `request` is a message, or an async iterator of them when the client streams."""

    method: str
    kind: str
    request: Message | AsyncIterator[Message]
    context: aio.ServicerContext[Any, Any]
    metadata: Mapping[str, str] = field(init=False)
    request_id: str = field(init=False)
    code: grpc.StatusCode = grpc.StatusCode.OK
    on_response: list[Callable[[Message], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Read what came with the call."""
        pairs = self.context.invocation_metadata() or ()
        self.metadata = {key: value for key, value in pairs if isinstance(value, str)}
        request_id = self.metadata.get(REQUEST_ID_HEADER, "")
        self.request_id = request_id if _REQUEST_ID.fullmatch(request_id) else str(uuid.uuid4())

    @property
    def client_streams(self) -> bool:
        """Whether `request` is an iterator."""
        return not isinstance(self.request, Message)


def _unless_unreadable(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """What cannot be read is refused where all requests are, and is no fault of ours."""

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return _UNREADABLE

    return read


def _check(call: Call) -> None:
    if call.request is _UNREADABLE:
        message = "The request cannot be read: a text in it is no UTF-8, or it nests too deep."
        raise InvalidField(message)


class Interceptor(Protocol):
    """Surrounds a call: `proceed` runs the rest, and gives the response unless the server streams."""

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        """Do something, await `proceed()`, do something else, return what it gave."""
        ...


class Chain(aio.ServerInterceptor):
    """Puts interceptors, outermost first, around every method but those of health and reflection."""

    def __init__(self, interceptors: Sequence[Interceptor]) -> None:
        """`interceptors` are entered in this order."""
        self._interceptors = tuple(interceptors)
        self._wrapped: dict[str, RpcHandler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["RpcHandler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "RpcHandler | None":
        """Wrap each method once; unknown methods stay UNIMPLEMENTED."""
        method = handler_call_details.method
        if method in self._wrapped:
            return self._wrapped[method]
        handler = await continuation(handler_call_details)
        if handler is None or method.startswith(_PLUMBING):
            return handler
        self._wrapped[method] = self._wrap(method, handler)
        return self._wrapped[method]

    def _wrap(self, method: str, handler: Any) -> RpcHandler:
        read = handler.request_deserializer
        codecs = {
            "request_deserializer": read if handler.request_streaming else _unless_unreadable(read),
            "response_serializer": _unless_serialized(handler.response_serializer),
        }
        match handler.request_streaming, handler.response_streaming:
            case False, False:
                behaviour = self._replying(method, "unary", handler.unary_unary)
                return grpc.unary_unary_rpc_method_handler(behaviour, **codecs)
            case True, False:
                behaviour = self._replying(method, "client_stream", handler.stream_unary)
                return grpc.stream_unary_rpc_method_handler(behaviour, **codecs)
            case False, True:
                behaviour = self._writing(method, "server_stream", handler.unary_stream)
                return grpc.unary_stream_rpc_method_handler(behaviour, **codecs)
            case _:
                behaviour = self._writing(method, "bidi_stream", handler.stream_stream)
                return grpc.stream_stream_rpc_method_handler(behaviour, **codecs)

    def _replying(self, method: str, kind: str, behaviour: Any) -> Any:
        async def reply(request: Any, context: aio.ServicerContext[Any, Any]) -> Any:
            call = Call(method=method, kind=kind, request=request, context=context)

            async def innermost() -> Any:
                _check(call)
                response = await behaviour(call.request, context)
                _observe(call, response)
                return response

            return await self._run(call, innermost)

        return reply

    def _writing(self, method: str, kind: str, behaviour: Any) -> Any:
        # A coroutine that writes, not a generator that yields: when the call is cancelled in the middle of a write,
        # a generator would be left to the garbage collector, and with it the handler's clean-up.
        async def write(request: Any, context: aio.ServicerContext[Any, Any]) -> None:
            call = Call(method=method, kind=kind, request=request, context=context)

            async def innermost() -> None:
                _check(call)
                responses = behaviour(call.request, context)
                if isawaitable(responses):
                    await responses
                    return
                async with aclosing(responses):
                    async for response in responses:
                        _observe(call, response)
                        await context.write(response)

            await self._run(call, innermost)

        return write

    async def _run(self, call: Call, innermost: Proceed) -> Any:
        return await self._enter(0, call, innermost)

    def _enter(self, index: int, call: Call, innermost: Proceed) -> Awaitable[Any]:
        if index == len(self._interceptors):
            return innermost()
        return self._interceptors[index](call, lambda: self._enter(index + 1, call, innermost))


def _unless_serialized(serialize: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """An answer kept from an earlier call goes out byte for byte."""
    return lambda response: response if isinstance(response, bytes) else serialize(response)


def _observe(call: Call, response: Message) -> None:
    for observer in call.on_response:
        observer(response)
