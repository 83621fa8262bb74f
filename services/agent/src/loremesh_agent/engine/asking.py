"""Patience with model providers: how long each part of an answer may take, and what is tried again."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypedDict

import stamina

from loremesh_agent.domain.events import FinishReason
from loremesh_agent.errors import Limit, ProviderError, ProviderStreamCut, ProviderTimeout, ProviderUnavailable
from loremesh_agent.ports import ModelEvent, ModelFinish, ModelProvider, ModelRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds for each part of an answer, and how often it is begun."""

    first_token: float
    idle: float
    total: float
    attempts: int = 3
    # A provider that asks for a longer pause is not asked again; the caller is told.
    longest_pause: float = 5.0


class _Names(TypedDict):
    provider: str
    model: str


class PatientProvider:
    """A provider with limits in time, asked again while nothing of the answer is there: the one layer of retries."""

    def __init__(self, *, provider: ModelProvider, patience: Patience) -> None:
        self._provider = provider
        self._patience = patience

    @property
    def name(self) -> str:
        """The provider's."""
        return self._provider.name

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """See ports.ModelProvider."""
        ends_at = asyncio.get_running_loop().time() + self._patience.total
        events, event = await self._begun(request, ends_at)
        async with aclosing(events):
            yield event
            while not isinstance(event, ModelFinish):
                event = await self._next(events, request, limit="idle", seconds=self._patience.idle, ends_at=ends_at)
                yield event

    async def _begun(
        self, request: ModelRequest, ends_at: float
    ) -> tuple[AsyncGenerator[ModelEvent, None], ModelEvent]:
        """A stream and its first event; whatever fails before that may be tried again."""

        def pause_after(error: Exception) -> bool | float:
            return self._pause_after(error, ends_at)

        async for attempt in stamina.retry_context(
            on=pause_after, attempts=self._patience.attempts, timeout=None, wait_initial=0.2, wait_jitter=0.3
        ):
            with attempt:
                return await self._begun_once(request, ends_at)
        raise AssertionError("unreachable: the last attempt raises")

    async def _begun_once(
        self, request: ModelRequest, ends_at: float
    ) -> tuple[AsyncGenerator[ModelEvent, None], ModelEvent]:
        events = self._provider.stream(request)
        try:
            first = await self._next(
                events, request, limit="first_token", seconds=self._patience.first_token, ends_at=ends_at
            )
        except BaseException:
            await events.aclose()
            raise
        if isinstance(first, ModelFinish) and first.reason is FinishReason.STOP:
            raise ProviderUnavailable("The model's answer was empty.", **self._named(request))
        return events, first

    async def _next(
        self,
        events: AsyncGenerator[ModelEvent, None],
        request: ModelRequest,
        *,
        limit: Limit,
        seconds: float,
        ends_at: float,
    ) -> ModelEvent:
        left = ends_at - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(min(seconds, left)):
                return await anext(events)
        except TimeoutError:
            limit = limit if seconds < left else "total"
            raise ProviderTimeout(_TOO_LONG[limit], limit=limit, **self._named(request)) from None
        except StopAsyncIteration:
            raise ProviderStreamCut("The answer broke off.", **self._named(request)) from None

    def _pause_after(self, error: Exception, ends_at: float) -> bool | float:
        match error:
            # Having waited so long for nothing, nobody wants to wait as long again.
            case ProviderTimeout() if error.metadata.get("limit") != "connect":
                return False
            case ProviderError() if error.retryable:
                left = ends_at - asyncio.get_running_loop().time()
                if error.retry_after is None:
                    return True
                return error.retry_after if error.retry_after <= min(left, self._patience.longest_pause) else False
        return False

    def _named(self, request: ModelRequest) -> _Names:
        return {"provider": self._provider.name, "model": request.model}


_TOO_LONG: dict[Limit, str] = {
    "connect": "The model's provider could not be reached in time.",
    "first_token": "The model's provider did not begin to answer in time.",
    "idle": "The model's provider fell silent amid the answer.",
    "total": "The answer took too long.",
}
