import asyncio
from contextlib import asynccontextmanager

import pytest
from loremesh.embedding.v1 import embedding_pb2, embedding_pb2_grpc
from loremesh.retrieval.v1 import index_pb2, index_pb2_grpc
from loremesh_ingestion.adapters.embedding import GrpcEmbedder
from loremesh_ingestion.adapters.retrieval import GrpcSearchIndex
from loremesh_ingestion.adapters.sibling import Refused
from loremesh_ingestion.domain.chunking import Chunk
from loremesh_ingestion.errors import IndexIncomplete
from loremesh_ingestion.ports import IndexedDocument, IndexedVersion, IndexEntry, Vector
from loremesh_kit import identity
from loremesh_kit.channel import open_channel
from loremesh_kit.errors import Code, DependencyUnavailable, ServiceError
from loremesh_kit.server import Servicer, Wired
from loremesh_kit.testing import caller, serving

pytestmark = pytest.mark.conformance


class TextEmpty(ServiceError):
    code = Code.INVALID_ARGUMENT
    reason = "TEXT_EMPTY"


class FakeEmbedding(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Vectors of a text's length; an empty text is refused as the real one does."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, embedding_pb2.EmbedRequest]] = []

    async def Embed(self, request, context):  # noqa: N802
        self.requests.append((identity.current().tenant, request))
        await asyncio.sleep(0.02)
        for position, text in enumerate(request.texts):
            if not text.strip():
                raise TextEmpty("The text is empty.", field=f"texts[{position}]")
        sparse = embedding_pb2.SparseVector(indices=[1, 2], values=[0.5, 0.25])
        return embedding_pb2.EmbedResponse(
            embeddings=[embedding_pb2.Embedding(dense=[float(len(text)), 1], sparse=sparse) for text in request.texts]
        )

    async def Rerank(self, request, context):  # noqa: N802
        raise NotImplementedError

    async def ListModels(self, request, context):  # noqa: N802
        self.requests.append((identity.current().tenant, request))
        dense = embedding_pb2.Model(id="d", task=embedding_pb2.MODEL_TASK_DENSE, dimension=2, default=True)
        sparse = embedding_pb2.Model(id="bm25", task=embedding_pb2.MODEL_TASK_SPARSE)
        return embedding_pb2.ListModelsResponse(models=[dense, sparse])


class FakeIndex(index_pb2_grpc.IndexServiceServicer):
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, object]] = []
        self.forgets = 0

    async def _remember(self, request):
        self.requests.append((identity.current().tenant, request))
        await asyncio.sleep(0.02)

    async def UpsertChunks(self, request, context):  # noqa: N802
        await self._remember(request)
        return index_pb2.UpsertChunksResponse(upserted_count=len(request.chunks) - self.forgets)

    async def DeleteChunks(self, request, context):  # noqa: N802
        await self._remember(request)
        return index_pb2.DeleteChunksResponse(deleted_count=3)

    async def UpdateDocumentAttributes(self, request, context):  # noqa: N802
        await self._remember(request)
        return index_pb2.UpdateDocumentAttributesResponse()

    async def GetChunkVectors(self, request, context):  # noqa: N802
        await self._remember(request)
        there = [
            index_pb2.ChunkVectors(chunk_id=request.chunk_ids[0], dense=[1, 0], sparse_indices=[3], sparse_values=[2])
        ]
        return index_pb2.GetChunkVectorsResponse(vectors=there)

    async def CountChunks(self, request, context):  # noqa: N802
        await self._remember(request)
        return index_pb2.CountChunksResponse(count=7)

    async def ListIndexedVersions(self, request, context):  # noqa: N802
        await self._remember(request)
        for number in (1, 2):
            version = index_pb2.IndexedVersion(document_id="d", document_version=number, chunk_count=7)
            yield index_pb2.ListIndexedVersionsResponse(versions=[version])


@pytest.fixture
async def embedding():
    servicer = FakeEmbedding()
    wired = Wired(
        servicers=[
            Servicer(
                add=embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server,
                servicer=servicer,
                name="loremesh.embedding.v1.EmbeddingService",
            )
        ]
    )
    async with serving(wired, service="embedding") as channel:
        yield GrpcEmbedder(channel=channel), servicer


@pytest.fixture
async def index():
    servicer = FakeIndex()
    wired = Wired(
        servicers=[
            Servicer(
                add=index_pb2_grpc.add_IndexServiceServicer_to_server,
                servicer=servicer,
                name="loremesh.retrieval.v1.IndexService",
            )
        ]
    )
    async with serving(wired, service="retrieval") as channel:
        yield GrpcSearchIndex(channel=channel), servicer


def document(document_id: str = "d", vector_store_id: str = "s") -> IndexedDocument:
    return IndexedDocument(
        vector_store_id=vector_store_id,
        generation=3,
        embedding_model="m",
        document_id=document_id,
        version=2,
        title="T",
        attributes={"year": 2026.0, "tags": ["a", "b"], "draft": True},
    )


def entry(number: int = 0, *, page: int | None = None) -> IndexEntry:
    chunk = Chunk(number, "text", 5, 9, page=page, heading_path=("H1", "H2"), token_count=1)
    return IndexEntry(f"00000000-0000-5000-8000-{number:012}", chunk, Vector([0.6, 0.8], [1, 7], [0.5, 0.25]))


