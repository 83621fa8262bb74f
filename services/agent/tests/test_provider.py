"""Every provider, in every mood: over the wire format where it has one, and the fake beside it."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace

import pytest
from loremesh_agent.adapters.memory import ScriptedProvider
from loremesh_agent.adapters.openai import OpenAIProvider
from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.events import FinishReason
from loremesh_agent.domain.prompts import PromptMessage
from loremesh_agent.engine.asking import Patience, PatientProvider
from loremesh_agent.errors import ProviderError
from loremesh_agent.ports import ModelEvent, ModelFinish, ModelProvider, ModelRequest, ModelText

from .openai_double import DONE, Cut, OpenAIDouble, Reply, Step, Wait, answer, chunk, openai_double, sse

pytestmark = pytest.mark.conformance

KEY = "sk-canary-key"
REQUEST = ModelRequest(
    model="m",
    messages=(PromptMessage("system", "Be brief."), PromptMessage("user", "canary-prompt")),
    max_output_tokens=7,
    temperature=0.5,
    stop=("\n\n",),
)
# Long, for busy machines; where a limit is to be met it is made short.
PATIENCE = Patience(first_token=30, idle=30, total=90, attempts=3)
BUSY = Reply(429, headers=(("retry-after", "0.05"),))


@pytest.fixture
async def double() -> AsyncIterator[OpenAIDouble]:
    async with openai_double() as double:
        yield double


@pytest.fixture
async def bare(double: OpenAIDouble) -> AsyncIterator[OpenAIProvider]:
    async with OpenAIProvider.open(name="openai", base_url=double.url, api_key=KEY, connect_seconds=1) as provider:
        yield provider


@pytest.fixture
def provider(bare: OpenAIProvider) -> PatientProvider:
    return PatientProvider(provider=bare, patience=PATIENCE)


async def events_of(provider: ModelProvider, request: ModelRequest = REQUEST) -> list[ModelEvent]:
    return [event async for event in provider.stream(request)]


async def failure_of(provider: ModelProvider) -> tuple[ProviderError, str]:
    """What it ends with, and the text before; a provider's words, keys and prompts are in neither."""
    pieces: list[str] = []

    async def listen() -> None:
        async for event in provider.stream(REQUEST):
            match event:
                case ModelText(text):
                    pieces.append(text)

    with pytest.raises(ProviderError) as failed:
        await listen()
    error = failed.value
    assert "canary" not in f"{error} {error.metadata} {error.__cause__}"
    assert error.metadata["provider"] == "openai"
    assert error.metadata["model"] == "m"
    return error, "".join(pieces)


async def test_an_answer_comes_piece_by_piece_and_ends_once(double: OpenAIDouble, provider: PatientProvider) -> None:
    double.scripts = [answer("The ", "light", " ประภาคาร 😀\u2028")]
    finish = ModelFinish(reason=FinishReason.STOP, usage=Usage(input_tokens=11, output_tokens=2))
    said = [ModelText("The "), ModelText("light"), ModelText(" ประภาคาร 😀\u2028"), finish]
    assert await events_of(provider) == said
    # The fake beside it plays the same.
    assert await events_of(PatientProvider(provider=ScriptedProvider(said), patience=PATIENCE)) == said


async def test_the_request_is_what_was_asked_for(double: OpenAIDouble, provider: PatientProvider) -> None:
    double.scripts = [answer("a")]
    await events_of(provider)
    assert double.headers[0]["authorization"] == f"Bearer {KEY}"
    assert double.requests[0] == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "canary-prompt"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 7,
        "temperature": 0.5,
        "stop": ["\n\n"],
    }


