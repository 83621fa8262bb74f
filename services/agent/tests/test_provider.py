"""Every provider, in every mood, over its wire format: one suite for all of them."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from typing import Any

import anthropic
import cohere
import httpx
import openai
import pytest
import stamina
from loremesh_agent import prompts
from loremesh_agent.adapters.memory import ScriptedProvider
from loremesh_agent.adapters.prices import load
from loremesh_agent.adapters.providers import Endpoint, Providers
from loremesh_agent.domain.agents import ModelProfile, Window
from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.events import FinishReason
from loremesh_agent.domain.prompts import Attachment, PromptMessage
from loremesh_agent.domain.tools import Effect, ToolCall, ToolSpec
from loremesh_agent.engine.asking import Patience, PatientProvider
from loremesh_agent.errors import AttachmentUnsupported, ProviderError
from loremesh_agent.ports import (
    ModelEvent,
    ModelFinish,
    ModelProgress,
    ModelProvider,
    ModelRequest,
    ModelText,
    ModelToolCall,
)
from loremesh_agent.testing.dialects import (
    FILTERED,
    LENGTH,
    STOP,
    TOOL_CALLS,
    Anthropic,
    Call,
    Cohere,
    Counts,
    Dialect,
    OpenAI,
    Refusal,
    Said,
    Text,
    Thought,
    answer,
)
from loremesh_agent.testing.http import Cut, ProviderDouble, Reply, Step, Wait, provider_double, sse
from pydantic import SecretStr

pytestmark = pytest.mark.conformance

KEY = "sk-canary-key"
# Long, for busy machines; where a limit is to be met it is made short.
PATIENCE = Patience(first_token=30, idle=30, total=90, attempts=3)
BUSY = Reply(429, headers=(("retry-after", "0.05"),))
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
SPECS = (
    ToolSpec(name="weather", description="Tells it.", input_schema=SCHEMA, effect=Effect.READ_ONLY),
    ToolSpec(name="clock", description="The time.", input_schema={"type": "object"}, effect=Effect.READ_ONLY),
)
PROFILE = ModelProfile(
    model="openai/m",
    wording=prompts.load("full"),
    window=Window(context_tokens=4096, prompt_tokens=2048),
    max_output_tokens=99,
    top_k=4,
)


@dataclass(frozen=True)
class Wire:
    """A provider and its double."""

    name: str
    provider: str
    dialect: Dialect
    double: ProviderDouble
    bare: Providers

    @property
    def model(self) -> str:
        return f"{self.provider}/m"

    def request(self, *messages: PromptMessage, **fields: Any) -> ModelRequest:
        asked = messages or (PromptMessage("system", "Be brief."), PromptMessage("user", "canary-prompt"))
        return ModelRequest(model=self.model, messages=asked, max_output_tokens=7, **fields)

    def patient(self, patience: Patience = PATIENCE) -> PatientProvider:
        return PatientProvider(provider=self.bare, patience=patience)

    def play(self, *scripts: Sequence[Step]) -> None:
        self.double.scripts = list(scripts)


DIALECTS: dict[str, tuple[str, type[Dialect], str]] = {
    "openai": ("openai", OpenAI, "/v1"),
    "compatible": ("openai", OpenAI, "/v1"),
    "anthropic": ("anthropic", Anthropic, ""),
    "cohere": ("cohere", Cohere, ""),
    "local": ("local", OpenAI, "/v1"),
}
CALLING = pytest.mark.parametrize("wire", ["openai", "compatible", "anthropic", "cohere"], indirect=True)


@pytest.fixture(autouse=True)
def _no_pauses() -> Any:
    with stamina.set_testing(True, attempts=PATIENCE.attempts, cap=True):
        yield


@pytest.fixture(params=list(DIALECTS))
async def wire(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Wire]:
    provider, dialect, path = DIALECTS[request.param]
    async with AsyncExitStack() as stack:
        double = await stack.enter_async_context(provider_double())
        url = double.url + path
        if request.param == "openai":
            monkeypatch.setattr("loremesh_agent.adapters.openai._OWN", url)
            url = ""
        bare = await stack.enter_async_context(opened(provider, url))
        yield Wire(request.param, provider, dialect(), double, bare)


def opened(provider: str, url: str, key: str = KEY) -> Any:
    return Providers.open(
        [Endpoint(provider=provider, base_url=url, api_key=SecretStr(key))],
        connect_seconds=1,
        default=PROFILE,
        profiles={provider: PROFILE},
        prices=load(""),
    )


async def events_of(provider: ModelProvider, request: ModelRequest) -> list[ModelEvent]:
    return [event async for event in provider.stream(request)]


async def failure_of(wire: Wire, patience: Patience = PATIENCE, **fields: Any) -> tuple[ProviderError, str]:
    """What it ends with, and the text before; a provider's words, keys and prompts are in neither."""
    pieces: list[str] = []

    async def listen() -> None:
        async for event in wire.patient(patience).stream(wire.request(**fields)):
            match event:
                case ModelText(text):
                    pieces.append(text)

    with pytest.raises(ProviderError) as failed:
        await listen()
    error = failed.value
    assert "canary" not in f"{error} {error.metadata} {error.__cause__}"
    assert error.metadata["provider"] == wire.provider
    assert error.metadata["model"] == "m"
    return error, "".join(pieces)


