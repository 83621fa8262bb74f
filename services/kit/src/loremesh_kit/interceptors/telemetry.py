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


class TelemetryInterceptor:
    """Outermost, so that it sees how the call really ended."""

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        """Run the call and record it."""
        _, service, method = call.method.split("/", 2)
        labels = (call.kind, service, method)
        _count_messages(call, labels)
        metrics.RPC_STARTED.labels(*labels).inc()
        started = time.perf_counter()
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        with (
            structlog.contextvars.bound_contextvars(request_id=call.request_id),
            traces.span(call.method[1:], kind=SpanKind.SERVER, carrier=call.metadata, attributes=attributes) as span,
        ):
            try:
                return await proceed()
            finally:
                seconds = time.perf_counter() - started
                metrics.RPC_HANDLED.labels(*labels, _camel(call.code)).inc()
                metrics.RPC_SECONDS.labels(*labels).observe(seconds)
                span.set_attribute("rpc.grpc.status_code", call.code.value[0])
                if call.code in _OUR_FAULT:
                    span.set_status(StatusCode.ERROR)
                _report(call, seconds)


def _count_messages(call: Call, labels: tuple[str, str, str]) -> None:
    received, sent = metrics.RPC_RECEIVED.labels(*labels), metrics.RPC_SENT.labels(*labels)
    call.on_response.append(lambda _: sent.inc())
    if isinstance(call.request, Message):
        received.inc()
    else:
        call.request = _counted(call.request, received)


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
