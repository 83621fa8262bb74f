"""The service as it runs, on its real engine, beside sister services played in this process."""

import asyncio
import contextvars
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from loremesh.common.v1 import filter_pb2
from loremesh.embedding.v1 import embedding_pb2, embedding_pb2_grpc
from loremesh.ingestion.v1 import document_pb2, document_pb2_grpc
from loremesh.retrieval.v1 import index_pb2, index_pb2_grpc, retrieval_pb2, retrieval_pb2_grpc
from loremesh_kit import identity
from loremesh_kit.channel import open_channel, reason_of
from loremesh_kit.errors import Code, ServiceError
from loremesh_kit.server import Servicer, Wired, serve
from loremesh_kit.settings import ServiceSettings
from loremesh_kit.testing import caller, serving
from loremesh_retrieval.adapters.embedding import EmbeddingClient
from loremesh_retrieval.adapters.memory_peers import HashingEmbedder
from loremesh_retrieval.domain.search import Branch
from loremesh_retrieval.errors import EmbeddingModelUnavailable
from loremesh_retrieval.main import wire
from loremesh_retrieval.settings import RetrievalSettings

pytestmark = pytest.mark.steelthread

MODEL = "hashing"
EMBEDDER = HashingEmbedder()
TEXTS = {
    "wing": "the wing of an aircraft gives lift",
    "tail": "the tail of an aircraft keeps it stable",
    "soup": "soup of pumpkin and ginger ฟักทอง 🎃",
}


class Refusal(ServiceError):
    """A refusal of a sister service."""

    def __init__(self, code, reason):
        self.code = code
        self.reason = reason
        super().__init__("refused")


class Embedding(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Hashes words; refuses when told to."""

    def __init__(self):
        self.refusal = None
        self.calls = []

    async def Embed(self, request, context):  # noqa: N802
        self.calls.append(request)
        if self.refusal:
            raise self.refusal
        embedding = embedding_pb2.Embedding()
        branches = [
            *([Branch.DENSE] if request.model != "none" else []),
            *([Branch.SPARSE] if request.sparse_model else []),
        ]
        vectors = await EMBEDDER.embed(request.model, request.texts[0], branches=branches)
        embedding.dense.extend(vectors.dense or ())
        if vectors.sparse:
            embedding.sparse.indices.extend(vectors.sparse.indices)
            embedding.sparse.values.extend(vectors.sparse.values)
        return embedding_pb2.EmbedResponse(model=request.model, embeddings=[embedding])

    async def Rerank(self, request, context):  # noqa: N802
        if request.model:
            raise Refusal(Code.NOT_FOUND, "MODEL_NOT_FOUND")
        scores = enumerate(await EMBEDDER.rerank(request.model, request.query, request.documents))
        best_first = sorted(scores, key=lambda each: -each[1])
        return embedding_pb2.RerankResponse(
            results=[embedding_pb2.RerankResult(index=index, score=score) for index, score in best_first]
        )

    async def ListModels(self, request, context):  # noqa: N802
        raise NotImplementedError


class Documents(document_pb2_grpc.DocumentServiceServicer):
    """Has the store `default` for every tenant and those it is given; everything written by `chunk` is live."""

    def __init__(self):
        self.models = {}
        self.versions = dict.fromkeys(TEXTS, 2)

    async def ResolveVersions(self, request, context):  # noqa: N802
        tenant, store = identity.current().tenant, request.vector_store_id
        model = MODEL if store == "default" else self.models.get((tenant, store))
        if model is None:
            raise Refusal(Code.NOT_FOUND, "VECTOR_STORE_NOT_FOUND")
        if request.generation > 2:
            raise Refusal(Code.NOT_FOUND, "GENERATION_NOT_FOUND")
        return document_pb2.ResolveVersionsResponse(
            generation=request.generation or 1,
            embedding_model=model,
            versions={each: self.versions[each] for each in request.document_ids if each in self.versions},
        )


class Mesh:
    """The service's stubs and its neighbours."""

    def __init__(self, channel, embedding_channel, embedding, documents):
        self.channel = channel
        self.embedding_channel = embedding_channel
        self.embedding = embedding
        self.documents = documents
        self.retrieval = retrieval_pb2_grpc.RetrievalServiceStub(channel)
        self.index = index_pb2_grpc.IndexServiceStub(channel)

    async def search(self, query="wing lift", **fields):
        found = await self.retrieval.Search(retrieval_pb2.SearchRequest(query=query, **fields))
        asked = fields.get("vector_store_id", "default"), fields.get("generation", 1)
        assert (found.vector_store_id, found.generation) == asked
        return found.results

    async def upsert(self, names=TEXTS, **fields):
        request = {"vector_store_id": "default", "embedding_model": MODEL, "dimension": EMBEDDER.dimension}
        chunks = [chunk(name) for name in names]
        return await self.index.UpsertChunks(index_pb2.UpsertChunksRequest(chunks=chunks, **{**request, **fields}))


def chunk(name, **fields):
    text = TEXTS[name]
    sparse = EMBEDDER.sparse(text)
    message = index_pb2.IndexedChunk(
        chunk_id=chunk_id(name),
        document_id=name,
        document_version=2,
        index=3,
        title=name.title(),
        content=text,
        page=4,
        start_char=5,
        end_char=5 + len(text),
        heading_path=["Part", name],
        dense=EMBEDDER.dense(text),
        sparse_indices=sparse.indices,
        sparse_values=sparse.values,
    )
    message.attributes.update({"name": name, "length": len(text), "tags": ["a", name], "none": None})
    for field, value in fields.items():
        message.ClearField(field)
        getattr(message, field).extend(value)
    return message


def chunk_id(name):
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


@pytest.fixture
async def mesh(tmp_path) -> AsyncIterator[Mesh]:
    embedding, documents = Embedding(), Documents()
    async with AsyncExitStack() as stack:
        targets = {}
        for name, add, servicer in [
            ("embedding", embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server, embedding),
            ("ingestion", document_pb2_grpc.add_DocumentServiceServicer_to_server, documents),
        ]:
            wired = Wired(servicers=[Servicer(add=add, servicer=servicer, name=f"loremesh.{name}")])
            running = await stack.enter_async_context(
                serve(wired, service=name, settings=ServiceSettings(drain_seconds=0))
            )
            targets[f"{name}_target"] = running.target
        settings = RetrievalSettings(data_dir=tmp_path, drain_seconds=0, probe_seconds=0.1, **targets)
        wired = await stack.enter_async_context(wire(settings))
        channel = await stack.enter_async_context(serving(wired, service="retrieval", settings=settings))
        neighbour = await stack.enter_async_context(open_channel(targets["embedding_target"]))
        with caller():
            yield Mesh(channel, neighbour, embedding, documents)


async def refused(call):
    with pytest.raises(aio.AioRpcError) as raised:
        await call
    return raised.value


def violated_field(error):
    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in rpc_status.from_call(error).details)
    return bad_request.field_violations[0].field


