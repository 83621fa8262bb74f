"""Every reranker keeps one promise: the local one, Cohere's, and the fake."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from loremesh_embedding.adapters import cohere
from loremesh_embedding.adapters.local import LocalReranker
from loremesh_embedding.adapters.memory import MemoryReranker
from loremesh_embedding.adapters.minilm import MiniLm
from loremesh_embedding.adapters.providers import Patience
from loremesh_embedding.batcher import Batcher
from loremesh_embedding.domain.models import Task
from loremesh_embedding.ports import Reranker

pytestmark = pytest.mark.conformance


async def _open(name: str, stack: AsyncExitStack, *, url: str, patience: Patience, minilm: MiniLm) -> Reranker:
    match name:
        case "local":
            batcher = Batcher(forward=minilm.forward, workers=2, budget=512, limit=1000)
            return LocalReranker(minilm=minilm, batcher=await stack.enter_async_context(batcher))
        case "cohere":
            client = cohere.connect(api_key="k", base_url=url, patience=patience)
            connected = await stack.enter_async_context(client)
            return cohere.CohereReranker(client=connected, patience=patience, id_="a-model")
    return MemoryReranker()


@pytest.fixture(params=["local", "cohere", "memory"])
async def reranker(request, provider, patience: Patience, minilm: MiniLm) -> AsyncIterator[Reranker]:
    async with AsyncExitStack() as stack:
        yield await _open(request.param, stack, url=provider.url, patience=patience, minilm=minilm)


async def test_the_document_that_answers_scores_highest_wherever_it_stands(reranker: Reranker):
    documents = ["bread and butter", "the lift of a wing", "a tax return"]
    for turn in range(3):
        turned = documents[turn:] + documents[:turn]
        scores = await reranker.score("lift of a wing", turned)
        assert scores.index(max(scores)) == turned.index("the lift of a wing")


async def test_there_is_one_score_per_document_the_same_for_the_same(reranker: Reranker):
    scores = await reranker.score("wing", ["a wing"] * 60 + ["bread"])
    assert len(scores) == 61
    assert scores[:60] == pytest.approx([scores[0]] * 60, abs=1e-4)


async def test_long_documents_are_scored_too(reranker: Reranker):
    (score,) = await reranker.score("wing", ["a wing " * 5000])
    assert score > 0
    assert reranker.model.task is Task.RERANK
