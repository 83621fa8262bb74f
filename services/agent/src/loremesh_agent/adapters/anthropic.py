"""Anthropic's Messages, and endpoints that speak them."""

import json
import re
from base64 import b64encode
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Self

import anthropic

from loremesh_agent.adapters import answers
from loremesh_agent.adapters.answers import Draft, Named, at, count_at, text_at
from loremesh_agent.adapters.sse import MalformedStream
from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.events import FinishReason
from loremesh_agent.domain.prompts import Attachment, PromptMessage
from loremesh_agent.domain.tools import ToolCall
from loremesh_agent.errors import AttachmentUnsupported, ProviderError
from loremesh_agent.ports import ModelEvent, ModelFinish, ModelProgress, ModelRequest, ModelText, ModelToolCall

_OWN = "https://api.anthropic.com"
_FINISH = {
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "refusal": FinishReason.REFUSAL,
    "tool_use": FinishReason.TOOL_CALLS,
}
# The last that take parameters of sampling; later ones refuse a request with any.
_SAMPLING = re.compile(r"^claude-(3|(haiku|sonnet|opus)-4(-[0156])?($|-\d{8}|-latest))")
_TURNS_KEPT = 256


class AnthropicProvider:
    """Messages, streamed; the SDK makes the request, its stream is read here."""

    def __init__(self, *, client: anthropic.AsyncAnthropic, name: str) -> None:
        self._client = client
        self._name = name
        self._thoughts = _Thoughts()

    @classmethod
    @asynccontextmanager
    async def open(cls, *, name: str, base_url: str, api_key: str, connect_seconds: float) -> AsyncIterator[Self]:
        """A provider over one pool of connections. Empty: Anthropic's own `base_url`; no `api_key`."""
        url = base_url or _OWN
        async with (
            answers.pool(url, connect_seconds=connect_seconds) as http,
            anthropic.AsyncAnthropic(
                api_key=api_key or "none",
                base_url=url,
                max_retries=0,
                timeout=answers.timeouts(connect_seconds),
                http_client=http,
            ) as client,
        ):
            yield cls(client=client, name=name)

    @property
    def name(self) -> str:
        """As it was given."""
        return self._name

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent | ModelProgress, None]:
        """See ports.ModelSource."""
        named: Named = {"provider": self._name, "model": request.model}
        parameters, reading, calls = self._parameters(request), _Reading(), list[ToolCall]()
        try:
            async with (
                self._client.messages.with_streaming_response.create(**parameters) as response,
                aclosing(answers.relay(response.iter_bytes(), read=reading, draft=Draft(), named=named)) as events,
            ):
                async for event in events:
                    if isinstance(event, ModelToolCall):
                        calls.append(event.call)
                    if isinstance(event, ModelFinish) and calls:
                        self._thoughts.keep(calls, reading.blocks)
                    yield event
        except anthropic.APIError as error:
            raise _failure(error, named) from None

    def _parameters(self, request: ModelRequest) -> dict[str, Any]:
        # A stop of white space alone is refused.
        stop = [text for text in request.stop if text.strip()]
        optional: dict[str, Any] = {
            "system": "\n\n".join(message.content for message in request.messages if message.role == "system"),
            "stop_sequences": stop,
            "tools": [
                {"name": spec.name, "description": spec.description, "input_schema": dict(spec.input_schema)}
                for spec in request.tools
            ],
            "extra_body": _sampling(request),
        }
        if request.response_schema is not None:
            schema = anthropic.transform_schema(dict(request.response_schema))
            optional["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        return {
            "model": request.model,
            "max_tokens": request.max_output_tokens,
            "messages": self._messages(request),
            "stream": True,
            **{name: value for name, value in optional.items() if value},
        }

    def _messages(self, request: ModelRequest) -> list[dict[str, Any]]:
        """Turns of user and assistant; results of tools called together belong into one."""
        turns: list[dict[str, Any]] = []
        for message in request.messages:
            blocks = self._blocks(message, model=f"{self._name}/{request.model}")
            role = "assistant" if message.role == "assistant" else "user"
            if message.role == "system" or not blocks:
                continue
            if message.role == "tool" and turns and at(turns[-1], "content", 0, "type") == "tool_result":
                turns[-1]["content"].extend(blocks)
            else:
                turns.append({"role": role, "content": blocks})
        return turns

    def _blocks(self, message: PromptMessage, *, model: str) -> list[dict[str, Any]]:
        if message.role == "tool":
            return [{"type": "tool_result", "tool_use_id": message.tool_call_id, "content": message.content}]
        if kept := self._thoughts.of(message.tool_calls):
            return kept
        attached = [_attached(attachment, model=model) for attachment in message.attachments]
        said = [{"type": "text", "text": message.content}] if message.content.strip() else []
        called = [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": _input(call.arguments)}
            for call in message.tool_calls
        ]
        return [*attached, *said, *called]


