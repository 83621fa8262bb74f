"""How calls to sister services fail: in their own words where those are for our callers, else as unavailable."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from grpc import StatusCode
from grpc.aio import AioRpcError
from loremesh_kit.channel import reason_of
from loremesh_kit.errors import Code, DeadlineExceeded, DependencyUnavailable, ServiceError

_PASSING = frozenset(
    {StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED, StatusCode.ABORTED, StatusCode.INTERNAL, StatusCode.UNKNOWN}
)
_log = structlog.get_logger(__name__)


class Refused(ServiceError):
    """A sister service refused a call for good; reason and message are its own."""

    code = Code.FAILED_PRECONDITION

    def __init__(self, message: str, *, reason: str, service: str) -> None:
        """`service` is the one that refused."""
        super().__init__(message, metadata={"service": service})
        self.reason = reason


@contextmanager
def translated(service: str) -> Iterator[None]:
    """Make DependencyUnavailable of what may pass, DeadlineExceeded of a deadline, Refused of the rest."""
    try:
        yield
    except AioRpcError as error:
        code, reason = error.code(), reason_of(error)
        _log.warning("call failed", service=service, code=code.name, reason=reason)
        if code is StatusCode.DEADLINE_EXCEEDED:
            raise DeadlineExceeded from error
        if code in _PASSING or reason is None:
            raise DependencyUnavailable(service) from error
        raise Refused(error.details() or f"{service} refused.", reason=reason, service=service) from error
