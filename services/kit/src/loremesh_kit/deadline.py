"""The current call's deadline, which every inner call and query must not outlive."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_expires_at: ContextVar[float | None] = ContextVar("loremesh_deadline", default=None)


def remaining() -> float | None:
    """Seconds left, zero once the deadline has passed, None where there is no deadline."""
    expires_at = _expires_at.get()
    return None if expires_at is None else max(0.0, expires_at - time.monotonic())


def within(limit: float) -> float:
    """The smaller of `limit` and what is left, in seconds."""
    left = remaining()
    return limit if left is None else min(limit, left)


@contextmanager
def scope(seconds: float) -> Iterator[None]:
    """Limit the enclosed block to `seconds`, or to the deadline already in force if that is sooner."""
    token = _expires_at.set(time.monotonic() + within(seconds))
    try:
        yield
    finally:
        _expires_at.reset(token)
