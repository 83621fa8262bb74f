"""Structured logs: one JSON object a line on standard output, with the request's and the trace's id."""

import logging
import sys
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TextIO

import structlog
from google.protobuf.message import Message
from opentelemetry import trace
from structlog.typing import EventDict, Processor, WrappedLogger

from loremesh_kit import identity
from loremesh_kit.settings import ServiceSettings
from loremesh_kit.telemetry.redaction import REDACTED, describe, names_a_secret, scrub, secrets_of

# They narrate at INFO.
_QUIET = ("nats", "asyncio", "opentelemetry", "botocore", "httpx", "httpx2", "urllib3")


def configure(*, service: str, settings: ServiceSettings) -> None:
    """Send structlog's and the standard library's records to standard output in the settings' format."""
    shared = _shared(service)
    rendering: list[Processor] = [*_rendering(settings.log_format), _Scrubber(secrets_of(settings))]
    level = settings.log_level.upper()
    handler = logging.StreamHandler(sys.stdout)
    # Our own lines do not pass through the standard library's loggers, which would double what a line costs.
    structlog.configure(
        processors=[*shared, *rendering],
        logger_factory=partial(_Lines, handler),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        ),
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    # Each attempt to reconnect is a warning of its own; the database and its probe report the outage.
    logging.getLogger("psycopg").setLevel(logging.ERROR)


def _shared(service: str) -> list[Processor]:
    def with_service(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        with_service,
        _with_caller,
        _with_trace,
        _redact,
    ]


def _rendering(log_format: str) -> Sequence[Processor]:
    # No rich tracebacks: they print local variables.
    if log_format == "console":
        plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
        return (plain,)
    return (structlog.processors.format_exc_info, structlog.processors.JSONRenderer(skipkeys=True))


def _with_caller(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    if (caller := identity.current_or_none()) is not None:
        event.setdefault("tenant", caller.tenant)
        event.setdefault("request_id", caller.request_id)
    return event


def _with_trace(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
        event["span_id"] = trace.format_span_id(context.span_id)
    return event


def _redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        event[key] = REDACTED if names_a_secret(key) else _plain(value)
    return event


def _plain(value: Any) -> Any:
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, Message):
        return describe(value)
    if isinstance(value, MutableMapping):
        return {key: REDACTED if names_a_secret(str(key)) else _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return [_plain(inner) for inner in value]
    return value


class _Lines:
    """Writes rendered lines where the standard library's handler writes its own, and as forgivingly."""

    def __init__(self, handler: "logging.StreamHandler[TextIO]", name: str = "") -> None:
        self.name = name
        self._handler = handler

    def msg(self, line: str) -> None:
        """Write one line; a full disk or a closed pipe is no failure of whoever has something to say."""
        self._handler.acquire()
        try:
            with suppress(OSError, ValueError):
                self._handler.stream.write(f"{line}\n")
                self._handler.flush()
        finally:
            self._handler.release()

    debug = info = warning = error = critical = msg


class _Scrubber:
    """The last step: no line leaves with a secret of the settings in it, wherever it came from."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = secrets

    def __call__(self, _: WrappedLogger, __: str, line: Any) -> str:
        return scrub(str(line), self._secrets)
