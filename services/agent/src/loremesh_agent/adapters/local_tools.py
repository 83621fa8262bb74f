"""Tools for models which know of none: offered in words, and asked for in JSON that a schema constrains.

Small models ask for the same again and again, and fill in whatever they may: so each tool is to be had once in a run,
and is offered with the arguments that it must have.
"""

import json
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Protocol

from loremesh_kit.ids import new_id

from loremesh_agent.domain.events import FinishReason
from loremesh_agent.domain.prompts import PromptMessage
from loremesh_agent.domain.tools import ToolCall, ToolSpec
from loremesh_agent.errors import AttachmentUnsupported, ModelOutputInvalid
from loremesh_agent.ports import (
    ModelEvent,
    ModelFinish,
    ModelProgress,
    ModelRequest,
    ModelSource,
    ModelText,
    ModelToolCall,
)

_OFFER = """You may use these tools:
{tools}
Reply in JSON. To use a tool: {{"tool": NAME, "arguments": {{...}}}}. To answer: {{"answer": ...}}."""
_CONCLUDE = "Using only this information, answer in one or two sentences: {question}"
# With others beside these a schema says more than what its properties do.
_PLAIN = frozenset({"$schema", "additionalProperties", "description", "properties", "required", "title", "type"})
_OPENING = re.compile(r'\s*\{\s*"answer"\s*:\s*"')
# Characters of a JSON string that are there in full: half an escape or half a surrogate pair has to wait.
_WHOLE = re.compile(
    r"""(?: [^"\\] | \\[^u] | \\u(?![dD][89abAB])[0-9a-fA-F]{4} | \\u[dD][89abAB]..\\u[0-9a-fA-F]{4} )+""", re.VERBOSE
)


class LocalSource(ModelSource, Protocol):
    """A source that can be polled: it is ours."""

    async def ping(self) -> None:
        """Raise when it does not answer."""
        ...


class LocalTools:
    """A source whose models are offered tools, one call at a time, by a schema of their answer."""

    def __init__(self, source: LocalSource) -> None:
        self._source = source

    @property
    def name(self) -> str:
        """The source's."""
        return self._source.name

    async def ping(self) -> None:
        """Raise when the source does not answer."""
        await self._source.ping()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent | ModelProgress, None]:
        """See ports.ModelSource."""
        for attachment in (each for message in request.messages for each in message.attachments):
            raise AttachmentUnsupported(attachment.media_type, model=f"{self.name}/{request.model}")
        left = _left(request)
        asked = replace(request, tools=(), messages=_in_words(request, left))
        if left:
            # A stop that is a line's end would end the JSON, too.
            asked = replace(asked, stop=(), response_schema=_schema(request, left))
        reply = _Reply() if left else None
        async with aclosing(self._source.stream(asked)) as events:
            async for event in events:
                match event:
                    case ModelText(text) if reply:
                        yield reply.add(text)
                    case ModelFinish(reason=FinishReason.STOP) if reply:
                        for said in reply.end(event, provider=self.name, model=request.model):
                            yield said
                    case _:
                        yield event


class _Reply:
    """The JSON of a reply as it comes, and what of its answer was told."""

    def __init__(self) -> None:
        self._text = ""
        self._told = ""
        # Where the answer's text goes on; None where it has not begun, or is no text.
        self._position: int | None = None

    def add(self, text: str) -> ModelText | ModelProgress:
        """What a piece of it adds to the answer's text."""
        self._text += text
        if self._position is None and (opening := _OPENING.match(self._text)):
            self._position = opening.end()
        if self._position is None or not (whole := _WHOLE.match(self._text, self._position)):
            return ModelProgress()
        self._position = whole.end()
        try:
            said = json.loads(f'"{whole[0]}"', strict=False)
        except ValueError:
            return ModelProgress()
        self._told += said
        return ModelText(said)

    def end(self, finish: ModelFinish, *, provider: str, model: str) -> list[ModelEvent]:
        """The rest of its answer, or the tool it asks for; raises ModelOutputInvalid."""
        try:
            reply = json.loads(self._text, strict=False)
        except ValueError:
            reply = None
        match reply:
            case {"tool": str(name)}:
                arguments = json.dumps(reply.get("arguments", {}), ensure_ascii=False)
                call = ToolCall(id=f"call_{new_id()}", name=name, arguments=arguments)
                return [ModelToolCall(call), replace(finish, reason=FinishReason.TOOL_CALLS)]
            case {"answer": answer}:
                text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
                rest = text.removeprefix(self._told)
                return [*([ModelText(rest)] if rest else []), finish]
        if not self._text.strip():
            return [finish]
        raise ModelOutputInvalid("it is not the JSON that was asked for", provider=provider, model=model)


def _left(request: ModelRequest) -> Sequence[ToolSpec]:
    """The tools that were not called yet."""
    called = {call.name for message in request.messages for call in message.tool_calls}
    return [spec for spec in request.tools if spec.name not in called]


def _schema(request: ModelRequest, tools: Sequence[ToolSpec]) -> Mapping[str, Any]:
    """Of a reply: a tool and its arguments, or an answer."""
    answer = request.response_schema or {"type": "string"}
    calls = [_object(tool={"const": spec.name}, arguments=_least(spec.input_schema)) for spec in tools]
    return {"anyOf": [*calls, _object(answer=_alone(answer))]}


def _object(**properties: object) -> Mapping[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _alone(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema that can stand in another one: references would point elsewhere there, so any object will do."""
    return {"type": "object"} if "$ref" in json.dumps(schema) else schema


def _least(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema of a tool's arguments, of those alone which it requires."""
    if schema.keys() - _PLAIN or "$ref" in json.dumps(schema):
        return _alone(schema)
    needed = schema.get("required", ())
    return _object(**{name: each for name, each in schema.get("properties", {}).items() if name in needed})


def _in_words(request: ModelRequest, left: Sequence[ToolSpec]) -> tuple[PromptMessage, ...]:
    """The messages with tools, calls and results as text; where no tool is left, the question with all results."""
    names = {call.id: call.name for message in request.messages for call in message.tool_calls}
    if names and not left:
        return _concluding(request.messages, names)
    messages = [_plain(message, names) for message in request.messages]
    if left:
        offer = _OFFER.format(tools="\n".join(map(_described, request.tools)))
        if messages and messages[0].role == "system":
            messages[0] = replace(messages[0], content=f"{messages[0].content}\n\n{offer}")
        else:
            messages.insert(0, PromptMessage("system", offer))
    return tuple(messages)


def _concluding(messages: Sequence[PromptMessage], names: Mapping[str, str]) -> tuple[PromptMessage, ...]:
    """Without the calls, which a small model would only go on with."""
    asked = max(at for at, message in enumerate(messages) if message.role == "user")
    results = [_plain(message, names).content for message in messages[asked:] if message.role == "tool"]
    told = "\n\n".join([*results, _CONCLUDE.format(question=messages[asked].content)])
    return (*messages[:asked], replace(messages[asked], content=told))


def _plain(message: PromptMessage, names: Mapping[str, str]) -> PromptMessage:
    if message.role == "tool":
        return PromptMessage("user", f"{names.get(message.tool_call_id, 'The tool')} answered:\n{message.content}")
    calls = [f'{{"tool": {json.dumps(call.name)}, "arguments": {call.arguments}}}' for call in message.tool_calls]
    return PromptMessage(message.role, "\n".join(filter(None, [message.content, *calls])))


def _described(spec: ToolSpec) -> str:
    purpose = spec.description.partition(". ")[0].removesuffix(".")
    return f"- {spec.name}({', '.join(spec.input_schema.get('required', ()))}): {purpose}."