async def test_connections_are_used_again(double: OpenAIDouble, provider: PatientProvider) -> None:
    double.scripts = [answer("a")]
    for _ in range(3):
        await events_of(provider)
    assert double.connections == 1


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("stop", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("content_filter", FinishReason.CONTENT_FILTER),
        ("eos", FinishReason.STOP),
    ],
)
async def test_how_it_ended_is_told(
    double: OpenAIDouble, provider: PatientProvider, finish: str, reason: FinishReason
) -> None:
    double.scripts = [answer("a", finish=finish)]
    last = (await events_of(provider))[-1]
    assert isinstance(last, ModelFinish)
    assert last.reason is reason


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([chunk("a"), chunk(finish="stop"), DONE], id="without usage"),
        pytest.param([chunk("a"), chunk(finish="stop"), Cut()], id="cut after its end"),
        pytest.param([chunk("a"), chunk(finish="stop"), Wait(5)], id="hanging after its end"),
        pytest.param([chunk("a"), chunk(finish="stop"), sse(b"{garbage")], id="garbage after its end"),
    ],
)
async def test_an_answer_that_is_whole_is_whatever_follows(
    double: OpenAIDouble, provider: PatientProvider, script: Sequence[Step]
) -> None:
    double.scripts = [script]
    assert await events_of(provider) == [ModelText("a"), ModelFinish(reason=FinishReason.STOP)]


@pytest.mark.parametrize(
    "first",
    [
        pytest.param([BUSY], id="429 with Retry-After"),
        pytest.param([Reply(429)], id="429"),
        pytest.param([Reply(500)], id="500"),
        pytest.param([Reply(529, body="overloaded")], id="529"),
        pytest.param([sse({"error": {"message": "canary", "code": 500}})], id="200 with an error event"),
        pytest.param([sse(b"{garbage")], id="garbage"),
        pytest.param([sse(b"[1, 2]")], id="JSON of another kind"),
        pytest.param([Cut()], id="cut at once"),
        pytest.param([chunk(""), Cut()], id="cut before the first token"),
        pytest.param([DONE], id="ended at once"),
        pytest.param(answer(), id="empty answer"),
    ],
)
async def test_what_fails_before_the_first_token_is_tried_again(
    double: OpenAIDouble, provider: PatientProvider, first: Sequence[Step]
) -> None:
    double.scripts = [first, answer("a")]
    assert (await events_of(provider))[0] == ModelText("a")
    assert len(double.requests) == 2


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ([Reply(500)], "PROVIDER_UNAVAILABLE"),
        ([Reply(429)], "PROVIDER_UNAVAILABLE"),
        ([sse({"error": {"message": "canary"}})], "PROVIDER_UNAVAILABLE"),
        ([sse(b"{garbage")], "PROVIDER_UNAVAILABLE"),
        (answer(), "PROVIDER_UNAVAILABLE"),
        ([Cut()], "PROVIDER_UNAVAILABLE"),
        ([DONE], "PROVIDER_STREAM_CUT"),
    ],
)
async def test_what_fails_again_and_again_is_given_up(
    double: OpenAIDouble, provider: PatientProvider, script: Sequence[Step], reason: str
) -> None:
    double.scripts = [script]
    error, text = await failure_of(provider)
    assert (error.reason, text, len(double.requests)) == (reason, "", PATIENCE.attempts)
    assert error.retryable


@pytest.mark.parametrize(
    "reply",
    [
        Reply(400),
        Reply(401, body=json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}})),
        Reply(403),
        Reply(404),
        Reply(422, body="not even JSON canary"),
        Reply(429, body='{"error": {"message": "canary", "code": "insufficient_quota"}}'),
        Reply(302, headers=(("location", "http://127.0.0.1:1/canary"),)),
    ],
)
async def test_a_refusal_is_final(double: OpenAIDouble, provider: PatientProvider, reply: Reply) -> None:
    double.scripts = [[reply]]
    error, _ = await failure_of(provider)
    assert (error.reason, len(double.requests), error.retryable) == ("PROVIDER_REFUSED", 1, False)


@pytest.mark.parametrize("value", ["60", "Sun, 22 Nov 2026 08:01:00 GMT"])
async def test_a_long_pause_is_told_and_not_waited_for(
    double: OpenAIDouble, provider: PatientProvider, value: str
) -> None:
    headers = (("retry-after", value), ("date", "Sun, 22 Nov 2026 08:00:00 GMT"))
    double.scripts = [[Reply(429, headers=headers)]]
    error, _ = await failure_of(provider)
    assert (error.reason, error.retry_after, len(double.requests)) == ("PROVIDER_UNAVAILABLE", 60, 1)


