"""Cohere's chat, version 2.

Its SDK skips events that it cannot read, and logs them; so the requests are made here.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Self

import httpx2

from loremesh_agent.adapters import answers
from loremesh_agent.adapters.answers import Draft, Named, at, count_at, text_at
from loremesh_agent.adapters.sse import MalformedStream
from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.events import FinishReason
from loremesh_agent.domain.prompts import Attachment, PromptMessage
from loremesh_agent.errors import AttachmentUnsupported
from loremesh_agent.ports import ModelEvent, ModelProgress, ModelRequest, ModelText

_OWN = "https://api.cohere.com"
_FINISH = {
    "COMPLETE": FinishReason.STOP,
    "STOP_SEQUENCE": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    "TOOL_CALL": FinishReason.TOOL_CALLS,
    "ERROR_TOXIC": FinishReason.CONTENT_FILTER,
    "ERROR_LIMIT": FinishReason.LENGTH,
}
# The parameter goes with no tools, and without being told so a model may not end.
_JSON = "Answer with nothing but JSON that fulfils this JSON Schema:\n"


class CohereProvider:
    """Chat, streamed."""

    def __init__(self, *, http: httpx2.AsyncClient, name: str, base_url: str, api_key: str) -> None:
        self._http = http
        self._name = name
        self._url = f"{base_url.rstrip('/')}/v2/chat"
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}

    @classmethod
    @asynccontextmanager
    async def open(cls, *, name: str, base_url: str, api_key: str, connect_seconds: float) -> AsyncIterator[Self]:
        """A provider over one pool of connections. Empty: Cohere's own `base_url`; no `api_key`."""
        url = base_url or _OWN
        async with answers.pool(url, connect_seconds=connect_seconds) as http:
            yield cls(http=http, name=name, base_url=url, api_key=api_key)

    @property
    def name(self) -> str:
        """As it was given."""
        return self._name

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent | ModelProgress, None]:
        """See ports.ModelSource."""
        named: Named = {"provider": self._name, "model": request.model}
        body = self._body(request)
        try:
            async with self._http.stream("POST", self._url, json=body, headers=self._headers) as response:
                if not response.is_success:
                    raise answers.failure(named, status=response.status_code, headers=response.headers)
                chunks = answers.relay(response.aiter_bytes(), read=_read, draft=Draft(), named=named)
                async with aclosing(chunks) as events:
                    async for event in events:
                        yield event
        except httpx2.HTTPError as error:
            raise answers.unreachable(named, timed_out=isinstance(error, httpx2.TimeoutException)) from None

    def _body(self, request: ModelRequest) -> dict[str, Any]:
        model = f"{self._name}/{request.model}"
        penalty = request.frequency_penalty
        messages = [_message(message, model=model) for message in request.messages]
        optional: dict[str, Any] = {
            "temperature": request.temperature,
            "p": request.top_p,
            "frequency_penalty": None if penalty is None else min(1.0, max(0.0, penalty)),
            "stop_sequences": list(request.stop) or None,
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": spec.name,
                        "description": spec.description,
                        "parameters": dict(spec.input_schema),
                    },
                }
                for spec in request.tools
            ]
            or None,
        }
        if request.response_schema is not None:
            schema = dict(request.response_schema)
            messages.insert(0, {"role": "system", "content": _JSON + json.dumps(schema)})
            if not request.tools:
                optional["response_format"] = {"type": "json_object", "json_schema": schema}
        return {
            "model": request.model,
            "messages": messages,
            "stream": True,
            "max_tokens": request.max_output_tokens,
            **{name: value for name, value in optional.items() if value is not None},
        }


def _message(message: PromptMessage, *, model: str) -> dict[str, Any]:
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.tool_call_id, "content": message.content}
    if message.tool_calls:
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
        # What it said before it called is its plan.
        plan = {"tool_plan": message.content} if message.content else {}
        return {"role": message.role, "tool_calls": calls, **plan}
    if message.attachments:
        parts = [_part(attachment, model=model) for attachment in message.attachments]
        return {"role": message.role, "content": [*parts, {"type": "text", "text": message.content}]}
    return {"role": message.role, "content": message.content}


def _part(attachment: Attachment, *, model: str) -> dict[str, Any]:
    if attachment.media_type in answers.IMAGES:
        return {"type": "image_url", "image_url": {"url": answers.data_url(attachment)}}
    if attachment.media_type.startswith("text/"):
        return {"type": "text", "text": attachment.data.decode("utf-8", "replace")}
    raise AttachmentUnsupported(attachment.media_type, model=model)


def _read(event: Mapping[str, Any], draft: Draft) -> ModelText | ModelProgress | None:
    message = at(event, "delta", "message")
    match event.get("type"):
        case "content-start" | "content-delta":
            return _said(text_at(message, "content", "text"), thought=text_at(message, "content", "thinking"))
        case "tool-plan-delta":
            return _said(text_at(message, "tool_plan"))
        case "tool-call-start":
            index, call = count_at(event, "index"), at(message, "tool_calls")
            draft.calls.begin(index, id_=at(call, "id"), name=at(call, "function", "name"))
            draft.calls.add(index, at(call, "function", "arguments"))
            return ModelProgress()
        case "tool-call-delta":
            draft.calls.add(count_at(event, "index"), at(message, "tool_calls", "function", "arguments"))
            return ModelProgress()
        case "message-end":
            reason = _FINISH.get(text_at(event, "delta", "finish_reason"))
            if reason is None:
                raise MalformedStream
            draft.reason, draft.usage = reason, _usage(at(event, "delta", "usage"))
        case None:
            # An error in place of the stream.
            raise MalformedStream
    return None


def _said(text: str, *, thought: str = "") -> ModelText | ModelProgress | None:
    if text:
        return ModelText(text)
    return ModelProgress() if thought else None


def _usage(usage: object) -> Usage | None:
    """What is billed, which is less than what was read where Cohere adds words of its own."""
    counts = at(usage, "billed_units") or at(usage, "tokens")
    if counts is None:
        return None
    return Usage(
        input_tokens=count_at(counts, "input_tokens"),
        output_tokens=count_at(counts, "output_tokens"),
        cached_input_tokens=count_at(usage, "cached_tokens"),
    )