class _Thoughts:
    """Turns that ended with tool calls, as they came: models that think want their signed thoughts back with them.

    Whoever asks from another process sends none, which only costs the model its train of thought.
    """

    def __init__(self) -> None:
        self._turns: OrderedDict[tuple[ToolCall, ...], list[dict[str, Any]]] = OrderedDict()

    def keep(self, calls: Sequence[ToolCall], blocks: Sequence[dict[str, Any]]) -> None:
        """Keep a turn with thoughts in it."""
        if any(block.get("type") in {"thinking", "redacted_thinking"} for block in blocks):
            self._turns[tuple(calls)] = list(blocks)
            while len(self._turns) > _TURNS_KEPT:
                self._turns.popitem(last=False)

    def of(self, calls: tuple[ToolCall, ...]) -> list[dict[str, Any]]:
        """The turn with just these calls; empty where there is none."""
        return self._turns.get(calls, [])


class _Reading:
    """Reads the events of one answer, and puts its content together."""

    def __init__(self) -> None:
        self.blocks: list[dict[str, Any]] = []
        self._by_index: dict[int, dict[str, Any]] = {}
        self._inputs: dict[int, str] = {}

    def __call__(self, event: Mapping[str, Any], draft: Draft) -> ModelText | ModelProgress | None:
        """See answers.Read."""
        match event.get("type"):
            case "message_start":
                draft.usage = _usage(at(event, "message", "usage"))
            case "content_block_start":
                return self._begin(event, draft)
            case "content_block_delta":
                return self._add(event, draft)
            case "content_block_stop":
                self._end(event)
            case "message_delta":
                draft.usage = _usage(event.get("usage"), before=draft.usage)
                if stop := text_at(event, "delta", "stop_reason"):
                    draft.reason = _FINISH.get(stop, FinishReason.STOP)
            case "error":
                raise MalformedStream
        return None

    def _begin(self, event: Mapping[str, Any], draft: Draft) -> ModelText | ModelProgress | None:
        index, block = count_at(event, "index"), at(event, "content_block")
        if not isinstance(block, dict):
            raise MalformedStream
        self._by_index[index] = block
        self.blocks.append(block)
        if block.get("type") == "tool_use":
            draft.calls.begin(index, id_=block.get("id"), name=block.get("name"))
            return ModelProgress()
        text = text_at(block, "text")
        return ModelText(text) if text else None

    def _add(self, event: Mapping[str, Any], draft: Draft) -> ModelText | ModelProgress | None:
        index, delta = count_at(event, "index"), at(event, "delta")
        block = self._by_index.get(index)
        if block is None:
            raise MalformedStream
        kind = text_at(delta, "type")
        if kind == "input_json_delta":
            piece = text_at(delta, "partial_json")
            draft.calls.add(index, piece)
            self._inputs[index] = self._inputs.get(index, "") + piece
            return ModelProgress()
        part = kind.removesuffix("_delta")
        if part not in {"text", "thinking", "signature"}:
            return None
        piece = text_at(delta, part)
        block[part] = text_at(block, part) + piece
        if part == "text":
            return ModelText(piece) if piece else None
        return ModelProgress()

    def _end(self, event: Mapping[str, Any]) -> None:
        index = count_at(event, "index")
        if index in self._inputs:
            self._by_index[index]["input"] = _input(self._inputs[index])


def _input(arguments: str) -> dict[str, Any]:
    """Arguments as the object they have to be."""
    try:
        read = json.loads(arguments)
    except ValueError:
        read = None
    return read if isinstance(read, dict) else {"arguments": arguments}


def _sampling(request: ModelRequest) -> dict[str, float]:
    """What the SDK has no parameters for any more; the models that take both take one at a time."""
    if not _SAMPLING.match(request.model):
        return {}
    if request.temperature is not None:
        return {"temperature": min(1.0, request.temperature)}
    return {} if request.top_p is None else {"top_p": request.top_p}


def _attached(attachment: Attachment, *, model: str) -> dict[str, Any]:
    if attachment.media_type.startswith("text/"):
        text = attachment.data.decode("utf-8", "replace")
        return {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": text}}
    data = b64encode(attachment.data).decode()
    source = {"type": "base64", "media_type": attachment.media_type, "data": data}
    if attachment.media_type in answers.IMAGES:
        return {"type": "image", "source": source}
    if attachment.media_type == "application/pdf":
        return {"type": "document", "source": source}
    raise AttachmentUnsupported(attachment.media_type, model=model)


def _usage(usage: object, *, before: Usage | None = None) -> Usage | None:
    """Counts are cumulative; input is told without what the cache read and kept."""
    if not isinstance(usage, dict):
        return before
    cached = count_at(usage, "cache_read_input_tokens")
    read = count_at(usage, "input_tokens") + cached + count_at(usage, "cache_creation_input_tokens")
    if not read and before:
        read, cached = before.input_tokens, before.cached_input_tokens
    return Usage(
        input_tokens=read,
        output_tokens=count_at(usage, "output_tokens"),
        cached_input_tokens=cached,
        reasoning_tokens=count_at(usage, "output_tokens_details", "thinking_tokens"),
    )


def _failure(error: anthropic.APIError, named: Named) -> ProviderError:
    if isinstance(error, anthropic.APIStatusError):
        return answers.failure(named, status=error.status_code, headers=error.response.headers, code=error.type or "")
    return answers.unreachable(named, timed_out=isinstance(error, anthropic.APITimeoutError))
