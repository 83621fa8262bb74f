"""What all remote providers have in common: patience, what their failures mean, and checks of what they send."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TypeVar

import numpy as np
import stamina
from loremesh_kit import deadline

from loremesh_embedding.domain.models import Model
from loremesh_embedding.domain.vectors import Floats, normalise
from loremesh_embedding.errors import DimensionMismatch, ProviderRefused, ProviderUnavailable

# Byte-level vocabularies take 3 to 5 bytes of prose for a token, so this much of a text about fills a window.
_BYTES_PER_TOKEN = 3
_LONGEST_WAIT = 3600.0
_PASSING = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a provider gets, in seconds, and how many attempts."""

    attempts: int
    connect: float
    attempt: float
    total: float


async def call(send: Callable[[], Awaitable[T]], *, model: Model, patience: Patience) -> T:
    """What `send` gives, tried again while it raises ProviderUnavailable and time is left.

    This is the only retry layer: SDKs are told not to. A wait the provider asks for is kept, or, when it is longer
    than the time left, handed on to the caller at once.
    """
    seconds = deadline.within(patience.total)
    ends = asyncio.get_running_loop().time() + seconds

    def wait(error: Exception) -> bool | float:
        if not isinstance(error, ProviderUnavailable):
            return False
        if error.retry_after is None:
            return True
        return error.retry_after if asyncio.get_running_loop().time() + error.retry_after < ends else False

    retries = stamina.retry_context(
        on=wait, attempts=patience.attempts, timeout=None, wait_initial=0.2, wait_max=5.0, wait_jitter=0.2
    )
    try:
        async with asyncio.timeout(seconds):
            async for attempt in retries:
                with attempt:
                    return await _once(send, model=model, seconds=patience.attempt)
    except TimeoutError:
        pass
    raise unavailable(model, status="timeout") from None


async def _once(send: Callable[[], Awaitable[T]], *, model: Model, seconds: float) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await send()
    except TimeoutError:
        raise unavailable(model, status="timeout") from None


def unavailable(model: Model, *, status: str, retry_after: float | None = None) -> ProviderUnavailable:
    """The error for a failure that may pass."""
    return ProviderUnavailable(model=model.id, provider=model.provider, status=status, retry_after=retry_after)


def failure(
    model: Model,
    *,
    status: int,
    retry_after: str | None = None,
    final: bool = False,
) -> ProviderUnavailable | ProviderRefused:
    """What an HTTP status means; `final` says that the provider will not change its mind whatever the status."""
    if not final and (status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR):
        return unavailable(model, status=str(status), retry_after=_seconds(retry_after))
    return ProviderRefused(model=model.id, provider=model.provider, status=str(status))


def _seconds(retry_after: str | None) -> float | None:
    """A Retry-After header (RFC 9110, 10.2.3), either of its forms, in seconds from now; None for anything else."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 0.0), _LONGEST_WAIT) if math.isfinite(seconds) else None


def batches(texts: Sequence[str], *, count: int, characters: int) -> Iterator[Sequence[str]]:
    """The texts in order, in requests a provider takes: at most so many texts, and characters unless it is one text."""
    start, length = 0, 0
    for index, text in enumerate(texts):
        if index > start and (index - start == count or length + len(text) > characters):
            yield texts[start:index]
            start, length = index, 0
        length += len(text)
    yield texts[start:]


def clip(text: str, *, window: int) -> tuple[str, bool]:
    """About what fits a window of so many tokens, zero being no limit, and whether that is only the beginning."""
    limit = window * _BYTES_PER_TOKEN
    if not window or len(text.encode()) <= limit:
        return text, False
    return text.encode()[:limit].decode(errors="ignore"), True


def checked(rows: object, *, model: Model, count: int) -> Floats:
    """Unit vectors, (count, dimension), from what a provider sent; raises DimensionMismatch, ProviderUnavailable."""
    if not isinstance(rows, list) or len(rows) != count or not all(isinstance(row, list) for row in rows):
        raise unavailable(model, status="malformed")
    for row in rows:
        if len(row) != model.dimension:
            raise DimensionMismatch(model=model.id, expected=model.dimension, actual=len(row))
    try:
        vectors = np.asarray(rows, dtype=np.float32)
    except (TypeError, ValueError):
        raise unavailable(model, status="malformed") from None
    if not np.isfinite(vectors).all():
        raise unavailable(model, status="malformed")
    return normalise(vectors)
