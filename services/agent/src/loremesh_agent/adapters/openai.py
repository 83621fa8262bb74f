"""Any endpoint that speaks OpenAI's chat completions: OpenAI's own, and the local model's among many others."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2
import openai

from loremesh_agent.adapters.sse import MalformedStream, data_of
from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.events import FinishReason
from loremesh_agent.errors import (
    ProviderError,
    ProviderRefused,
    ProviderStreamCut,
    ProviderTimeout,
    ProviderUnavailable,
)
from loremesh_agent.ports import ModelEvent, ModelFinish, ModelRequest, ModelText

_FINISH = {"length": FinishReason.LENGTH, "content_filter": FinishReason.CONTENT_FILTER}
_PASSING = frozenset({408, 409, 425, 429})
_REFUSALS = {
    401: "The model's provider does not accept the key.",
    403: "The model's provider does not allow this key to use the model.",
    404: "The model's provider does not know the model.",
}
# The answer is there; usage may follow.
_USAGE_SECONDS = 0.5
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

# At DEBUG they tell prompts and keys.
for _name in ("openai", "httpcore2", "httpx2"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class OpenAIProvider:
    """Chat completions, streamed.

    The SDK makes the request; its stream is read here, since its own objects cost 0.2 ms a token. A provider's words
    go nowhere: they may quote key and prompt.
    """

    def __init__(self, *, client: openai.AsyncOpenAI, name: str, own_dialect: bool) -> None:
        """`own_dialect` for OpenAI itself, which calls the limit of tokens by a new name that others do not know."""
        self._client = client
        self._name = name
        self._limit = "max_completion_tokens" if own_dialect else "max_tokens"

    @classmethod
    @asynccontextmanager
    async def open(cls, *, name: str, base_url: str, api_key: str, connect_seconds: float) -> AsyncIterator[Self]:
        """A provider over one pool of connections. Empty: OpenAI's own `base_url`; no `api_key`."""
        host = urlsplit(base_url).hostname if base_url else "api.openai.com"
        timeout = httpx2.Timeout(None, connect=connect_seconds, pool=connect_seconds)
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20)
        async with (
            # A proxy of the environment is not for this machine.
            httpx2.AsyncClient(timeout=timeout, limits=limits, trust_env=host not in _LOOPBACK) as http,
            openai.AsyncOpenAI(
                api_key=api_key or "none",
                base_url=base_url or "https://api.openai.com/v1",
                max_retries=0,
                timeout=timeout,
                http_client=http,
            ) as client,
        ):
            yield cls(client=client, name=name, own_dialect=host == "api.openai.com")

    @property
    def name(self) -> str:
        """As it was given."""
        return self._name

    async def ping(self) -> None:
        """Raise when the endpoint does not answer."""
        await self._client.models.list()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """See ports.ModelProvider."""
        begun = False
        try:
            async with (
                self._client.chat.completions.with_streaming_response.create(**self._parameters(request)) as response,
                aclosing(data_of(response.iter_bytes())) as chunks,
            ):
                async for data in chunks:
                    chunk = _Chunk(data)
                    if chunk.text:
                        yield ModelText(chunk.text)
                        begun = True
                    if chunk.finish_reason is not None:
                        reason = _FINISH.get(chunk.finish_reason, FinishReason.STOP)
                        yield ModelFinish(reason=reason, usage=await _usage(chunks) or chunk.usage)
                        return
        except openai.APIError as error:
            raise self._failure(error, request.model) from None
        except (httpx2.HTTPError, MalformedStream):
            if not begun:
                raise ProviderUnavailable("The model's provider failed.", **self._named(request.model)) from None
        raise ProviderStreamCut("The answer broke off.", **self._named(request.model))

    def _parameters(self, request: ModelRequest) -> dict[str, Any]:
        optional = {
            "temperature": request.temperature,
            "frequency_penalty": request.frequency_penalty,
            "stop": list(request.stop) or None,
        }
        return {
            "model": request.model,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            self._limit: request.max_output_tokens,
            **{name: value for name, value in optional.items() if value is not None},
        }

    def _failure(self, error: openai.APIError, model: str) -> ProviderError:
        named = self._named(model)
        match error:
            case openai.APITimeoutError():
                return ProviderTimeout("The model's provider could not be reached in time.", limit="connect", **named)
            case openai.APIStatusError(status_code=status) if _refused(status, error.code):
                message = _REFUSALS.get(status, "The model's provider refused the request.")
                return ProviderRefused(message, **named)
            case openai.APIStatusError():
                pause = _retry_after(error.response.headers)
                return ProviderUnavailable("The model's provider is busy or failed.", retry_after=pause, **named)
        return ProviderUnavailable("The model's provider cannot be reached.", **named)

    def _named(self, model: str) -> dict[str, Any]:
        return {"provider": self._name, "model": model}


class _Chunk:
    """What matters in one event of the stream; raises MalformedStream for an error in place of it."""

    def __init__(self, data: bytes) -> None:
        try:
            body = json.loads(data)
        except ValueError:
            raise MalformedStream from None
        if not isinstance(body, dict) or body.get("error"):
            raise MalformedStream
        choice = _first(body.get("choices"))
        delta = choice.get("delta")
        delta = delta if isinstance(delta, dict) else {}
        text = delta.get("content") or delta.get("refusal")
        self.text = text if isinstance(text, str) else ""
        finish = choice.get("finish_reason")
        self.finish_reason = finish if isinstance(finish, str) else None
        self.usage = _read_usage(body.get("usage"))


def _first(choices: object) -> dict[str, Any]:
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def _read_usage(usage: object) -> Usage | None:
    match usage:
        case {"prompt_tokens": int(read), "completion_tokens": int(written)}:
            return Usage(input_tokens=read, output_tokens=written)
    return None


async def _usage(chunks: AsyncIterator[bytes]) -> Usage | None:
    """What follows the end of the answer, if it comes soon; a response read to its end frees its connection."""
    usage = None
    with suppress(TimeoutError, httpx2.HTTPError, MalformedStream):
        async with asyncio.timeout(_USAGE_SECONDS):
            async for data in chunks:
                usage = _Chunk(data).usage or usage
    return usage


def _refused(status: int, code: str | None) -> bool:
    """Whether the same request would be refused again; a used-up quota comes as 429."""
    return code == "insufficient_quota" or (status < 500 and status not in _PASSING)  # noqa: PLR2004


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from either form of the header."""
    value = headers.get("retry-after", "")
    with suppress(ValueError):
        return max(0.0, float(value))
    with suppress(ValueError):
        at = parsedate_to_datetime(value)
        return (
            max(0.0, at.timestamp() - parsedate_to_datetime(headers["date"]).timestamp()) if "date" in headers else None
        )
    return None
