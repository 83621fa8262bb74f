"""Any endpoint that speaks OpenAI's chat completions: OpenAI's own, and the local model's among many others."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2
import openai

from loremesh_agent.adapters import answers
from loremesh_agent.adapters.answers import Draft, Named, at, count_at, text_at
from loremesh_agent.adapters.sse import MalformedStream
from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.events import FinishReason
from loremesh_agent.domain.prompts import Attachment, PromptMessage
from loremesh_agent.domain.tools import ToolSpec
from loremesh_agent.errors import AttachmentUnsupported, ProviderError
from loremesh_agent.ports import ModelEvent, ModelFinish, ModelProgress, ModelRequest, ModelText

_OWN = "https://api.openai.com/v1"
_FINISH = {
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
    "tool_calls": FinishReason.TOOL_CALLS,
}
# The prompt was stopped, as an answer would have been.
_FILTERED = frozenset({"content_filter", "content_policy_violation", "responsible_ai_policy_violation"})
# They reason whether asked to or not, and take none of the parameters of sampling.
_REASONING = re.compile(r"^(o\d|gpt-5($|-))")


class OpenAIProvider:
    """Chat completions, streamed.

    The SDK makes the request; its stream is read here, since its own objects cost 0.2 ms a token. A provider's words
    go nowhere: they may quote key and prompt.
    """

    def __init__(self, *, client: openai.AsyncOpenAI, name: str, own_dialect: bool) -> None:
        """`own_dialect` for OpenAI itself, which calls the limit of tokens by a new name that others do not know."""
        self._client = client
        self._name = name
        self._own = own_dialect

    @classmethod
    @asynccontextmanager
    async def open(cls, *, name: str, base_url: str, api_key: str, connect_seconds: float) -> AsyncIterator[Self]:
        """A provider over one pool of connections. Empty: OpenAI's own `base_url`; no `api_key`."""
        url = base_url or _OWN
        # llama.cpp closes what it promised to keep, which the next request may meet.
        kept = 0 if name == "local" else 20
        async with (
            answers.pool(url, connect_seconds=connect_seconds, kept=kept) as http,
            openai.AsyncOpenAI(
                api_key=api_key or "none",
                base_url=url,
                max_retries=0,
                timeout=answers.timeouts(connect_seconds),
                http_client=http,
            ) as client,
        ):
            yield cls(client=client, name=name, own_dialect=urlsplit(url).hostname == urlsplit(_OWN).hostname)

    @property
    def name(self) -> str:
        """As it was given."""
        return self._name

    async def ping(self) -> None:
        """Raise when the endpoint does not answer."""
        await self._client.models.list()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent | ModelProgress, None]:
        """See ports.ModelSource."""
        named: Named = {"provider": self._name, "model": request.model}
        parameters = self._parameters(request)
        try:
            # The resource's own method looks every part of a request up in its types: a quarter of what asking costs.
            response: httpx2.Response = await self._client.post(
                "/chat/completions", cast_to=httpx2.Response, body=parameters, stream=True
            )
            async with (
                aclosing(response),
                aclosing(answers.relay(response.aiter_bytes(), read=_read, draft=Draft(), named=named)) as events,
            ):
                async for event in events:
                    yield event
        except openai.APIError as error:
            if error.code not in _FILTERED:
                raise _failure(error, named) from None
            yield ModelFinish(reason=FinishReason.CONTENT_FILTER)

    def _parameters(self, request: ModelRequest) -> dict[str, Any]:
        optional: dict[str, Any] = {
            "temperature": request.temperature,
            "top_p": request.top_p,
            "frequency_penalty": request.frequency_penalty,
            "stop": list(request.stop) or None,
        }
        if self._own and _REASONING.match(request.model):
            optional = {}
        optional["tools"] = [_tool(spec) for spec in request.tools] or None
        optional["response_format"] = _format(request.response_schema)
        return {
            "model": request.model,
            "messages": [self._message(message, request.model) for message in request.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_completion_tokens" if self._own else "max_tokens": request.max_output_tokens,
            **{name: value for name, value in optional.items() if value is not None},
        }

    def _message(self, message: PromptMessage, model: str) -> dict[str, Any]:
        if message.role == "tool":
            return {"role": "tool", "tool_call_id": message.tool_call_id, "content": message.content}
        if message.tool_calls:
            calls = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in message.tool_calls
            ]
            return {"role": message.role, "content": message.content or None, "tool_calls": calls}
        if message.attachments:
            parts = [_part(attachment, model=f"{self._name}/{model}") for attachment in message.attachments]
            return {"role": message.role, "content": [*parts, {"type": "text", "text": message.content}]}
        return {"role": message.role, "content": message.content}


