"""A span, metrics and one log line for every call."""

import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import structlog
from google.protobuf.message import Message
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import Counter

from loremesh_kit.interceptors.chain import Call, Proceed
from loremesh_kit.telemetry import metrics, traces

_OUR_FAULT = frozenset(
    {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.UNAVAILABLE},
)
_log = structlog.get_logger(__name__)


class _Method:
    """What every call of a method records in; finding it anew for each would take longer than recording."""

    def __init__(self, call: Call) -> None:
        _, service, method = call.method.split("/", 2)
        labels = (call.kind, service, method)
        self.name = call.method[1:]
        self.attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        self.started = metrics.RPC_STARTED.labels(*labels)
        self.received = metrics.RPC_RECEIVED.labels(*labels)
        self.sent = metrics.RPC_SENT.labels(*labels)
        self.seconds = metrics.RPC_SECONDS.labels(*labels)
        self._handled: dict[grpc.StatusCode, Counter] = {}
        self._labels = labels

    def handled(self, code: grpc.StatusCode) -> Counter:
        if code not in self._handled:
            self._handled[code] = metrics.RPC_HANDLED.labels(*self._labels, _camel(code))
        return self._handled[code]


class TelemetryInterceptor:
    """Outermost, so that it sees how the call really ended."""

    def __init__(self) -> None:
        # As many as the server has: no other is let through to here.
        self._methods: dict[str, _Method] = {}

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        """Run the call and record it."""
        if (method := self._methods.get(call.method)) is None:
            method = self._methods[call.method] = _Method(call)
        _count_messages(call, method)
        method.started.inc()
        started = time.perf_counter()
        with (
            structlog.contextvars.bound_contextvars(request_id=call.request_id),
            traces.span(method.name, kind=SpanKind.SERVER, carrier=call.metadata, attributes=method.attributes) as span,
        ):
            try:
                return await proceed()
            finally:
                seconds = time.perf_counter() - started
                method.handled(call.code).inc()
                method.seconds.observe(seconds)
                span.set_attribute("rpc.grpc.status_code", call.code.value[0])
                if call.code in _OUR_FAULT:
                    span.set_status(StatusCode.ERROR)
                _report(call, seconds)


def _count_messages(call: Call, method: _Method) -> None:
    call.on_response.append(lambda _: method.sent.inc())
    if isinstance(call.request, Message):
        method.received.inc()
    else:
        call.request = _counted(call.request, method.received)


async def _counted(messages: AsyncIterator[Message], counter: Counter) -> AsyncIterator[Message]:
    async for message in messages:
        counter.inc()
        yield message


def _report(call: Call, seconds: float) -> None:
    report = _log.warning if call.code in _OUR_FAULT else _log.info
    report("rpc", method=call.method, code=call.code.name, milliseconds=round(seconds * 1000, 2))
    if not call.client_streams:
        _log.debug("rpc request", method=call.method, request=call.request)


def _camel(code: grpc.StatusCode) -> str:
    """INVALID_ARGUMENT as InvalidArgument, the way Go spells codes in labels."""
    return "OK" if code is grpc.StatusCode.OK else code.name.title().replace("_", "")