DRIP = [step for byte in chunk("b") for step in (bytes([byte]), Wait(0.1))]
WHOLE = answer("one", " two", " three")


@pytest.mark.parametrize("kept", range(2, 5))
@pytest.mark.parametrize(
    "end",
    [
        pytest.param([Cut()], id="cut"),
        pytest.param([], id="ended"),
        pytest.param([DONE], id="done without an end"),
        pytest.param([sse({"error": {"message": "canary"}})], id="error event"),
        pytest.param([sse(b"{garbage")], id="garbage"),
        pytest.param([b"data: " + b"x" * (2 << 20)], id="flood"),
    ],
)
async def test_a_stream_cut_after_any_token_is_never_whole(
    double: OpenAIDouble, provider: PatientProvider, kept: int, end: list[Step]
) -> None:
    double.scripts = [[*WHOLE[:kept], *end]]
    error, text = await failure_of(provider)
    assert (error.reason, text, len(double.requests)) == (
        "PROVIDER_STREAM_CUT",
        "".join(["one", " two", " three"][: kept - 1]),
        1,
    )


@pytest.mark.parametrize(
    ("script", "patience", "limit"),
    [
        ([Wait(60)], replace(PATIENCE, first_token=0.3), "first_token"),
        ([chunk(""), *[b": keep-alive\n\n", Wait(0.1)] * 600], replace(PATIENCE, first_token=0.5), "first_token"),
        ([chunk("a"), Wait(60)], replace(PATIENCE, idle=0.3), "idle"),
        ([chunk("a"), *DRIP], replace(PATIENCE, idle=0.5), "idle"),
        ([chunk("a"), Wait(0.1)] * 600, replace(PATIENCE, total=2), "total"),
    ],
    ids=["silence", "only comments", "silence amid", "drip", "for ever"],
)  # fmt: skip
async def test_slowness_has_its_limits(
    double: OpenAIDouble, bare: OpenAIProvider, script: Sequence[Step], patience: Patience, limit: str
) -> None:
    double.scripts = [script]
    error, _ = await failure_of(PatientProvider(provider=bare, patience=patience))
    assert (error.reason, error.metadata["limit"], len(double.requests)) == ("PROVIDER_TIMEOUT", limit, 1)
    async with asyncio.timeout(1):
        await double.left.wait()


async def test_leaving_closes_the_connection_within_a_second(double: OpenAIDouble, provider: PatientProvider) -> None:
    double.scripts = [[chunk("a"), Wait(30)]]
    async with aclosing(provider.stream(REQUEST)) as events:
        assert await anext(events) == ModelText("a")
    async with asyncio.timeout(1):
        await double.left.wait()


async def test_nobody_listening_is_unavailable() -> None:
    async with OpenAIProvider.open(
        name="openai", base_url="http://127.0.0.1:1/v1", api_key="", connect_seconds=1
    ) as bare:
        error, _ = await failure_of(PatientProvider(provider=bare, patience=PATIENCE))
    assert error.reason == "PROVIDER_UNAVAILABLE"


async def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    double: OpenAIDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    double.scripts = [answer("a")]
    async with OpenAIProvider.open(name="local", base_url=double.url, api_key="", connect_seconds=1) as bare:
        assert (await events_of(bare))[0] == ModelText("a")
    assert "sk-of-somebody-else" not in str(double.headers)


async def test_logs_tell_neither_words_nor_keys(
    double: OpenAIDouble, provider: PatientProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    double.scripts = [[Reply(500)], answer("canary-answer")]
    await events_of(provider)
    assert "canary" not in caplog.text


async def test_openai_itself_is_told_the_limit_in_its_own_words() -> None:
    async with OpenAIProvider.open(name="openai", base_url="", api_key=KEY, connect_seconds=1) as provider:
        parameters = provider._parameters(REQUEST)
    assert parameters["max_completion_tokens"] == 7
    assert "max_tokens" not in parameters
