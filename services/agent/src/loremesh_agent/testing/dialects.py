"""What a model may say, in the wire format of each provider: one list of events an answer, its end apart."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from loremesh_agent.testing.http import sse

# How an answer may end, in OpenAI's words.
STOP, LENGTH, TOOL_CALLS, FILTERED = "stop", "length", "tool_calls", "content_filter"


@dataclass(frozen=True)
class Text:
    """Words."""

    text: str


@dataclass(frozen=True)
class Thought:
    """Words which are no answer."""

    text: str


@dataclass(frozen=True)
class Refusal:
    """Words that the model will not."""

    text: str


@dataclass(frozen=True)
class Call:
    """A tool is asked for, its arguments in pieces."""

    id: str
    name: str
    pieces: tuple[str, ...] = ()


Said = Text | Thought | Refusal | Call


@dataclass(frozen=True)
class Counts:
    """Tokens; `read` and `written` hold the others."""

    read: int = 11
    written: int = 5
    cached: int = 4
    reasoned: int = 2


class Dialect(Protocol):
    """A wire format."""

    def begin(self, *said: Said) -> list[bytes]:
        """The events of an answer before it is whole."""
        ...

    def end(self, finish: str = STOP, counts: Counts | None = None) -> list[bytes]:
        """Those that make it whole, and tell the usage."""
        ...

    def error(self) -> bytes:
        """An event in place of others: something is wrong."""
        ...


def answer(dialect: Dialect, *texts: str, finish: str = STOP) -> list[bytes]:
    """A whole answer of some pieces of text."""
    return [*dialect.begin(*map(Text, texts)), *dialect.end(finish)]


class OpenAI:
    """Chat completions."""

    def begin(self, *said: Said) -> list[bytes]:
        """See Dialect."""
        index = -1
        events = [self._delta({"role": "assistant", "content": ""})]
        for each in said:
            match each:
                case Text(text):
                    events.append(self._delta({"content": text}))
                case Thought(text):
                    events.append(self._delta({"reasoning_content": text}))
                case Refusal(text):
                    events.append(self._delta({"refusal": text}))
                case Call(id_, name, pieces):
                    index += 1
                    first = {"index": index, "id": id_, "type": "function", "function": {"name": name, "arguments": ""}}
                    events.append(self._delta({"tool_calls": [first]}))
                    for piece in pieces:
                        part = {"index": index, "function": {"arguments": piece}}
                        events.append(self._delta({"tool_calls": [part]}))
        return events

    def end(self, finish: str = STOP, counts: Counts | None = None) -> list[bytes]:
        """See Dialect."""
        usage = {}
        if counts:
            usage = {
                "prompt_tokens": counts.read,
                "completion_tokens": counts.written,
                "total_tokens": counts.read + counts.written,
                "prompt_tokens_details": {"cached_tokens": counts.cached},
                "completion_tokens_details": {"reasoning_tokens": counts.reasoned},
            }
        told = [sse({**self._ENVELOPE, "choices": [], "usage": usage})] if counts else []
        return [self._delta({}, finish), *told, sse(b"[DONE]")]

    def error(self) -> bytes:
        """See Dialect."""
        return sse({"error": {"message": "canary-provider-words", "type": "server_error", "code": 500}})

    _ENVELOPE = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}  # noqa: RUF012

    def _delta(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        return sse({**self._ENVELOPE, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def _named(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\n".encode() + sse(event)


class Anthropic:
    """Messages."""

    def begin(self, *said: Said) -> list[bytes]:
        """See Dialect."""
        message: dict[str, Any] = {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
            "stop_sequence": None, "usage": {"input_tokens": 7, "output_tokens": 1},
        }  # fmt: skip
        events = [_named({"type": "message_start", "message": message}), _named({"type": "ping"})]
        for index, (block, deltas) in enumerate(self._blocks(said)):
            events.append(_named({"type": "content_block_start", "index": index, "content_block": block}))
            events += [_named({"type": "content_block_delta", "index": index, "delta": delta}) for delta in deltas]
            events.append(_named({"type": "content_block_stop", "index": index}))
        return events

    def end(self, finish: str = STOP, counts: Counts | None = None) -> list[bytes]:
        """See Dialect."""
        stop = {STOP: "end_turn", LENGTH: "max_tokens", TOOL_CALLS: "tool_use"}.get(finish, finish)
        usage: dict[str, Any] = {"output_tokens": 5}
        if counts:
            usage = {
                "input_tokens": counts.read - counts.cached - 1,
                "cache_read_input_tokens": counts.cached,
                "cache_creation_input_tokens": 1,
                "output_tokens": counts.written,
                "output_tokens_details": {"thinking_tokens": counts.reasoned},
            }
        delta = {"stop_reason": stop, "stop_sequence": None}
        return [_named({"type": "message_delta", "delta": delta, "usage": usage}), _named({"type": "message_stop"})]

    def error(self) -> bytes:
        """See Dialect."""
        error = {"type": "overloaded_error", "message": "canary-provider-words"}
        return _named({"type": "error", "error": error})

    def _blocks(self, said: Sequence[Said]) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        texts: list[str] = []
        for each in (*said, None):
            if isinstance(each, Text | Refusal):
                texts.append(each.text)
                continue
            if texts:
                yield {"type": "text", "text": ""}, [{"type": "text_delta", "text": text} for text in texts]
                texts = []
            match each:
                case Thought(text):
                    signature = {"type": "signature_delta", "signature": "s"}
                    deltas = [{"type": "thinking_delta", "thinking": text}, signature]
                    yield {"type": "thinking", "thinking": "", "signature": ""}, deltas
                case Call(id_, name, pieces):
                    block = {"type": "tool_use", "id": id_, "name": name, "input": {}}
                    yield block, [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces)]


class Cohere:
    """Chat, version 2."""

    def begin(self, *said: Said) -> list[bytes]:
        """See Dialect."""
        start = {"id": "1", "type": "message-start", "delta": {"message": {"role": "assistant", "content": []}}}
        return [_named(start), *(event for index, each in enumerate(said) for event in self._events(index, each))]

    def end(self, finish: str = STOP, counts: Counts | None = None) -> list[bytes]:
        """See Dialect."""
        reason = {STOP: "COMPLETE", LENGTH: "MAX_TOKENS", TOOL_CALLS: "TOOL_CALL"}.get(finish, finish)
        delta: dict[str, Any] = {"finish_reason": reason}
        if counts:
            units = {"input_tokens": float(counts.read), "output_tokens": float(counts.written)}
            more = {"input_tokens": counts.read + 400.0, "output_tokens": counts.written + 9.0}
            delta["usage"] = {"billed_units": units, "tokens": more, "cached_tokens": float(counts.cached)}
        return [_named({"type": "message-end", "id": "1", "delta": delta}), sse(b"[DONE]")]

    def error(self) -> bytes:
        """See Dialect."""
        return _named({"type": "message-end", "delta": {"finish_reason": "ERROR", "error": "canary-provider-words"}})

    def _events(self, index: int, said: Said) -> list[bytes]:
        match said:
            case Call(id_, name, pieces):
                call = {"id": id_, "type": "function", "function": {"name": name, "arguments": ""}}
                parts = [
                    self._message("tool-call-delta", index, tool_calls={"function": {"arguments": piece}})
                    for piece in pieces
                ]
                end = _named({"type": "tool-call-end", "index": index})
                return [self._message("tool-call-start", index, tool_calls=call), *parts, end]
            case Thought(text):
                kind, content = "thinking", {"thinking": text}
            case Text(text) | Refusal(text):
                kind, content = "text", {"text": text}
        return [
            self._message("content-start", index, content={"type": kind, kind: ""}),
            self._message("content-delta", index, content=content),
            _named({"type": "content-end", "index": index}),
        ]

    def _message(self, type_: str, index: int, **message: Any) -> bytes:
        return _named({"type": type_, "index": index, "delta": {"message": message}})


def reply(said: Said) -> str:
    """What a model that is offered tools by schema says in JSON."""
    match said:
        case Call(_, name, pieces):
            return f'{{"tool": {json.dumps(name)}, "arguments": {"".join(pieces) or "{}"}}}'
    return json.dumps({"answer": said.text}, ensure_ascii=False)
