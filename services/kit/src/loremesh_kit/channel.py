"""Channels to sister services: identity, trace and deadline travel along; what can be retried is."""

import json
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, cast

import grpc
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc import aio
from grpc_status import rpc_status
from opentelemetry.trace import Span

from loremesh_kit import deadline, identity
from loremesh_kit.telemetry import traces

MESSAGE_CAP = 16 * 1024 * 1024
_DEFAULT_SECONDS = 30.0
# Left to the caller to answer in.
_MARGIN_SECONDS = 0.05

# Every call between our services may be repeated (effects are idempotent and fenced), so one policy fits all. gRPC
# repeats only while no response has begun, and stops when more than a tenth of the calls are repeats.
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        },
    ],
    "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.1},
}
_OPTIONS = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", MESSAGE_CAP),
    ("grpc.max_send_message_length", MESSAGE_CAP),
)


def open_channel(target: str) -> aio.Channel:
    """A channel to `host:port` for the life of the process; use it with `async with`, or close it."""
    return _Channel(aio.insecure_channel(target, options=_OPTIONS))


def reason_of(error: aio.AioRpcError) -> str | None:
    """The public reason a sister service gave for its refusal, None when it gave none."""
    info = error_details_pb2.ErrorInfo()
    status = rpc_status.from_call(cast("grpc.Call", error))
    for detail in status.details if status else ():
        if detail.Unpack(info):
            return str(info.reason)
    return None


class _Channel(aio.Channel):
    """Adds what travels along at the moment a call is made; interceptors would cost a task for each."""

    def __init__(self, inner: aio.Channel) -> None:
        self._inner = inner

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return _travelling(method, self._inner.unary_unary(method, *args, **kwargs), default=_DEFAULT_SECONDS)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return _travelling(method, self._inner.stream_unary(method, *args, **kwargs), default=_DEFAULT_SECONDS)

    # A stream may rightly go on; keepalive notices a dead peer.
    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return _travelling(method, self._inner.unary_stream(method, *args, **kwargs), default=None)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return _travelling(method, self._inner.stream_stream(method, *args, **kwargs), default=None)

    async def close(self, grace: float | None = None) -> None:
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._inner.channel_ready()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool | None:
        return await self._inner.__aexit__(exc_type, exc_val, exc_tb)


def _travelling(method: str, call: Callable[..., Any], *, default: float | None) -> Callable[..., Any]:
    service, _, name = method[1:].partition("/")
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}

    def start(*args: Any, timeout: float | None = None, metadata: Any = None, **kwargs: Any) -> Any:
        span = traces.start_client_span(method[1:], attributes)
        seconds = _seconds(default if timeout is None else timeout)
        rpc = call(*args, timeout=seconds, metadata=(*(metadata or ()), *_luggage(span)), **kwargs)
        rpc.add_done_callback(lambda _: span.end())
        return rpc

    return start


def _seconds(limit: float | None) -> float | None:
    left = deadline.remaining()
    if left is None:
        return limit
    left = max(0.0, left - _MARGIN_SECONDS)
    return left if limit is None else min(limit, left)


def _luggage(span: Span) -> tuple[tuple[str, str], ...]:
    headers = traces.headers_of(span)
    if (caller := identity.current_or_none()) is not None:
        headers[identity.TENANT_HEADER] = caller.tenant
        headers[identity.PRINCIPAL_HEADER] = caller.principal
        headers[identity.REQUEST_ID_HEADER] = caller.request_id
    return tuple(headers.items())
