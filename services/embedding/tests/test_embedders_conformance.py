"""Every dense embedder keeps one promise: the local weights, the providers' adapters, and the fake."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import numpy as np
import pytest
from loremesh_embedding.adapters import cohere, openai
from loremesh_embedding.adapters.local import LocalEmbedder
from loremesh_embedding.adapters.memory import MemoryEmbedder
from loremesh_embedding.adapters.minilm import MiniLm
from loremesh_embedding.adapters.providers import Patience
from loremesh_embedding.batcher import Batcher
from loremesh_embedding.domain.models import Purpose, Task
from loremesh_embedding.ports import DenseEmbedder

pytestmark = pytest.mark.conformance

DIMENSION = 64
WINDOW = 256


async def _open(name: str, stack: AsyncExitStack, *, url: str, patience: Patience, minilm: MiniLm) -> DenseEmbedder:
    model = {"id_": "a-model", "dimension": DIMENSION, "max_input_tokens": WINDOW}
    match name:
        case "local":
            batcher = Batcher(forward=minilm.forward, workers=2, budget=512, limit=1000)
            return LocalEmbedder(minilm=minilm, batcher=await stack.enter_async_context(batcher))
        case "openai":
            client = openai.connect(api_key="k", base_url=f"{url}/v1", patience=patience)
            return openai.OpenAiEmbedder(client=await stack.enter_async_context(client), patience=patience, **model)
        case "cohere":
            other = cohere.connect(api_key="k", base_url=url, patience=patience)
            return cohere.CohereEmbedder(client=await stack.enter_async_context(other), patience=patience, **model)
    return MemoryEmbedder(dimension=DIMENSION)


@pytest.fixture(params=["local", "openai", "cohere", "memory"])
async def embedder(request, provider, patience: Patience, minilm: MiniLm) -> AsyncIterator[DenseEmbedder]:
    async with AsyncExitStack() as stack:
        yield await _open(request.param, stack, url=provider.url, patience=patience, minilm=minilm)


async def test_vectors_are_of_unit_length_and_of_the_models_dimension(embedder: DenseEmbedder):
    embedded = await embedder.embed(["a wing", "the tail of an aircraft"], purpose=Purpose.DOCUMENT)
    assert embedded.values.shape == (2, embedder.model.dimension)
    assert embedded.values.dtype == np.float32
    assert np.linalg.norm(embedded.values, axis=1) == pytest.approx(1, abs=1e-5)
    assert embedder.model.task is Task.DENSE


async def test_vectors_are_in_the_order_of_the_texts_however_many_and_however_long(embedder: DenseEmbedder):
    texts = [f"{' '.join(['wing'] * (n % 7))} number {n}" for n in range(150)]
    together = await embedder.embed(texts, purpose=Purpose.DOCUMENT)
    for place in (0, 1, 77, 130, 149):
        alone = await embedder.embed([texts[place]], purpose=Purpose.DOCUMENT)
        assert together.values[place] == pytest.approx(alone.values[0], abs=1e-4)
    assert len(together.values) == len(together.truncated) == 150


async def test_texts_about_the_same_are_closer_than_others(embedder: DenseEmbedder):
    texts = ["lift of a wing", "the wing gives lift", "bread and butter"]
    wing, lift, bread = (await embedder.embed(texts, purpose=Purpose.DOCUMENT)).values
    assert wing @ lift > wing @ bread + 0.2


async def test_a_question_is_close_to_its_answer(embedder: DenseEmbedder):
    (question,) = (await embedder.embed(["what gives a wing lift"], purpose=Purpose.QUERY)).values
    texts = ["bread and butter", "lift on a wing"]
    bread, lift = (await embedder.embed(texts, purpose=Purpose.DOCUMENT)).values
    assert question @ lift > question @ bread


async def test_only_a_text_longer_than_the_window_is_truncated(embedder: DenseEmbedder):
    embedded = await embedder.embed(["wing", "wing " * WINDOW * 4, "tail"], purpose=Purpose.DOCUMENT)
    assert list(embedded.truncated) == [False, True, False]


async def test_the_end_of_a_truncated_text_does_not_count(embedder: DenseEmbedder):
    texts = ["wing " * WINDOW * 4 + end for end in ("bread", "butter")]
    first, second = (await embedder.embed(texts, purpose=Purpose.DOCUMENT)).values
    assert first == pytest.approx(second, abs=1e-5)


async def test_tokens_are_counted(embedder: DenseEmbedder):
    short = await embedder.embed(["a wing"], purpose=Purpose.DOCUMENT)
    long = await embedder.embed(["a wing of an aircraft", "and its tail"], purpose=Purpose.DOCUMENT)
    assert 0 < short.input_tokens < long.input_tokens


async def test_any_script_and_emoji_are_texts(embedder: DenseEmbedder):
    embedded = await embedder.embed(["แมวกินปลา", "猫", "👩‍👩‍👧", "\u200b"], purpose=Purpose.DOCUMENT)
    assert np.isfinite(embedded.values).all()


async def test_callers_at_the_same_time_get_their_own_vectors(embedder: DenseEmbedder):
    texts = [f"wing number {n} " * (n + 1) for n in range(12)]
    expected = await embedder.embed(texts, purpose=Purpose.DOCUMENT)
    purposes = [Purpose.QUERY, Purpose.DOCUMENT]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(embedder.embed([text], purpose=purposes[n % 2])) for n, text in enumerate(texts)]
    for place, task in enumerate(tasks):
        assert task.result().values[0] == pytest.approx(expected.values[place], abs=1e-4)