async def test_a_passage_is_found_with_all_it_takes_to_find_it_in_its_document(mesh):
    assert (await mesh.upsert()).upserted_count == 3
    best = (await mesh.search("ginger soup"))[0]
    assert best.score > 0
    best.ClearField("score")
    expected = retrieval_pb2.SearchResult(
        document_id="soup",
        chunk_id=chunk_id("soup"),
        title="Soup",
        content=TEXTS["soup"],
        page=4,
        start_char=5,
        end_char=5 + len(TEXTS["soup"]),
        heading_path=["Part", "soup"],
        document_version=2,
        vector_store_id="default",
    )
    expected.attributes.update({"name": "soup", "length": len(TEXTS["soup"]), "tags": ["a", "soup"], "none": None})
    assert best == expected


async def test_the_query_is_embedded_for_both_branches_and_searched_by_its_terms_meanwhile(mesh):
    await mesh.upsert()
    await mesh.search("wing")
    asked = mesh.embedding.calls
    assert sorted((each.model, each.sparse_model, *each.texts) for each in asked) == [
        (MODEL, "", "wing"),
        ("none", "bm25", "wing"),
    ]
    assert {each.input_type for each in asked} == {embedding_pb2.INPUT_TYPE_QUERY}


@pytest.mark.parametrize(
    ("mode", "model", "sparse_model"),
    [
        (retrieval_pb2.SEARCH_MODE_DENSE, MODEL, ""),
        (retrieval_pb2.SEARCH_MODE_SPARSE, "none", "bm25"),
    ],
)
async def test_a_branch_that_is_not_needed_is_not_embedded(mesh, mode, model, sparse_model):
    await mesh.upsert()
    assert (await mesh.search("wing", mode=mode))[0].document_id == "wing"
    assert [(asked.model, asked.sparse_model) for asked in mesh.embedding.calls] == [(model, sparse_model)]


async def test_unset_top_k_is_five_and_the_filter_counts(mesh):
    await mesh.upsert()
    assert len(await mesh.search("of")) == 3
    wanted = filter_pb2.Filter(eq=filter_pb2.Comparison(key="tags", value={"string_value": "tail"}))
    assert [result.document_id for result in await mesh.search("wing", filter=wanted)] == ["tail"]