def text_of(events: Sequence[ModelEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, ModelText))


def finish_of(events: Sequence[ModelEvent]) -> FinishReason:
    assert [isinstance(event, ModelFinish) for event in events].count(True) == 1
    last = events[-1]
    assert isinstance(last, ModelFinish)
    return last.reason


def calls_of(events: Sequence[ModelEvent]) -> list[ToolCall]:
    return [event.call for event in events if isinstance(event, ModelToolCall)]


async def said(wire: Wire, *parts: Said, finish: str = STOP, **fields: Any) -> list[ModelEvent]:
    """What is heard of what a model says."""
    wire.play([*wire.dialect.begin(*parts), *wire.dialect.end(finish)])
    return await events_of(wire.patient(), wire.request(**fields))


async def test_an_answer_comes_piece_by_piece_and_ends_once(wire: Wire) -> None:
    wire.play(
        [
            *wire.dialect.begin(Text("The "), Text("light"), Text(" ประภาคาร 😀\u2028")),
            *wire.dialect.end(STOP, Counts()),
        ]
    )
    events = await events_of(wire.patient(), wire.request())
    assert events[:-1] == [ModelText("The "), ModelText("light"), ModelText(" ประภาคาร 😀\u2028")]
    reasoned = 0 if wire.provider == "cohere" else 2
    usage = Usage(input_tokens=11, output_tokens=5, cached_input_tokens=4, reasoning_tokens=reasoned)
    assert events[-1] == ModelFinish(reason=FinishReason.STOP, usage=usage)
    # The fake beside it plays the same.
    assert (
        await events_of(PatientProvider(provider=ScriptedProvider(events), patience=PATIENCE), wire.request()) == events
    )


_SAMPLED: dict[str, Any] = {"temperature": 0.5, "stop": ["\n\n"], "stream_options": {"include_usage": True}}
ASKED: dict[str, dict[str, Any]] = {
    "openai": {"max_completion_tokens": 7, **_SAMPLED},
    "compatible": {"max_tokens": 7, **_SAMPLED},
    "local": {"max_tokens": 7, **_SAMPLED},
    "anthropic": {"max_tokens": 7, "system": "Be brief."},
    "cohere": {"max_tokens": 7, "temperature": 0.5, "stop_sequences": ["\n\n"]},
}


async def test_the_request_is_what_was_asked_for(wire: Wire) -> None:
    wire.play(answer(wire.dialect, "a"))
    await events_of(wire.patient(), wire.request(temperature=0.5, stop=("\n\n",)))
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "canary-prompt"}]
    if wire.name == "anthropic":
        messages = [{"role": "user", "content": [{"type": "text", "text": "canary-prompt"}]}]  # type: ignore[dict-item]
    asked = {"model": "m", "messages": messages, "stream": True, **ASKED[wire.name]}
    assert wire.double.requests == [asked]
    assert wire.double.headers[0]["authorization"] == f"Bearer {KEY}"
    paths = {"anthropic": "/v1/messages", "cohere": "/v2/chat"}
    assert wire.double.paths == [paths.get(wire.name, "/v1/chat/completions")]


