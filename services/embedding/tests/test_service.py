"""The service in this process, as its callers see it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc import aio
from grpc_status import rpc_status
from loremesh.embedding.v1 import embedding_pb2 as pb
from loremesh.embedding.v1.embedding_pb2_grpc import EmbeddingServiceStub
from loremesh_embedding.main import wire
from loremesh_embedding.settings import EmbeddingSettings
from loremesh_kit import testing

pytestmark = pytest.mark.steelthread


@pytest.fixture
async def stub(provider, key: str) -> AsyncIterator[Any]:
    settings = EmbeddingSettings(
        drain_seconds=0,
        workers=2,
        openai_api_key=key,
        openai_base_url=f"{provider.url}/v1",
        openai_models="remote:64,wrong:63",
        cohere_api_key=key,
        cohere_base_url=provider.url,
        provider_attempts=1,
    )
    async with wire(settings) as wired, testing.serving(wired, service="embedding", settings=settings) as channel:
        with testing.caller():
            yield EmbeddingServiceStub(channel)


def refusal(error: aio.AioRpcError) -> tuple[grpc.StatusCode, str, dict[str, str], list[str]]:
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    status = rpc_status.from_call(error)
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
    assert info.domain == "embedding.loremesh.dev"
    return error.code(), info.reason, dict(info.metadata), [violation.field for violation in bad.field_violations]


async def refused(call: Any) -> tuple[grpc.StatusCode, str, dict[str, str], list[str]]:
    with pytest.raises(aio.AioRpcError) as raised:
        await call
    return refusal(raised.value)


async def test_dense_and_sparse_vectors_come_together(stub: Any):
    response = await stub.Embed(pb.EmbedRequest(texts=["the lift of wings", "แมว"], sparse_model="bm25"))
    assert (response.model, response.dimension, response.sparse_model) == ("minilm-l6-int8", 384, "bm25")
    assert [len(each.dense) for each in response.embeddings] == [384, 384]
    assert [len(each.sparse.indices) for each in response.embeddings] == [2, 2]
    assert [len(each.sparse.values) for each in response.embeddings] == [2, 2]
    assert np.linalg.norm(response.embeddings[0].dense) == pytest.approx(1, abs=1e-5)
    assert response.input_tokens > 0
    assert not response.embeddings[0].truncated


async def test_sparse_vectors_come_alone_when_dense_ones_are_not_wanted(stub: Any):
    response = await stub.Embed(
        pb.EmbedRequest(model="none", texts=["lift", "of"], sparse_model="bm25", input_type=pb.INPUT_TYPE_QUERY)
    )
    assert (response.model, response.dimension, response.input_tokens) == ("", 0, 0)
    lift, stopped = response.embeddings
    assert not lift.dense
    assert list(lift.sparse.values) == [1]
    assert stopped.HasField("sparse")
    assert not stopped.sparse.indices


async def test_remote_models_are_used_by_name(stub: Any):
    response = await stub.Embed(pb.EmbedRequest(model="remote", texts=["a wing"]))
    assert (response.model, response.dimension, len(response.embeddings[0].dense)) == ("remote", 64, 64)


async def test_models_are_listed_defaults_first(stub: Any):
    models = (await stub.ListModels(pb.ListModelsRequest())).models
    assert [(model.id, model.provider, model.default) for model in models] == [
        ("minilm-l6-int8", "local", True),
        ("remote", "openai", False),
        ("wrong", "openai", False),
        ("embed-v4.0", "cohere", False),
        ("bm25", "local", True),
        ("minilm-l6-maxsim", "local", True),
        ("rerank-v3.5", "cohere", False),
    ]
    assert (models[0].task, models[0].dimension, models[0].max_input_tokens) == (pb.MODEL_TASK_DENSE, 384, 256)


@pytest.mark.parametrize("model", ["", "rerank-v3.5"])
async def test_reranking_is_best_first(stub: Any, model: str):
    documents = ["bread and butter", "the lift of a wing", "a wing"]
    request = pb.RerankRequest(model=model, query="lift of a wing", documents=documents, top_k=2)
    response = await stub.Rerank(request)
    assert [result.index for result in response.results] == [1, 2]
    assert response.results[0].score > response.results[1].score


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        (pb.EmbedRequest(texts=["a", " "]), "TEXT_EMPTY", "texts[1]"),
        (pb.EmbedRequest(texts=[]), "INVALID_FIELD", "texts"),
        (pb.EmbedRequest(texts=["a"] * 513), "INVALID_FIELD", "texts"),
        (pb.EmbedRequest(texts=["a" * 100_001]), "INVALID_FIELD", "texts[0]"),
        (pb.EmbedRequest(texts=["a"], model="none"), "INVALID_FIELD", "sparse_model"),
        (pb.EmbedRequest(texts=["a"], model="bm25"), "MODEL_TASK_UNSUPPORTED", "model"),
        (pb.EmbedRequest(texts=["a"], sparse_model="minilm-l6-int8"), "MODEL_TASK_UNSUPPORTED", "sparse_model"),
        (pb.RerankRequest(query="q", documents=["a"], top_k=0), "TOP_K_OUT_OF_RANGE", "top_k"),
        (pb.RerankRequest(query="q", documents=["a"], top_k=1_000_000), "TOP_K_OUT_OF_RANGE", "top_k"),
        (pb.RerankRequest(query=" ", documents=["a"]), "TEXT_EMPTY", "query"),
    ],
)
async def test_bad_input_is_told_its_reason_and_field(stub: Any, request_: Any, reason: str, field: str):
    method = stub.Embed if isinstance(request_, pb.EmbedRequest) else stub.Rerank
    assert await refused(method(request_)) == (grpc.StatusCode.INVALID_ARGUMENT, reason, *_details(request_, field))


def _details(request: Any, field: str) -> tuple[dict[str, str], list[str]]:
    named = getattr(request, field, "") if field in ("model", "sparse_model") else ""
    task = {"model": "dense", "sparse_model": "sparse"}.get(field, "")
    return ({"model": named, "task": task} if named else {}), [field]


async def test_an_unknown_model_is_not_found(stub: Any):
    code, reason, metadata, _ = await refused(stub.Embed(pb.EmbedRequest(texts=["a"], model="x")))
    assert (code, reason, metadata) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", {"model": "x"})


async def test_a_dimension_that_is_not_the_models_is_refused(stub: Any):
    code, reason, metadata, _ = await refused(stub.Embed(pb.EmbedRequest(texts=["a"], model="wrong")))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "DIMENSION_MISMATCH")
    assert metadata == {"model": "wrong", "expected": "63", "actual": "64"}


async def test_a_wrong_key_is_a_failed_precondition(stub: Any, provider, reply):
    provider.script = [reply(401)]
    code, reason, metadata, _ = await refused(stub.Embed(pb.EmbedRequest(texts=["a"], model="remote")))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PROVIDER_FAILED")
    assert metadata == {"model": "remote", "provider": "openai", "status": "401"}


async def test_a_cancelled_call_frees_the_threads_for_others(stub: Any):
    given_up = stub.Embed(pb.EmbedRequest(texts=["wing " * 300] * 300))
    await asyncio.sleep(0.3)
    given_up.cancel()
    async with asyncio.timeout(5):
        await stub.Embed(pb.EmbedRequest(texts=["wing " * 300]))
