"""What all requests to one provider share: its limits of rate, the pause it asked for, and whether it is well."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from loremesh_agent.domain.breakers import Breaker
from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.rates import Bucket
from loremesh_agent.errors import (
    ModelOutputInvalid,
    ProviderError,
    ProviderRateLimited,
    ProviderRefused,
    ProviderTimeout,
    ProviderUnavailable,
)

_log = structlog.get_logger(__name__)


class ProviderLeftAlone(ProviderUnavailable):
    """It failed again and again; nobody asks it for a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What a provider takes a minute, by provider, and when it is left alone; a provider not named has no limit."""

    requests_per_minute: Mapping[str, int] = field(default_factory=dict)
    tokens_per_minute: Mapping[str, int] = field(default_factory=dict)
    # Failures in a row after which it is left alone, and for how many seconds.
    failures: int = 10
    rest: float = 5.0


class Lanes:
    """One lane a provider, which stands for one key of it; shared by everything in the process that asks models."""

    def __init__(self, traffic: Traffic | None = None) -> None:
        self._traffic = traffic or Traffic()
        self._lanes: dict[str, Lane] = {}

    def of(self, provider: str) -> "Lane":
        """The provider's."""
        if provider not in self._lanes:
            self._lanes[provider] = Lane(provider, self._traffic)
        return self._lanes[provider]


class Lane:
    """The way to one provider."""

    def __init__(self, provider: str, traffic: Traffic) -> None:
        self._provider = provider
        self._breaker = Breaker(failures=traffic.failures, seconds=traffic.rest)
        requests = traffic.requests_per_minute.get(provider)
        tokens = traffic.tokens_per_minute.get(provider)
        self._requests = Bucket(per_minute=requests) if requests else None
        self._tokens = Bucket(per_minute=tokens) if tokens else None
        self._paused_until = 0.0

    async def enter(self, *, model: str, tokens: int, longest: float) -> "Turn":
        """Wait for a turn to ask for that many tokens.

        Raises ProviderLeftAlone at once, and ProviderRateLimited where the wait would be longer than that.
        """
        now = time.monotonic()
        self._check(self._breaker.left(now), model)
        wait = max(
            self._paused_until - now,
            self._requests.wait(1, now) if self._requests else 0.0,
            self._tokens.wait(tokens, now) if self._tokens else 0.0,
        )
        if wait > longest:
            raise ProviderRateLimited(
                "The account at the model's provider is at its limit.",
                provider=self._provider,
                model=model,
                retry_after=wait,
            )
        self._take(1, tokens, now)
        try:
            if wait > 0:
                await asyncio.sleep(wait)
            self._check(self._breaker.enter(time.monotonic()), model)
        except BaseException:
            self.give_back(1, tokens)
            raise
        return Turn(self, tokens=tokens)

    def give_back(self, requests: int, tokens: int) -> None:
        """What was not used."""
        if self._requests:
            self._requests.give_back(requests)
        if self._tokens:
            self._tokens.give_back(tokens)

    def answered(self) -> None:
        """It did, be it with a refusal."""
        self._breaker.succeeded()

    def failed(self) -> None:
        """It did not answer, or not as it should."""
        now = time.monotonic()
        self._breaker.failed(now)
        if left := self._breaker.left(now):
            _log.warning("a model provider is left alone", provider=self._provider, seconds=left)

    def abandoned(self) -> None:
        """Nobody waited for it."""
        self._breaker.abandoned()

    def pause(self, seconds: float) -> None:
        """Nobody asks before that."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def _take(self, requests: int, tokens: int, now: float) -> None:
        if self._requests:
            self._requests.take(requests, now)
        if self._tokens:
            self._tokens.take(tokens, now)

    def _check(self, left: float, model: str) -> None:
        if left:
            raise ProviderLeftAlone(
                "The model's provider failed again and again and is left alone for a while.",
                provider=self._provider,
                model=model,
                retry_after=left,
            )


class Turn:
    """One request on its way: how it begins is told once."""

    def __init__(self, lane: Lane, *, tokens: int) -> None:
        self._lane = lane
        self._tokens = tokens

    def begun(self) -> None:
        """The provider answers."""
        self._lane.answered()

    def ended(self, error: BaseException) -> None:
        """It did not come to that."""
        match error:
            case ProviderRateLimited():
                self._lane.answered()
                self._lane.give_back(0, self._tokens)
                if error.retry_after:
                    self._lane.pause(error.retry_after)
            case ProviderRefused():
                self._lane.answered()
                self._lane.give_back(0, self._tokens)
            case ModelOutputInvalid():
                self._lane.answered()
            case ProviderTimeout() if error.metadata.get("limit") == "total":
                self._lane.abandoned()
            case ProviderError():
                self._lane.failed()
            case _:
                self._lane.abandoned()

    def used(self, usage: Usage | None) -> None:
        """What the answer took, where the provider says so: the rest was reserved for nothing."""
        if usage:
            self._lane.give_back(0, self._tokens - usage.input_tokens - usage.output_tokens)