async def test_the_double_speaks_as_the_providers_own_sdk_expects() -> None:
    said_ = Thought("Hm."), Text("Let me see."), PARALLEL[0]
    async with provider_double() as double:
        double.scripts = [[*OpenAI().begin(*said_), *OpenAI().end(TOOL_CALLS, Counts())]]
        async with openai.AsyncOpenAI(api_key="k", base_url=f"{double.url}/v1", max_retries=0) as client:
            messages: Any = [{"role": "user", "content": "?"}]
            async with client.chat.completions.stream(model="m", messages=messages) as stream:
                whole = (await stream.get_final_completion()).choices[0]
        assert (whole.message.content, whole.finish_reason) == ("Let me see.", "tool_calls")
        assert [call.function.arguments for call in whole.message.tool_calls or ()] == ['{"city": "Genoa"}']
        double.scripts = [[*Anthropic().begin(*said_), *Anthropic().end(TOOL_CALLS, Counts())]]
        async with (
            anthropic.AsyncAnthropic(api_key="k", base_url=double.url, max_retries=0) as asking,
            asking.messages.stream(model="m", messages=messages, max_tokens=9) as answering,
        ):
            message = await answering.get_final_message()
        assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
        assert (message.stop_reason, message.usage.output_tokens) == ("tool_use", 5)
        assert message.content[-1].to_dict()["input"] == {"city": "Genoa"}
        double.scripts = [[*Cohere().begin(*said_), *Cohere().end(TOOL_CALLS, Counts())]]
        async with httpx.AsyncClient() as http:
            cohered = cohere.AsyncClientV2(api_key="k", base_url=double.url, httpx_client=http)
            events = [event async for event in cohered.chat_stream(model="m", messages=messages)]
        kinds = ["message-start", *["content-start", "content-delta", "content-end"] * 2]
        assert [event.type for event in events] == [
            *kinds,
            "tool-call-start",
            *["tool-call-delta"] * 3,
            "tool-call-end",
            "message-end",
        ]


async def test_connections_are_used_again(wire: Wire) -> None:
    wire.play(answer(wire.dialect, "a"))
    for _ in range(3):
        await events_of(wire.patient(), wire.request())
    # The local model's server closes what it promised to keep.
    assert wire.double.connections == (3 if wire.name == "local" else 1)


@pytest.mark.parametrize(("finish", "reason"), [(STOP, FinishReason.STOP), (LENGTH, FinishReason.LENGTH)])
async def test_how_it_ended_is_told(wire: Wire, finish: str, reason: FinishReason) -> None:
    assert finish_of(await said(wire, Text("a"), finish=finish)) is reason


@pytest.mark.parametrize(
    ("wire", "finish", "reason"),
    [
        ("openai", FILTERED, FinishReason.CONTENT_FILTER),
        ("openai", "eos", FinishReason.STOP),
        ("anthropic", "refusal", FinishReason.REFUSAL),
        ("anthropic", "model_context_window_exceeded", FinishReason.LENGTH),
        ("anthropic", "stop_sequence", FinishReason.STOP),
        ("cohere", "ERROR_TOXIC", FinishReason.CONTENT_FILTER),
        ("cohere", "STOP_SEQUENCE", FinishReason.STOP),
    ],
    indirect=["wire"],
)
async def test_each_has_its_own_ways_to_end(wire: Wire, finish: str, reason: FinishReason) -> None:
    assert finish_of(await said(wire, Text("a"), finish=finish)) is reason


@pytest.mark.parametrize("wire", ["openai", "compatible"], indirect=True)
async def test_a_refusal_is_told_from_an_answer_and_from_a_safety_stop(wire: Wire) -> None:
    events = await said(wire, Refusal("I will "), Refusal("not."))
    assert (text_of(events), finish_of(events)) == ("I will not.", FinishReason.REFUSAL)
    filtered = Reply(400, body=json.dumps({"error": {"message": "canary", "code": "content_filter"}}))
    wire.play([filtered])
    assert await events_of(wire.patient(), wire.request()) == [ModelFinish(reason=FinishReason.CONTENT_FILTER)]


PARALLEL = (
    Call("c1", "weather", ('{"ci', 'ty": "Ge', 'noa"}')),
    Call("c2", "weather", ('{"city": "Turin"}',)),
    Call("c3", "clock"),
)