async def test_reranked_scores_are_the_rerankers(mesh):
    await mesh.upsert()
    options = retrieval_pb2.RankingOptions(rerank=True, fusion=retrieval_pb2.FUSION_RRF)
    results = await mesh.search("stable tail", ranking_options=options)
    assert (results[0].document_id, results[0].score) == ("tail", 1.0)


async def test_explaining_names_stages_candidates_and_outcomes(mesh):
    await mesh.upsert()
    request = retrieval_pb2.ExplainSearchRequest(
        search=retrieval_pb2.SearchRequest(query="wing lift", top_k=1, score_threshold=0.1),
        chunk_ids=[chunk_id("tail"), chunk_id("nowhere"), "not a uuid"],
    )
    response = await mesh.retrieval.ExplainSearch(request)
    assert list(response.results) == list(await mesh.search("wing lift", top_k=1, score_threshold=0.1))
    assert [stage.name for stage in response.stages] == ["dense", "sparse", "fusion", "threshold", "top_k"]
    assert [candidate.rank for candidate in response.stages[0].candidates] == [1, 2, 3]
    assert response.stages[0].candidates[0].chunk_id == chunk_id("wing")
    assert response.stages[0].duration_ms > 0
    assert {each.chunk_id: each.outcome for each in response.chunks} == {
        chunk_id("wing"): retrieval_pb2.CHUNK_OUTCOME_RETURNED,
        chunk_id("tail"): retrieval_pb2.CHUNK_OUTCOME_BELOW_TOP_K,
        chunk_id("nowhere"): retrieval_pb2.CHUNK_OUTCOME_NOT_INDEXED,
        "not a uuid": retrieval_pb2.CHUNK_OUTCOME_NOT_INDEXED,
    }
    assert all(each.reason for each in response.chunks)


async def test_writing_counting_describing_and_deleting(mesh):
    await mesh.upsert()
    await mesh.upsert()
    scope = {"vector_store_id": "default", "embedding_model": MODEL}
    assert (await mesh.index.CountChunks(index_pb2.CountChunksRequest(**scope))).count == 3
    by_version = index_pb2.CountChunksRequest(document_id="wing", document_version=2, **scope)
    assert (await mesh.index.CountChunks(by_version)).count == 1
    update = index_pb2.UpdateDocumentAttributesRequest(document_id="wing", title="New", **scope)
    update.attributes.update({"lang": "en"})
    await mesh.index.UpdateDocumentAttributes(update)
    best = (await mesh.search("wing lift"))[0]
    assert (best.title, dict(best.attributes)) == ("New", {"lang": "en"})
    older = index_pb2.DeleteChunksRequest(document_id="wing", before_version=2, **scope)
    assert (await mesh.index.DeleteChunks(older)).deleted_count == 0
    assert (await mesh.index.DeleteChunks(index_pb2.DeleteChunksRequest(**scope))).deleted_count == 3
    assert await mesh.search("wing") == []


async def test_a_tenant_sees_nothing_of_another_though_all_ids_are_the_same(mesh):
    await mesh.upsert()
    scope = {"vector_store_id": "default", "embedding_model": MODEL}
    with caller(tenant="rival"):
        assert await mesh.search("wing") == []
        asked = retrieval_pb2.ExplainSearchRequest(
            search=retrieval_pb2.SearchRequest(query="wing"), chunk_ids=[chunk_id("wing")]
        )
        (explained,) = (await mesh.retrieval.ExplainSearch(asked)).chunks
        assert explained.outcome == retrieval_pb2.CHUNK_OUTCOME_NOT_INDEXED
        assert (await mesh.index.CountChunks(index_pb2.CountChunksRequest(**scope))).count == 0
        assert (await mesh.index.DeleteChunks(index_pb2.DeleteChunksRequest(**scope))).deleted_count == 0
        await mesh.upsert(["wing"])
        update = index_pb2.UpdateDocumentAttributesRequest(document_id="wing", title="Theirs", **scope)
        await mesh.index.UpdateDocumentAttributes(update)
        assert (await mesh.index.DeleteChunks(index_pb2.DeleteChunksRequest(**scope))).deleted_count == 1
    assert [result.title for result in await mesh.search("wing lift")] == ["Wing", "Tail", "Soup"]


async def test_a_removed_store_is_gone_at_once(mesh):
    mesh.documents.models["acme", "manuals"] = MODEL
    await mesh.upsert(vector_store_id="manuals")
    assert await mesh.search(vector_store_id="manuals")
    assert (await refused_as_rival(mesh, "manuals")) == "VECTOR_STORE_NOT_FOUND"
    mesh.documents.models.clear()
    await mesh.index.DeleteChunks(index_pb2.DeleteChunksRequest(vector_store_id="manuals", embedding_model=MODEL))
    error = await refused(mesh.search(vector_store_id="manuals"))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.NOT_FOUND, "VECTOR_STORE_NOT_FOUND")