async def test_texts_of_several_documents_are_embedded_in_one_call(embedding):
    embedder, servicer = embedding
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(embedder.embed(["x" * size, "y"], model="d")) for size in range(1, 11)]
    assert [list(task.result()[0].dense) for task in tasks] == [[float(size), 1.0] for size in range(1, 11)]
    assert [list(task.result()[1].sparse_indices) for task in tasks] == [[1, 2]] * 10
    assert len(servicer.requests) == 1
    assert {request.sparse_model for _, request in servicer.requests} == {"bm25"}
    assert sum(len(request.texts) for _, request in servicer.requests) == 20


async def test_tenants_never_share_a_call(embedding):
    embedder, servicer = embedding

    async def embed(tenant: str) -> None:
        with caller(tenant=tenant):
            await embedder.embed([tenant], model="d")

    async with asyncio.TaskGroup() as group:
        for number in range(9):
            group.create_task(embed(f"tenant-{number % 3}"))
    assert all(set(request.texts) == {tenant} for tenant, request in servicer.requests)


async def test_one_document_s_bad_text_does_not_fail_its_neighbours(embedding):
    embedder, _ = embedding
    async with asyncio.TaskGroup() as group:
        good = [group.create_task(embedder.embed(["fine"], model="d")) for _ in range(4)]
        bad = asyncio.ensure_future(embedder.embed(["fine", " "], model="d"))
    with pytest.raises(Refused) as raised:
        await bad
    assert (raised.value.reason, raised.value.retryable) == ("TEXT_EMPTY", False)
    assert all(task.result() for task in good)


async def test_models_are_remembered_and_only_dense_ones(embedding):
    embedder, servicer = embedding
    first, second = await embedder.models(), await embedder.models()
    assert [(model.id, model.dimension, model.default) for model in first] == [("d", 2, True)]
    assert first == second
    assert len(servicer.requests) == 1


async def test_chunks_of_several_documents_are_written_in_one_call(index):
    search_index, servicer = index
    async with asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(search_index.upsert(document(f"d{number}"), [entry(number, page=number or None)]))
    assert len(servicer.requests) == 1
    chunks = [chunk for _, request in servicer.requests for chunk in request.chunks]
    assert sorted(chunk.document_id for chunk in chunks) == [f"d{number}" for number in range(10)]
    first = next(chunk for chunk in chunks if chunk.document_id == "d0")
    assert not first.HasField("page")
    assert (first.title, first.content, first.start_char, first.end_char) == ("T", "text", 5, 9)
    assert list(first.heading_path) == ["H1", "H2"]
    assert dict(first.attributes.items())["year"] == 2026
    assert list(first.sparse_indices) == [1, 7]
    request = servicer.requests[0][1]
    assert (request.vector_store_id, request.embedding_model, request.dimension) == ("s", "m", 2)
    assert request.generation == 3


async def test_stores_and_tenants_never_share_a_write(index):
    search_index, servicer = index

    async def write(number: int) -> None:
        with caller(tenant=f"tenant-{number % 2}"):
            await search_index.upsert(document(f"tenant-{number % 2}", f"s{number % 3}"), [entry(number)])

    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(write(number))
    for tenant, request in servicer.requests:
        assert {chunk.document_id for chunk in request.chunks} == {tenant}
    assert len({request.vector_store_id for _, request in servicer.requests}) == 3


async def test_fewer_chunks_than_were_sent_are_noticed(index):
    search_index, servicer = index
    servicer.forgets = 1
    with pytest.raises(IndexIncomplete):
        await search_index.upsert(document(), [entry()])


async def test_the_index_s_other_calls_say_what_they_are_about(index):
    search_index, servicer = index
    place = {"vector_store_id": "s", "generation": 3, "embedding_model": "m"}
    assert await search_index.delete(**place, document_id="d", before_version=2) == 3
    assert await search_index.count(document()) == 7
    await search_index.update(document())
    delete, count, update = (request for _, request in servicer.requests)
    assert {each.generation for each in (delete, count, update)} == {3}
    assert (delete.document_id, delete.before_version) == ("d", 2)
    assert (count.document_id, count.document_version) == ("d", 2)
    assert (update.document_id, update.title, dict(update.attributes.items())["draft"]) == ("d", "T", True)
    listed = [each async for part in search_index.versions(**place) for each in part]
    assert listed == [IndexedVersion("d", 1, 7), IndexedVersion("d", 2, 7)]
    assert servicer.requests[-1][1].generation == 3


async def test_vectors_are_read_by_chunk_and_those_missing_are_left_out(index):
    search_index, servicer = index
    assert await search_index.vectors(document(), []) == {}
    there, missing = entry(0).id, entry(1).id
    found = await search_index.vectors(document(), [there, missing])
    assert list(found) == [there]
    assert (list(found[there].dense), list(found[there].sparse_indices)) == ([1, 0], [3])
    ((_, request),) = servicer.requests
    assert (request.vector_store_id, request.generation, request.embedding_model) == ("s", 3, "m")
    assert list(request.chunk_ids) == [there, missing]


@asynccontextmanager
async def nobody():
    async with open_channel("127.0.0.1:9") as channel:
        yield channel


async def test_a_sister_that_does_not_answer_is_unavailable():
    async with nobody() as channel:
        with pytest.raises(DependencyUnavailable) as raised:
            await GrpcEmbedder(channel=channel).models()
        assert raised.value.metadata == {"dependency": "embedding"}
        with pytest.raises(DependencyUnavailable):
            await GrpcSearchIndex(channel=channel).count(document())