@CALLING
async def test_parallel_tool_calls_are_put_together(wire: Wire) -> None:
    events = await said(wire, Text("Let me see."), *PARALLEL, finish=TOOL_CALLS, tools=SPECS)
    assert text_of(events) == "Let me see."
    assert calls_of(events) == [
        ToolCall(id="c1", name="weather", arguments='{"city": "Genoa"}'),
        ToolCall(id="c2", name="weather", arguments='{"city": "Turin"}'),
        ToolCall(id="c3", name="clock", arguments="{}"),
    ]
    assert finish_of(events) is FinishReason.TOOL_CALLS


@CALLING
@pytest.mark.parametrize("finish", [STOP, TOOL_CALLS])
async def test_wrong_arguments_and_unknown_tools_are_passed_on_as_they_are(wire: Wire, finish: str) -> None:
    parts = Call("c1", "weather", ('{"city": ',)), Call("c2", "nobody_knows", ("[1, 2]",))
    events = await said(wire, *parts, finish=finish, tools=SPECS)
    assert [(call.name, call.arguments) for call in calls_of(events)] == [
        ("weather", '{"city":'),
        ("nobody_knows", "[1, 2]"),
    ]
    assert finish_of(events) is FinishReason.TOOL_CALLS


@CALLING
async def test_ids_of_calls_are_unique_whatever_the_provider_says(wire: Wire) -> None:
    events = await said(wire, Call("", "clock"), Call("same", "clock"), Call("same", "weather"), finish=TOOL_CALLS)
    ids = [call.id for call in calls_of(events)]
    assert len(set(ids)) == len(ids) or wire.provider == "openai"
    assert all(ids)


@CALLING
async def test_calls_cut_by_a_limit_are_not_made(wire: Wire) -> None:
    events = await said(wire, Text("a"), Call("c1", "weather", ('{"city": "Ge',)), finish=LENGTH, tools=SPECS)
    assert (calls_of(events), finish_of(events)) == ([], FinishReason.LENGTH)


@CALLING
async def test_tools_calls_and_results_are_told_in_the_providers_form(wire: Wire) -> None:
    calls = (
        ToolCall(id="c1", name="weather", arguments='{"city": "Genoa"}'),
        ToolCall(id="c2", name="clock", arguments="x"),
    )
    messages = (
        PromptMessage("user", "Weather?"),
        PromptMessage("assistant", "Let me see.", tool_calls=calls),
        PromptMessage("tool", "sun", tool_call_id="c1"),
        PromptMessage("tool", "noon", tool_call_id="c2"),
    )
    wire.play(answer(wire.dialect, "a"))
    await events_of(wire.patient(), wire.request(*messages, tools=SPECS))
    (request,) = wire.double.requests
    if wire.name == "anthropic":
        assert request["tools"][0] == {"name": "weather", "description": "Tells it.", "input_schema": SCHEMA}
        assert request["messages"][1:] == [
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Let me see."},
                    {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Genoa"}},
                    {"type": "tool_use", "id": "c2", "name": "clock", "input": {"arguments": "x"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": "sun"},
                    {"type": "tool_result", "tool_use_id": "c2", "content": "noon"},
                ],
            },
        ]
        return
    function = {"name": "weather", "description": "Tells it.", "parameters": SCHEMA}
    assert request["tools"][0] == {"type": "function", "function": function}
    called, *results = request["messages"][1:]
    assert called["tool_plan" if wire.name == "cohere" else "content"] == "Let me see."
    assert [call["function"] for call in called["tool_calls"]] == [
        {"name": call.name, "arguments": call.arguments} for call in calls
    ]
    assert results == [
        {"role": "tool", "tool_call_id": "c1", "content": "sun"},
        {"role": "tool", "tool_call_id": "c2", "content": "noon"},
    ]


@pytest.mark.parametrize("wire", ["anthropic"], indirect=True)
async def test_thoughts_go_back_with_the_calls_they_led_to(wire: Wire) -> None:
    events = await said(wire, Thought("Hm."), Text("Let me see."), *PARALLEL[:1], finish=TOOL_CALLS, tools=SPECS)
    turn = PromptMessage("assistant", "Let me see.", tool_calls=tuple(calls_of(events)))
    wire.play(answer(wire.dialect, "a"))
    await events_of(wire.patient(), wire.request(PromptMessage("user", "?"), turn))
    assert wire.double.requests[-1]["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Genoa"}},
    ]


