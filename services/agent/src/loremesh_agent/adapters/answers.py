"""What the wire formats of model providers have in common: answers in pieces, failures in our own words."""

import asyncio
import json
import logging
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, TypedDict
from urllib.parse import urlsplit

import httpx2
from loremesh_kit.ids import new_id

from loremesh_agent.adapters.sse import MalformedStream, data_of
from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.events import FinishReason
from loremesh_agent.domain.prompts import Attachment
from loremesh_agent.domain.tools import ToolCall
from loremesh_agent.errors import (
    ProviderError,
    ProviderRateLimited,
    ProviderRefused,
    ProviderStreamCut,
    ProviderTimeout,
    ProviderUnavailable,
)
from loremesh_agent.ports import ModelEvent, ModelFinish, ModelProgress, ModelText, ModelToolCall

_TOO_MANY = 429
_PASSING = frozenset({408, 409, 425})
_SERVERS_FAULT = 500
_REFUSALS = {
    401: "The model's provider does not accept the key.",
    402: "The account at the model's provider is used up.",
    403: "The model's provider does not allow this key to use the model.",
    404: "The model's provider does not know the model.",
    413: "The prompt is longer than the model's provider takes.",
    498: "The model's provider does not accept the key.",
}
IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
# An account is used up: it comes as 429, and does not pass.
_USED_UP = frozenset({"insufficient_quota", "billing_error", "billing_hard_limit_reached"})
# The answer is there; usage may follow.
_REST_SECONDS = 0.5
_LONGEST_ARGUMENTS = 4 * 1024 * 1024
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

# At DEBUG they tell prompts and keys.
for _name in ("anthropic", "openai", "httpcore2", "httpx2"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class Named(TypedDict):
    """Whom an error is about."""

    provider: str
    model: str


def timeouts(connect_seconds: float) -> httpx2.Timeout:
    """For connecting alone: whoever asks has limits for the rest."""
    return httpx2.Timeout(None, connect=connect_seconds, pool=connect_seconds)


@asynccontextmanager
async def pool(base_url: str, *, connect_seconds: float, kept: int = 20) -> AsyncIterator[httpx2.AsyncClient]:
    """Connections to one provider, of which some are `kept` for further requests."""
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=kept)
    # A proxy of the environment is not for this machine.
    trust = urlsplit(base_url).hostname not in _LOOPBACK
    async with httpx2.AsyncClient(timeout=timeouts(connect_seconds), limits=limits, trust_env=trust) as http:
        yield http


@dataclass(slots=True)
class _Call:
    id: str
    name: str
    arguments: str


class Calls:
    """Tool calls whose arguments come in pieces, one or several at a time."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._current: dict[int, _Call] = {}
        self._length = 0

    def begin(self, index: int, *, id_: object, name: object) -> None:
        """The provider's `index` means another call from now on."""
        call = _Call(id_ if isinstance(id_, str) else "", name if isinstance(name, str) else "", "")
        self._calls.append(call)
        self._current[index] = call

    def knows(self, index: int, *, id_: object) -> bool:
        """Whether a piece at `index` belongs to a call that has begun: some servers number all of them 0."""
        call = self._current.get(index)
        return call is not None and (not id_ or call.id == id_)

    def add(self, index: int, arguments: object) -> None:
        """A piece of the arguments, or all of them as an object; raises MalformedStream."""
        piece = arguments if isinstance(arguments, str) else json.dumps(arguments) if arguments else ""
        if index not in self._current:
            raise MalformedStream
        self._length += len(piece)
        if self._length > _LONGEST_ARGUMENTS:
            raise MalformedStream
        self._current[index].arguments += piece

    def whole(self) -> list[ToolCall]:
        """All of them; an id that is missing or there twice is replaced, no arguments are an empty object."""
        taken: set[str] = set()
        calls = []
        for call in self._calls:
            id_ = call.id if call.id and call.id not in taken else f"call_{new_id()}"
            taken.add(id_)
            calls.append(ToolCall(id=id_, name=call.name, arguments=call.arguments.strip() or "{}"))
        return calls