async def test_generations_are_written_searched_and_listed_apart(mesh):
    await mesh.upsert()
    await mesh.upsert(["soup"], generation=2)
    assert [each.document_id for each in await mesh.search("soup", generation=2)] == ["soup"]
    assert len(await mesh.search("soup")) == len(await mesh.search("soup", generation=1)) == 3
    assert reason_of(await refused(mesh.search("soup", generation=3))) == "GENERATION_NOT_FOUND"
    scope = {"vector_store_id": "default", "embedding_model": MODEL, "generation": 2}
    asked = index_pb2.ListIndexedVersionsRequest(**scope)
    listed = [each async for part in mesh.index.ListIndexedVersions(asked) for each in part.versions]
    assert listed == [index_pb2.IndexedVersion(document_id="soup", document_version=2, chunk_count=1)]
    wanted = index_pb2.GetChunkVectorsRequest(chunk_ids=[chunk_id("soup").upper(), chunk_id("wing")], **scope)
    (vectors,) = (await mesh.index.GetChunkVectors(wanted)).vectors
    assert vectors.chunk_id == chunk_id("soup")
    assert list(vectors.dense) == pytest.approx(EMBEDDER.dense(TEXTS["soup"]))
    assert list(vectors.sparse_indices) == EMBEDDER.sparse(TEXTS["soup"]).indices
    assert (await mesh.index.DeleteChunks(index_pb2.DeleteChunksRequest(**scope))).deleted_count == 1
    assert len(await mesh.search("soup")) == 3


async def test_comparing_generations_shows_both_answers_and_what_they_share(mesh):
    await mesh.upsert(["wing", "tail"])
    await mesh.upsert(["wing", "soup"], generation=2)
    request = retrieval_pb2.CompareGenerationsRequest(
        vector_store_id="default", generation=2, queries=["wing", "tail"], top_k=2
    )
    response = await mesh.retrieval.CompareGenerations(request)
    first = response.comparisons[0]
    assert {each.document_id for each in first.live} == {"wing", "tail"}
    assert {each.document_id for each in first.other} == {"wing", "soup"}
    assert first.overlap == response.mean_overlap == pytest.approx(1 / 3)
    request.generation = 7
    assert reason_of(await refused(mesh.retrieval.CompareGenerations(request))) == "GENERATION_NOT_FOUND"


async def test_what_ingestion_does_not_confirm_is_not_returned_and_is_explained(mesh):
    await mesh.upsert()
    del mesh.documents.versions["wing"]
    mesh.documents.versions["tail"] = 3
    assert [each.document_id for each in await mesh.search("wing")] == ["soup"]
    asked = retrieval_pb2.ExplainSearchRequest(
        search=retrieval_pb2.SearchRequest(query="wing"), chunk_ids=[chunk_id("wing")]
    )
    outcomes = {each.chunk_id: each for each in (await mesh.retrieval.ExplainSearch(asked)).chunks}
    assert outcomes[chunk_id("wing")].outcome == retrieval_pb2.CHUNK_OUTCOME_NOT_LIVE
    assert "not live" in outcomes[chunk_id("wing")].reason.lower()


async def refused_as_rival(mesh, store):
    with caller(tenant="rival"):
        return reason_of(await refused(mesh.search(vector_store_id=store)))


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"query": ""}, "QUERY_EMPTY", "query"),
        ({"query": " \t"}, "QUERY_EMPTY", "query"),
        ({"query": "\u3000"}, "QUERY_EMPTY", "query"),
        ({"query": "x" * 8001}, "INVALID_FIELD", "query"),
        ({"top_k": 0}, "TOP_K_OUT_OF_RANGE", "top_k"),
        ({"top_k": 1_000_000}, "TOP_K_OUT_OF_RANGE", "top_k"),
        ({"score_threshold": float("nan")}, "SCORE_THRESHOLD_INVALID", "score_threshold"),
        ({"mode": 99}, "INVALID_FIELD", "mode"),
        (
            {"filter": filter_pb2.Filter(gt=filter_pb2.Comparison(key="k", value={"string_value": "soon"}))},
            "FILTER_INVALID",
            "filter.gt.value",
        ),
    ],
)
async def test_bad_input_is_refused_with_its_reason_and_field(mesh, fields, reason, field):
    error = await refused(mesh.search(**{"query": "x", **fields}))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert violated_field(error) == field


