"""What becomes of a provider's failures, over the wire formats that providers speak."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import stamina
from loremesh_embedding.adapters import cohere, openai
from loremesh_embedding.adapters.providers import Patience
from loremesh_embedding.domain.models import Purpose
from loremesh_embedding.errors import DimensionMismatch, ProviderRefused, ProviderUnavailable
from loremesh_kit import deadline
from loremesh_kit.errors import ServiceError

pytestmark = pytest.mark.conformance

TEXT = "canary text of a document"
Ask = Callable[[], Awaitable[object]]


async def _open(name: str, stack: AsyncExitStack, *, url: str, key: str, patience: Patience) -> Ask:
    if name == "openai":
        connecting = openai.connect(api_key=key, base_url=f"{url}/v1", patience=patience)
        client = await stack.enter_async_context(connecting)
        embedder = openai.OpenAiEmbedder(client=client, patience=patience, id_="m", dimension=64)
        return lambda: embedder.embed([TEXT], purpose=Purpose.DOCUMENT)
    connected = await stack.enter_async_context(cohere.connect(api_key=key, base_url=url, patience=patience))
    if name == "cohere":
        other = cohere.CohereEmbedder(client=connected, patience=patience, id_="m", dimension=64)
        return lambda: other.embed([TEXT], purpose=Purpose.DOCUMENT)
    reranker = cohere.CohereReranker(client=connected, patience=patience, id_="m")
    return lambda: reranker.score("a question", [TEXT])


KINDS = ["openai", "cohere", "cohere-rerank"]


@pytest.fixture(params=KINDS)
async def ask(request, provider, key: str, patience: Patience) -> AsyncIterator[Ask]:
    async with AsyncExitStack() as stack:
        yield await _open(request.param, stack, url=provider.url, key=key, patience=patience)


@pytest.fixture
def no_waiting():
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_a_refusal_is_not_tried_again(ask: Ask, provider, reply, status: int):
    provider.script = [reply(status)]
    with pytest.raises(ProviderRefused) as refused:
        await ask()
    assert refused.value.metadata["status"] == str(status)
    assert not refused.value.retryable
    assert len(provider.requests) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
async def test_a_passing_failure_is_tried_again(ask: Ask, provider, reply, no_waiting, status: int):
    provider.script = [reply(status), reply(status)]
    await ask()
    assert len(provider.requests) == 3


async def test_a_lasting_failure_is_given_up_after_the_last_attempt(ask: Ask, provider, reply, no_waiting):
    provider.script = [reply(503)] * 9
    with pytest.raises(ProviderUnavailable) as given_up:
        await ask()
    assert given_up.value.metadata["status"] == "503"
    assert given_up.value.retryable
    assert len(provider.requests) == 3


async def test_the_wait_a_provider_asks_for_is_kept(ask: Ask, provider, reply):
    provider.script = [reply(429, headers={"Retry-After": "0.7"})]
    await ask()
    first, second = provider.times
    assert second - first >= 0.7


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_a_wait_too_long_is_handed_on_to_the_caller(ask: Ask, provider, reply, form: str):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=120), usegmt=True)
    provider.script = [reply(429, headers={"Retry-After": "120" if form == "seconds" else date})]
    with pytest.raises(ProviderUnavailable) as given_up:
        await ask()
    assert given_up.value.retry_after == pytest.approx(120, abs=60)
    assert len(provider.requests) == 1


async def test_waits_end_with_the_callers_deadline(ask: Ask, provider, reply):
    provider.script = [reply(delay=5)]
    with deadline.scope(0.3), pytest.raises(ProviderUnavailable) as given_up:
        await ask()
    assert given_up.value.metadata["status"] == "timeout"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b"null", b'"text"', b"<html>", b'{"data": null}', b'{"results": [{"index": 5}]}'],
)
async def test_an_answer_in_another_shape_may_pass(ask: Ask, provider, reply, no_waiting, body: bytes):
    provider.script = [reply(200, body)] * 3
    with pytest.raises(ProviderUnavailable):
        await ask()
    assert len(provider.requests) == 3


@pytest.mark.parametrize("name", KINDS)
async def test_an_unreachable_provider_is_unavailable(name: str, patience: Patience, no_waiting, unused_tcp_port: int):
    async with AsyncExitStack() as stack:
        url = f"http://127.0.0.1:{unused_tcp_port}"
        ask = await _open(name, stack, url=url, key="k", patience=patience)
        with pytest.raises(ProviderUnavailable) as given_up:
            await ask()
    assert given_up.value.metadata["status"] == "connection"


@pytest.mark.parametrize("name", KINDS)
async def test_a_hanging_provider_is_left_after_the_attempts_time(name: str, provider, reply, no_waiting):
    provider.script = [reply(delay=5)] * 3
    impatient = Patience(attempts=3, connect=1, attempt=0.1, total=10)
    async with AsyncExitStack() as stack, asyncio.timeout(3):
        ask = await _open(name, stack, url=provider.url, key="k", patience=impatient)
        with pytest.raises(ProviderUnavailable) as given_up:
            await ask()
    assert given_up.value.metadata["status"] == "timeout"
    assert len(provider.requests) == 3


def _openai_rows(*rows: list[object]) -> bytes:
    data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
    return json.dumps({"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 1}}).encode()


def _cohere_rows(*rows: list[object]) -> bytes:
    return json.dumps({"id": "1", "embeddings": {"float": list(rows)}, "texts": []}).encode()


ROWS = {"openai": _openai_rows, "cohere": _cohere_rows}


@pytest.mark.parametrize("name", ROWS)
async def test_vectors_of_another_dimension_are_refused(name: str, provider, reply, patience: Patience):
    provider.script = [reply(200, ROWS[name]([0.5] * 63))]
    async with AsyncExitStack() as stack:
        ask = await _open(name, stack, url=provider.url, key="k", patience=patience)
        with pytest.raises(DimensionMismatch) as refused:
            await ask()
    assert refused.value.metadata == {"model": "m", "expected": "64", "actual": "63"}
    assert len(provider.requests) == 1


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize(
    "rows",
    [[], [[0.5] * 64] * 2, [[float("nan")] * 64], [["x"] * 64], [[None] * 64]],
    ids=["none", "too many", "not a number", "words", "nulls"],
)
async def test_vectors_that_are_none_are_malformed(name: str, rows, provider, reply, patience: Patience, no_waiting):
    provider.script = [reply(200, ROWS[name](*rows))] * 3
    async with AsyncExitStack() as stack:
        ask = await _open(name, stack, url=provider.url, key="k", patience=patience)
        with pytest.raises(ProviderUnavailable) as given_up:
            await ask()
    assert given_up.value.metadata["status"] == "malformed"


async def test_a_used_up_quota_is_a_refusal(provider, reply, key: str, patience: Patience):
    provider.script = [reply(429, b'{"error": {"message": "m", "code": "insufficient_quota"}}')]
    async with AsyncExitStack() as stack:
        ask = await _open("openai", stack, url=provider.url, key=key, patience=patience)
        with pytest.raises(ProviderRefused):
            await ask()


async def test_the_key_is_sent_and_said_nowhere_else(ask: Ask, provider, reply, key: str, no_waiting, caplog):
    caplog.set_level(logging.DEBUG)
    for logger in ("httpx", "httpx2", "httpcore", "httpcore2"):
        caplog.set_level(logging.WARNING, logger=logger)  # as the kit sets them
    provider.script = [reply(503), reply(401)]
    with pytest.raises(ServiceError) as refused:
        await ask()
    assert provider.requests[0][1]["authorization"] == f"Bearer {key}"
    shown = f"{refused.value!r} {refused.value.message} {refused.value.metadata} {caplog.text}"
    assert "canary" not in shown
    assert refused.value.__suppress_context__


async def test_cohere_is_told_what_texts_are_for(provider, patience: Patience):
    async with cohere.connect(api_key="k", base_url=provider.url, patience=patience) as client:
        embedder = cohere.CohereEmbedder(client=client, patience=patience, id_="m", dimension=64)
        await embedder.embed(["a"], purpose=Purpose.QUERY)
        await embedder.embed(["a"], purpose=Purpose.DOCUMENT)
    assert [body["input_type"] for _, _, body in provider.requests] == ["search_query", "search_document"]


async def test_no_request_is_larger_than_a_provider_takes(provider, patience: Patience):
    async with openai.connect(api_key="k", base_url=f"{provider.url}/v1", patience=patience) as client:
        embedder = openai.OpenAiEmbedder(client=client, patience=patience, id_="m", dimension=64)
        await embedder.embed(["a"] * 300 + ["wing " * 20_000] * 5, purpose=Purpose.DOCUMENT)
    sizes = [(len(body["input"]), sum(map(len, body["input"]))) for _, _, body in provider.requests]
    assert sum(count for count, _ in sizes) == 305
    assert all(count <= 128 and characters <= 250_000 for count, characters in sizes)