async def test_an_answer_by_schema_is_asked_for_in_the_providers_form(wire: Wire) -> None:
    wire.play(answer(wire.dialect, '{"city": "Genoa"}'))
    assert text_of(await events_of(wire.patient(), wire.request(response_schema=SCHEMA))) == '{"city": "Genoa"}'
    (request,) = wire.double.requests
    match wire.name:
        case "anthropic":
            assert request["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
        case "cohere":
            assert request["response_format"] == {"type": "json_object", "json_schema": SCHEMA}
            assert '"city"' in request["messages"][0]["content"]
        case _:
            form = {"name": "answer", "schema": SCHEMA, "strict": True}
            assert request["response_format"] == {"type": "json_schema", "json_schema": form}


@pytest.mark.parametrize("wire", ["openai"], indirect=True)
async def test_a_schema_that_leaves_things_open_is_not_called_strict(wire: Wire) -> None:
    wire.play(answer(wire.dialect, "{}"))
    await events_of(wire.patient(), wire.request(response_schema={**SCHEMA, "required": []}))
    assert "strict" not in wire.double.requests[0]["response_format"]["json_schema"]


PNG = Attachment("image/png", b"\x89PNG", "a.png")
PDF = Attachment("application/pdf", b"%PDF-1.7", "a.pdf")
ODD = Attachment("application/x-odd", b"?")


async def test_attachments_go_where_they_are_taken(wire: Wire) -> None:
    wire.play(answer(wire.dialect, "a"))
    taken = {"anthropic": [PNG, PDF], "cohere": [PNG], "local": []}.get(wire.name, [PNG, PDF])
    for attachment in (PNG, PDF, ODD):
        asked = events_of(wire.patient(), wire.request(PromptMessage("user", "What?", attachments=(attachment,))))
        if attachment in taken:
            await asked
        else:
            with pytest.raises(AttachmentUnsupported) as refused:
                await asked
            assert refused.value.metadata == {"media_type": attachment.media_type, "model": wire.model}
    parts = [request["messages"][0]["content"] for request in wire.double.requests]
    assert [len(content) for content in parts] == [2] * len(taken)
    assert all("iVBO" in json.dumps(content) for content in parts[:1])
    assert all("JVBERi0xLjc=" in json.dumps(content) for content in parts[1:])


@pytest.mark.parametrize(
    ("wire", "model", "sampled"),
    [
        ("openai", "gpt-5-mini", False),
        ("openai", "o3", False),
        ("openai", "gpt-4.1", True),
        ("compatible", "gpt-5-mini", True),
        ("anthropic", "claude-haiku-4-5", True),
        ("anthropic", "claude-sonnet-4-6-20260101", True),
        ("anthropic", "claude-opus-4-8", False),
        ("anthropic", "claude-sonnet-5-5", False),
    ],
    indirect=["wire"],
)
async def test_models_that_take_no_sampling_are_not_given_any(wire: Wire, model: str, sampled: bool) -> None:
    wire.play(answer(wire.dialect, "a"))
    request = replace(wire.request(temperature=0.5), model=f"{wire.provider}/{model}")
    await events_of(wire.patient(), request)
    assert wire.double.requests[0]["model"] == model
    assert wire.double.requests[0].get("temperature") == (0.5 if sampled else None)


def ended(wire: Wire) -> list[Step]:
    """An answer that has just become whole."""
    return [*wire.dialect.begin(Text("a")), wire.dialect.end()[0]]


@pytest.mark.parametrize(
    "after",
    [
        pytest.param([], id="nothing"),
        pytest.param([Cut()], id="cut"),
        pytest.param([Wait(5)], id="hanging"),
        pytest.param([sse(b"{garbage")], id="garbage"),
    ],
)
async def test_an_answer_that_is_whole_is_whatever_follows(wire: Wire, after: Sequence[Step]) -> None:
    wire.play([*ended(wire), *after])
    events = await events_of(wire.patient(), wire.request())
    assert (text_of(events), finish_of(events)) == ("a", FinishReason.STOP)


DATE = "Sun, 22 Nov 2026 08:00:00 GMT"


def beginnings(wire: Wire) -> dict[str, Sequence[Step]]:
    """What goes wrong before anything of an answer is there."""
    start = wire.dialect.begin()
    return {
        "429 with Retry-After": [BUSY],
        "429": [Reply(429)],
        "429 that is no JSON": [Reply(429, body="canary: slow down")],
        "500": [Reply(500)],
        "503 with a date": [Reply(503, headers=(("retry-after", DATE), ("date", DATE)))],
        "529": [Reply(529, body="overloaded")],
        "200 with an error event": [wire.dialect.error()],
        "error event after the start": [*start, wire.dialect.error()],
        "garbage": [sse(b"{garbage")],
        "JSON of another kind": [sse(b"[1, 2]")],
        "cut at once": [Cut()],
        "cut before the first token": [*start, Cut()],
        "ended at once": [sse(b"[DONE]")],
        "empty answer": [*start, *wire.dialect.end()],
        "cut amid the arguments of a call": [*wire.dialect.begin(*PARALLEL)[:5], Cut()],
        "tools that are not named": [*start, *wire.dialect.end(TOOL_CALLS)],
    }


async def test_what_fails_before_the_first_token_is_tried_again(wire: Wire) -> None:
    for name, first in beginnings(wire).items():
        wire.double.requests.clear()
        wire.play(first, answer(wire.dialect, "a"))
        assert text_of(await events_of(wire.patient(), wire.request())) == "a", name
        assert len(wire.double.requests) == 2, name


async def test_what_fails_again_and_again_is_given_up(wire: Wire) -> None:
    reasons = {"ended at once": "PROVIDER_STREAM_CUT"}
    for name, script in beginnings(wire).items():
        wire.double.requests.clear()
        wire.play(script)
        error, text = await failure_of(wire)
        expected = reasons.get(name, "PROVIDER_RATE_LIMITED" if name.startswith("429") else "PROVIDER_UNAVAILABLE")
        assert (error.reason, text, len(wire.double.requests)) == (expected, "", PATIENCE.attempts), name
        assert error.retryable


async def test_a_refusal_is_final(wire: Wire) -> None:
    used_up = {"type": "billing_error", "code": "insufficient_quota", "message": "canary"}
    replies = [
        Reply(400),
        Reply(401, body=json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}})),
        Reply(402),
        Reply(403),
        Reply(404),
        Reply(422, body="not even JSON canary"),
        Reply(302, headers=(("location", "http://127.0.0.1:1/canary"),)),
        *([] if wire.name == "cohere" else [Reply(429, body=json.dumps({"type": "error", "error": used_up}))]),
    ]
    for reply in replies:
        wire.double.requests.clear()
        wire.play([reply])
        error, _ = await failure_of(wire)
        assert (error.reason, len(wire.double.requests), error.retryable) == ("PROVIDER_REFUSED", 1, False), reply


