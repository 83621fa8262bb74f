"""Prompts kept in Langfuse, over its HTTP API."""

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import quote

import httpx2
import structlog
from loremesh_kit.errors import DependencyUnavailable
from loremesh_kit.text import clean

from loremesh_agent.adapters.prompt_file import described
from loremesh_agent.domain.templates import KeptPrompt, variables
from loremesh_agent.errors import PromptInvalid, PromptNotFound
from loremesh_agent.ports import PromptLibrary

# A run waits for this, and no longer.
_SECONDS = 2.0
# How long a copy is as good as the original, and how long one that failed is not asked again.
_FRESH_SECONDS = 60.0
_FAILED_SECONDS = 10.0
_MAX_COPIES = 1000
_MAX_BYTES = 262_144
_NEWEST = "production"
_OWN_LANGUAGE = "en"
_NOT_FOUND = 404
_log = structlog.get_logger(__name__)

Key = tuple[str, int, str]


class _Failed(Exception):
    """It did not answer, or not as it should."""


@dataclass(slots=True)
class _Copy:
    """What is known of a prompt: `there` None with a past answer that there is none, or with no answer at all."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    good_until: float = 0.0
    answered: bool = False
    there: KeptPrompt | None = None


class LangfusePrompts:
    """Langfuse's prompts before those of another library, which also steps in when Langfuse does not answer.

    Version 0 is the one labelled `production`. A language other than English is part of the name: `answer-th`.
    """

    def __init__(self, *, http: httpx2.AsyncClient, otherwise: PromptLibrary) -> None:
        """`http` knows base URL and keys."""
        self._http = http
        self._otherwise = otherwise
        self._copies: OrderedDict[Key, _Copy] = OrderedDict()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, *, base_url: str, public_key: str, secret_key: str, otherwise: PromptLibrary
    ) -> AsyncIterator[Self]:
        """A library over one pool of connections."""
        async with httpx2.AsyncClient(
            base_url=base_url, auth=httpx2.BasicAuth(public_key, secret_key), timeout=_SECONDS
        ) as http:
            yield cls(http=http, otherwise=otherwise)

    async def find(self, name: str, *, version: int, language: str) -> KeptPrompt:
        """See ports.PromptLibrary."""
        copy = self._copy((name, version, language))
        async with copy.lock:
            if time.monotonic() >= copy.good_until:
                await self._refresh(copy, name, version, language)
        if copy.there is not None:
            return copy.there
        try:
            return await self._otherwise.find(name, version=version, language=language)
        except PromptNotFound:
            if copy.answered:
                raise
            raise DependencyUnavailable("langfuse") from None

    def _copy(self, key: Key) -> _Copy:
        copy = self._copies.setdefault(key, _Copy())
        self._copies.move_to_end(key)
        if len(self._copies) > _MAX_COPIES:
            self._copies.popitem(last=False)
        return copy

    async def _refresh(self, copy: _Copy, name: str, version: int, language: str) -> None:
        try:
            async with asyncio.timeout(_SECONDS):
                copy.there = await self._fetch(name, version, language)
        except (_Failed, httpx2.HTTPError, TimeoutError, PromptInvalid) as failure:
            if isinstance(failure, PromptInvalid) and copy.there is None:
                raise
            _log.warning("langfuse does not give a prompt", prompt=name, error=type(failure).__name__)
            copy.good_until = time.monotonic() + _FAILED_SECONDS
        else:
            copy.answered, copy.good_until = True, time.monotonic() + _FRESH_SECONDS

    async def _fetch(self, name: str, version: int, language: str) -> KeptPrompt | None:
        full = name if language == _OWN_LANGUAGE else f"{name}-{language}"
        which = {"version": version} if version else {"label": _NEWEST}
        async with self._http.stream("GET", f"/api/public/v2/prompts/{quote(full, safe='')}", params=which) as response:
            if response.status_code == _NOT_FOUND:
                return None
            if not response.is_success:
                raise _Failed
            body = b""
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > _MAX_BYTES:
                    raise _Failed
        return _read(body, name=name, version=version, language=language)


def _read(body: bytes, *, name: str, version: int, language: str) -> KeptPrompt:
    """What Langfuse answered; raises PromptInvalid where it is no template of ours."""
    try:
        answer = json.loads(body)
    except ValueError:
        raise _Failed from None
    match answer:
        case {"version": int(at), "prompt": prompt}:
            text = _text(prompt, described(name, version=version, language=language))
        case _:
            raise _Failed
    variables(text)
    config = answer.get("config")
    refusal = config.get("refusal") if isinstance(config, dict) else None
    return KeptPrompt(
        name=name, version=at, language=language, text=text, refusal=clean(refusal) if isinstance(refusal, str) else ""
    )


def _text(prompt: Any, name: str) -> str:
    """A text prompt, or a chat prompt all of whose messages are the system's."""
    match prompt:
        case str():
            return clean(prompt)
        case list() if prompt and all(_is_system(message) for message in prompt):
            return "\n\n".join(clean(message["content"]) for message in prompt)
    raise PromptInvalid(f"The prompt {name} must be a text, or messages of the system alone.")


def _is_system(message: Any) -> bool:
    match message:
        case {"role": "system", "content": str()}:
            return True
    return False