async def test_a_call_without_a_tenant_is_refused(mesh):
    error = await refused(contextvars.Context().run(mesh.retrieval.Search, retrieval_pb2.SearchRequest(query="x")))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAUTHENTICATED, "IDENTITY_MISSING")


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [
        ([chunk("wing", dense=[1.0])], "DIMENSION_MISMATCH"),
        ([chunk("wing", dense=[float("nan")] * EMBEDDER.dimension)], "INVALID_FIELD"),
        ([chunk("wing", sparse_indices=[2, 1], sparse_values=[1, 1])], "INVALID_FIELD"),
        ([chunk("wing", sparse_indices=[1, 1], sparse_values=[1, 1])], "INVALID_FIELD"),
        ([chunk("wing", sparse_indices=[1], sparse_values=[])], "INVALID_FIELD"),
        ([chunk("wing"), index_pb2.IndexedChunk(chunk_id="no uuid")], "INVALID_FIELD"),
        ([], "INVALID_FIELD"),
    ],
)
async def test_chunks_that_cannot_be_indexed_are_refused_and_none_is_written(mesh, chunks, reason):
    request = index_pb2.UpsertChunksRequest(
        vector_store_id="default", embedding_model=MODEL, dimension=EMBEDDER.dimension, chunks=chunks
    )
    assert reason_of(await refused(mesh.index.UpsertChunks(request))) == reason
    assert await mesh.search("wing") == []


async def test_attributes_no_index_can_hold_are_refused(mesh):
    message = chunk("wing")
    message.attributes["n"] = float("inf")
    request = index_pb2.UpsertChunksRequest(
        vector_store_id="default", embedding_model=MODEL, dimension=EMBEDDER.dimension, chunks=[message]
    )
    error = await refused(mesh.index.UpsertChunks(request))
    assert (reason_of(error), violated_field(error)) == ("ATTRIBUTES_INVALID", "chunks[0].attributes")


async def test_a_model_of_another_dimension_is_refused(mesh):
    await mesh.upsert()
    request = index_pb2.UpsertChunksRequest(
        vector_store_id="default", embedding_model=MODEL, dimension=2, chunks=[chunk("wing", dense=[1.0, 0.0])]
    )
    error = await refused(mesh.index.UpsertChunks(request))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.FAILED_PRECONDITION, "DIMENSION_MISMATCH")


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (Refusal(Code.INVALID_ARGUMENT, "TEXT_EMPTY"), "QUERY_EMPTY"),
        (Refusal(Code.UNAVAILABLE, "PROVIDER_FAILED"), "DEPENDENCY_UNAVAILABLE"),
        (Refusal(Code.RESOURCE_EXHAUSTED, "OVERLOADED"), "OVERLOADED"),
        (Refusal(Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"), "DEADLINE_EXCEEDED"),
        (Refusal(Code.INTERNAL, "INTERNAL"), "INTERNAL"),
    ],
)
async def test_what_embedding_refuses_is_told_in_our_words(mesh, refusal, reason):
    await mesh.upsert()
    mesh.embedding.refusal = refusal
    assert reason_of(await refused(mesh.search("wing"))) == reason


@pytest.mark.parametrize(
    "refusal", [Refusal(Code.NOT_FOUND, "MODEL_NOT_FOUND"), Refusal(Code.FAILED_PRECONDITION, "PROVIDER_FAILED")]
)
async def test_a_model_that_cannot_be_used_for_good_is_no_passing_trouble(mesh, refusal):
    mesh.embedding.refusal = refusal
    client = EmbeddingClient(channel=mesh.embedding_channel)
    with pytest.raises(EmbeddingModelUnavailable) as refused_by:
        await client.embed(MODEL, "wing", branches=tuple(Branch))
    assert (refused_by.value.retryable, refused_by.value.metadata) == (False, {"model": MODEL})


async def test_an_unknown_reranking_model_names_its_field(mesh):
    await mesh.upsert()
    options = retrieval_pb2.RankingOptions(rerank=True, rerank_model="nope")
    error = await refused(mesh.search("wing", ranking_options=options))
    assert (reason_of(error), violated_field(error)) == ("INVALID_FIELD", "ranking_options.rerank_model")


async def test_health_names_the_engine_and_embedding(mesh):
    health = health_pb2_grpc.HealthStub(mesh.channel)
    for name in ("", "dependency/engine", "dependency/embedding", "loremesh.retrieval.v1.IndexService"):
        request = health_pb2.HealthCheckRequest(service=name)
        async with asyncio.timeout(5):
            async for answer in health.Watch(request):
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    break