@pytest.mark.parametrize("status", [429, 503, 529])
@pytest.mark.parametrize("value", ["60", "Sun, 22 Nov 2026 08:01:00 GMT"])
async def test_a_long_pause_is_told_and_not_waited_for(wire: Wire, value: str, status: int) -> None:
    headers = (("retry-after", value), ("date", "Sun, 22 Nov 2026 08:00:00 GMT"))
    wire.play([Reply(status, headers=headers)])
    error, _ = await failure_of(wire)
    reason = "PROVIDER_RATE_LIMITED" if status == 429 else "PROVIDER_UNAVAILABLE"
    assert (error.reason, error.retry_after, len(wire.double.requests)) == (reason, 60, 1)


def ends(wire: Wire) -> list[list[Step]]:
    return [
        [Cut()],
        [],
        [sse(b"[DONE]")],
        [wire.dialect.error()],
        [sse(b"{garbage")],
        [b"data: " + b"x" * (2 << 20)],
    ]


async def test_a_stream_cut_after_any_event_is_never_whole(wire: Wire) -> None:
    words = ("one", " two", " three")
    whole = wire.dialect.begin(*map(Text, words))
    for kept in range(len(whole) + 1):
        for end in ends(wire) if kept == len(whole) else ends(wire)[:1]:
            wire.double.requests.clear()
            wire.play([*whole[:kept], *end])
            error, text = await failure_of(wire)
            told = [word for word in words if any(word.encode() in event for event in whole[:kept])]
            assert text == "".join(told)
            if told:
                assert (error.reason, len(wire.double.requests)) == ("PROVIDER_STREAM_CUT", 1)


