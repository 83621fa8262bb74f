"""Patience with model providers: how long each part of an answer may take, what is tried again, who else is asked."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypedDict

import stamina
from loremesh_kit.errors import ServiceError

from loremesh_agent.domain.events import FinishReason
from loremesh_agent.domain.model_names import split
from loremesh_agent.domain.tokens import estimate
from loremesh_agent.engine.lanes import Lanes, ProviderLeftAlone, Turn
from loremesh_agent.errors import (
    Limit,
    ModelOutputInvalid,
    ModelUnknown,
    ProviderError,
    ProviderNotConfigured,
    ProviderStreamCut,
    ProviderTimeout,
    ProviderUnavailable,
)
from loremesh_agent.ports import ModelEvent, ModelFinish, ModelProgress, ModelRequest, ModelSource, ModelSwitched

# Another model may do better; what a provider finds wrong with the question itself is no error but a finish.
_FAILURES = (ProviderError, ProviderNotConfigured, ModelUnknown, ModelOutputInvalid)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """An answer on its way."""

    first: ModelEvent
    events: AsyncGenerator[ModelEvent | ModelProgress, None]
    turn: Turn
    request: ModelRequest


class PatientProvider:
    """A provider with limits in time, asked again while nothing of the answer is there: the one layer of retries."""

    def __init__(self, *, provider: ModelSource, patience: Patience, lanes: Lanes | None = None) -> None:
        """`lanes` are shared by all that asks the same providers."""
        self._provider = provider
        self._patience = patience
        self._lanes = lanes or Lanes()

    @property
    def name(self) -> str:
        """The provider's."""
        return self._provider.name

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """See ports.ModelProvider."""
        ends_at = asyncio.get_running_loop().time() + self._patience.total
        others = list(request.fallback_models)
        while True:
            try:
                begun = await self._begun(request, ends_at)
                break
            except _FAILURES as error:
                if not others or _limit_of(error) == "total":
                    raise
                before, request = request.model, replace(request, model=others.pop(0))
                switched = ModelSwitched(before=before, after=request.model, reason=error.reason)
            yield switched
        async with aclosing(self._rest(begun, ends_at)) as events:
            async for event in events:
                yield event

    async def _rest(self, begun: _Begun, ends_at: float) -> AsyncGenerator[ModelEvent, None]:
        async with aclosing(begun.events) as events:
            event: ModelEvent | ModelProgress = begun.first
            while True:
                if isinstance(event, ModelFinish):
                    begun.turn.used(event.usage)
                if not isinstance(event, ModelProgress):
                    yield event
                if isinstance(event, ModelFinish):
                    return
                event = await self._next(events, begun.request, limit="idle", ends_at=ends_at)

    async def _begun(self, request: ModelRequest, ends_at: float) -> _Begun:
        """The answer's beginning; whatever fails before that may be tried again."""

        def pause_after(error: Exception) -> bool | float:
            return self._pause_after(error, ends_at)

        async for attempt in stamina.retry_context(
            on=pause_after, attempts=self._patience.attempts, timeout=None, wait_initial=0.2, wait_jitter=0.3
        ):
            with attempt:
                return await self._begun_once(request, ends_at)
        raise AssertionError("unreachable: the last attempt raises")

    async def _begun_once(self, request: ModelRequest, ends_at: float) -> _Begun:
        names = self._named(request)
        turn = await self._lanes.of(names["provider"]).enter(
            model=names["model"], tokens=_tokens(request), longest=self._longest_wait(ends_at)
        )
        events = self._provider.stream(request)
        try:
            first = await self._first(events, request, ends_at)
        except BaseException as error:
            turn.ended(error)
            await events.aclose()
            raise
        turn.begun()
        if isinstance(first, ModelFinish) and first.reason in {FinishReason.STOP, FinishReason.TOOL_CALLS}:
            await events.aclose()
            raise ProviderUnavailable("The model's answer was empty.", **names)
        return _Begun(first=first, events=events, turn=turn, request=request)

    async def _first(
        self, events: AsyncGenerator[ModelEvent | ModelProgress, None], request: ModelRequest, ends_at: float
    ) -> ModelEvent:
        """What comes after the model has thought about it, if it does."""
        event = await self._next(events, request, limit="first_token", ends_at=ends_at)
        while isinstance(event, ModelProgress):
            event = await self._next(events, request, limit="idle", ends_at=ends_at)
        return event

    async def _next(
        self,
        events: AsyncGenerator[ModelEvent | ModelProgress, None],
        request: ModelRequest,
        *,
        limit: Limit,
        ends_at: float,
    ) -> ModelEvent | ModelProgress:
        seconds = self._patience.first_token if limit == "first_token" else self._patience.idle
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
            case ProviderLeftAlone():
                return False
            # Having waited so long for nothing, nobody wants to wait as long again.
            case ProviderTimeout() if _limit_of(error) != "connect":
                return False
            case ModelOutputInvalid():
                return True
            case ProviderError() if error.retryable:
                if error.retry_after is None:
                    return True
                return error.retry_after if error.retry_after <= self._longest_wait(ends_at) else False
        return False

    def _longest_wait(self, ends_at: float) -> float:
        return max(0.0, min(self._patience.longest_pause, ends_at - asyncio.get_running_loop().time()))

    def _named(self, request: ModelRequest) -> _Names:
        provider, model = split(request.model)
        return {"provider": provider or self._provider.name, "model": model}


def _tokens(request: ModelRequest) -> int:
    """What an answer takes at most, roughly; what it took in the end is known when it ends."""
    return sum(estimate(message.content) for message in request.messages) + request.max_output_tokens


def _limit_of(error: ServiceError) -> str:
    return error.metadata.get("limit", "")


_TOO_LONG: dict[Limit, str] = {
    "connect": "The model's provider could not be reached in time.",
    "first_token": "The model's provider did not begin to answer in time.",
    "idle": "The model's provider fell silent amid the answer.",
    "total": "The answer took too long.",
}