@dataclass(slots=True)
class Draft:
    """An answer in the making: what a provider's events amount to."""

    # Set by the event that ends the answer.
    reason: FinishReason | None = None
    usage: Usage | None = None
    # The text says that the model will not.
    refused: bool = False
    calls: Calls = field(default_factory=Calls)

    def end(self) -> list[ModelEvent]:
        """Tool calls, which are whole only now, and how it ended."""
        reason = self.reason or FinishReason.STOP
        if reason not in {FinishReason.STOP, FinishReason.TOOL_CALLS}:
            # Cut short, the last call's arguments would be, too.
            return [ModelFinish(reason=reason, usage=self.usage)]
        calls = [ModelToolCall(call) for call in self.calls.whole()]
        if calls:
            reason = FinishReason.TOOL_CALLS
        elif self.refused:
            reason = FinishReason.REFUSAL
        return [*calls, ModelFinish(reason=reason, usage=self.usage)]


Read = Callable[[Mapping[str, Any], Draft], ModelText | ModelProgress | None]


async def relay(
    chunks: AsyncIterator[bytes], *, read: Read, draft: Draft, named: Named
) -> AsyncGenerator[ModelEvent | ModelProgress, None]:
    """The answer in a response's body, each event read by `read`, to its end.

    Raises ProviderUnavailable where it breaks before anything is there, else ProviderStreamCut.
    """
    begun = False
    try:
        async with aclosing(data_of(chunks)) as events:
            async for data in events:
                said = read(_object(data), draft)
                if said is not None:
                    yield said
                    begun = begun or isinstance(said, ModelText)
                if draft.reason is not None:
                    await _rest(events, read, draft)
                    for event in draft.end():
                        yield event
                    return
    except (httpx2.HTTPError, MalformedStream):
        if not begun:
            raise ProviderUnavailable("The model's provider failed.", **named) from None
    raise ProviderStreamCut("The answer broke off.", **named)


async def _rest(events: AsyncIterator[bytes], read: Read, draft: Draft) -> None:
    """What follows the end of the answer, if it comes soon; a response read to its end frees its connection."""
    with suppress(TimeoutError, httpx2.HTTPError, MalformedStream):
        async with asyncio.timeout(_REST_SECONDS):
            async for data in events:
                read(_object(data), draft)


def _object(data: bytes) -> Mapping[str, Any]:
    try:
        body = json.loads(data)
    except ValueError:
        raise MalformedStream from None
    if not isinstance(body, dict):
        raise MalformedStream
    return body


def data_url(attachment: Attachment) -> str:
    """An attachment in a URL."""
    return f"data:{attachment.media_type};base64,{b64encode(attachment.data).decode()}"


def at(value: object, *path: str | int) -> Any:
    """What is at the end of a path through objects and lists; None where something else is in the way."""
    for step in path:
        match value, step:
            case dict(), str():
                value = value.get(step)
            case list(), int() if len(value) > step:
                value = value[step]
            case _:
                return None
    return value


def text_at(value: object, *path: str | int) -> str:
    """The text there; empty where there is none."""
    found = at(value, *path)
    return found if isinstance(found, str) else ""


def count_at(value: object, *path: str | int) -> int:
    """The number there, as a whole one; zero where there is none."""
    found = at(value, *path)
    return max(0, int(found)) if isinstance(found, int | float) and found == found else 0  # noqa: PLR0124 - not NaN


def unreachable(named: Named, *, timed_out: bool) -> ProviderError:
    """There was no response."""
    if timed_out:
        return ProviderTimeout("The model's provider could not be reached in time.", limit="connect", **named)
    return ProviderUnavailable("The model's provider cannot be reached.", **named)


def failure(named: Named, *, status: int, headers: Mapping[str, str], code: str = "") -> ProviderError:
    """What a response with an error means; its words stay where they are: they may quote key and prompt."""
    pause = retry_after(headers)
    if code in _USED_UP:
        return ProviderRefused(_REFUSALS[402], **named)
    if status == _TOO_MANY:
        return ProviderRateLimited("The account at the model's provider is at its limit.", retry_after=pause, **named)
    if status < _SERVERS_FAULT and status not in _PASSING:
        return ProviderRefused(_REFUSALS.get(status, "The model's provider refused the request."), **named)
    return ProviderUnavailable("The model's provider is busy or failed.", retry_after=pause, **named)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from either form of the header; a date counts from the response's own."""
    value = headers.get("retry-after", "")
    with suppress(ValueError):
        return max(0.0, float(value))
    with suppress(ValueError):
        then = parsedate_to_datetime(value)
        if "date" in headers:
            return max(0.0, then.timestamp() - parsedate_to_datetime(headers["date"]).timestamp())
    return None