def _part(attachment: Attachment, *, model: str) -> dict[str, Any]:
    if attachment.media_type in answers.IMAGES:
        return {"type": "image_url", "image_url": {"url": answers.data_url(attachment)}}
    if attachment.media_type == "application/pdf":
        name = attachment.filename or "document.pdf"
        return {"type": "file", "file": {"filename": name, "file_data": answers.data_url(attachment)}}
    if attachment.media_type.startswith("text/"):
        return {"type": "text", "text": attachment.data.decode("utf-8", "replace")}
    raise AttachmentUnsupported(attachment.media_type, model=model)


def _tool(spec: ToolSpec) -> dict[str, Any]:
    function = {"name": spec.name, "description": spec.description, "parameters": dict(spec.input_schema)}
    return {"type": "function", "function": function}


def _format(schema: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if schema is None:
        return None
    described = {"name": "answer", "schema": dict(schema), **({"strict": True} if _is_strict(schema) else {})}
    return {"type": "json_schema", "json_schema": described}


def _is_strict(schema: object) -> bool:
    """Whether every object in it names all of its properties and requires them: others are refused as strict ones."""
    match schema:
        case dict():
            names = schema.get("properties")
            if isinstance(names, dict) and (
                schema.get("additionalProperties") is not False or set(names) != set(schema.get("required", ()))
            ):
                return False
            return all(map(_is_strict, schema.values()))
        case list():
            return all(map(_is_strict, schema))
    return True


def _read(event: Mapping[str, Any], draft: Draft) -> ModelText | ModelProgress | None:
    if event.get("error"):
        raise MalformedStream
    draft.usage = _usage(event.get("usage")) or draft.usage
    choice = at(event, "choices", 0)
    finish = at(choice, "finish_reason")
    if isinstance(finish, str):
        draft.reason = _FINISH.get(finish, FinishReason.STOP)
    delta = at(choice, "delta")
    called = _read_calls(at(delta, "tool_calls"), draft)
    if text := text_at(delta, "content"):
        return ModelText(text)
    if text := text_at(delta, "refusal"):
        draft.refused = True
        return ModelText(text)
    thought = text_at(delta, "reasoning_content") or text_at(delta, "reasoning")
    return ModelProgress() if called or thought else None


def _read_calls(pieces: object, draft: Draft) -> bool:
    if not isinstance(pieces, list):
        return False
    for number, piece in enumerate(pieces):
        index, id_ = at(piece, "index"), at(piece, "id")
        index = index if isinstance(index, int) else number
        if not draft.calls.knows(index, id_=id_):
            draft.calls.begin(index, id_=id_, name=at(piece, "function", "name"))
        draft.calls.add(index, at(piece, "function", "arguments"))
    return bool(pieces)


def _usage(usage: object) -> Usage | None:
    match usage:
        case {"prompt_tokens": int(read), "completion_tokens": int(written)}:
            return Usage(
                input_tokens=read,
                output_tokens=written,
                cached_input_tokens=count_at(usage, "prompt_tokens_details", "cached_tokens"),
                reasoning_tokens=count_at(usage, "completion_tokens_details", "reasoning_tokens"),
            )
    return None


def _failure(error: openai.APIError, named: Named) -> ProviderError:
    if isinstance(error, openai.APIStatusError):
        return answers.failure(named, status=error.status_code, headers=error.response.headers, code=error.code or "")
    return answers.unreachable(named, timed_out=isinstance(error, openai.APITimeoutError))