async def test_a_stream_cut_after_any_byte_is_never_whole(wire: Wire) -> None:
    whole = b"".join([*wire.dialect.begin(Text("one"), Text(" two")), *wire.dialect.end()[:1]])
    for kept in range(1, len(whole) - 2, 17):
        wire.play([whole[:kept], Cut()])
        error, text = await failure_of(wire, replace(PATIENCE, attempts=1))
        assert text in {"", "one", "one two"}
        assert error.reason == ("PROVIDER_STREAM_CUT" if text else "PROVIDER_UNAVAILABLE")


async def test_slowness_has_its_limits(wire: Wire) -> None:
    begun: list[Step] = [*wire.dialect.begin(Text("a"))]
    drip = [step for byte in wire.dialect.begin(Text("b"))[-1] for step in (bytes([byte]), Wait(0.1))]
    cases = {
        "silence": ([Wait(60)], replace(PATIENCE, first_token=0.3), "first_token"),
        "only comments": ([*[b": keep-alive\n\n", Wait(0.1)] * 600], replace(PATIENCE, first_token=0.5), "first_token"),
        "silence amid": ([*begun, Wait(60)], replace(PATIENCE, idle=0.3), "idle"),
        "drip": ([*begun, *drip], replace(PATIENCE, idle=0.5), "idle"),
        "for ever": ([*begun, Wait(0.1)] * 600, replace(PATIENCE, total=1.5), "total"),
    }
    for name, (script, patience, limit) in cases.items():
        wire.double.requests.clear()
        wire.double.left.clear()
        wire.play(script)
        error, _ = await failure_of(wire, patience)
        assert (error.reason, error.metadata["limit"], len(wire.double.requests)) == ("PROVIDER_TIMEOUT", limit, 1), (
            name
        )
        async with asyncio.timeout(1):
            await wire.double.left.wait()


async def test_a_model_that_thinks_shows_that_it_lives(wire: Wire) -> None:
    wire.play([*wire.dialect.begin(Thought("Hm."), Text("a")), *wire.dialect.end()])
    events = [event async for event in wire.bare.stream(wire.request())]
    assert events[0] == ModelProgress()
    assert text_of([event for event in events if not isinstance(event, ModelProgress)]) == "a"


async def test_leaving_closes_the_connection_within_a_second(wire: Wire) -> None:
    wire.play([*wire.dialect.begin(Text("a")), Wait(30)])
    async with aclosing(wire.patient().stream(wire.request())) as events:
        assert await anext(events) == ModelText("a")
    async with asyncio.timeout(1):
        await wire.double.left.wait()


async def test_cancelling_closes_the_connection_within_a_second(wire: Wire) -> None:
    wire.play([*wire.dialect.begin(), Wait(30)])
    asking = asyncio.ensure_future(events_of(wire.patient(), wire.request()))
    async with asyncio.timeout(10):
        while not wire.double.requests:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    asking.cancel()
    async with asyncio.timeout(1):
        await wire.double.left.wait()
    with pytest.raises(asyncio.CancelledError):
        await asking


@pytest.mark.parametrize("provider", ["openai", "anthropic", "cohere", "local"])
async def test_nobody_listening_is_unavailable(provider: str) -> None:
    async with opened(provider, "http://127.0.0.1:1") as bare:
        wire = Wire(provider, provider, OpenAI(), ProviderDouble(), bare)
        error, _ = await failure_of(wire)
    assert error.reason == "PROVIDER_UNAVAILABLE"


@pytest.mark.parametrize("wire", ["compatible", "anthropic", "cohere"], indirect=True)
async def test_neither_proxies_nor_keys_of_the_environment_are_used(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CO_API_KEY", "COHERE_API_KEY"):
        monkeypatch.setenv(name, "sk-of-somebody-else")
    path = DIALECTS[wire.name][2]
    wire.play(answer(wire.dialect, "a"))
    async with opened(wire.provider, wire.double.url + path, key="") as bare:
        assert text_of(await events_of(PatientProvider(provider=bare, patience=PATIENCE), wire.request())) == "a"
    assert "sk-of-somebody-else" not in str(wire.double.headers)


async def test_logs_tell_neither_words_nor_keys(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    wire.play([Reply(500)], [wire.dialect.error()], answer(wire.dialect, "canary-answer"))
    await events_of(wire.patient(), wire.request())
    assert "canary" not in caplog.text
