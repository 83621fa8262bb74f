"""What searches may show, as every publication and deletion changes it."""

import pytest
from loremesh.ingestion.v1 import document_pb2 as pb
from loremesh.ingestion.v1 import vector_store_pb2
from loremesh_ingestion.adapters.memory import MemoryBlobStore
from loremesh_kit.testing import caller

pytestmark = pytest.mark.steelthread


async def resolved(service, *documents, store="default", generation=0):
    request = pb.ResolveVersionsRequest(
        vector_store_id=store, generation=generation, document_ids=[each.id for each in documents]
    )
    return await service.documents.ResolveVersions(request)


async def test_a_document_is_live_from_its_publication_to_its_deletion(start_service):
    blobs = MemoryBlobStore()
    async with start_service(role="server", blobs=blobs) as idle:
        document = await idle.upload(b"x")
        assert (await resolved(idle, document)).versions == {}
        async with start_service(blobs=blobs) as service:
            await service.settled(document)
            assert (await resolved(idle, document)).versions == {document.id: 1}
            await service.documents.IndexDocument(pb.IndexDocumentRequest(document_id=document.id))
            await service.settled(document)
            assert (await resolved(idle, document)).versions == {document.id: 2}
        await idle.documents.DeleteDocument(pb.DeleteDocumentRequest(document_id=document.id))
        assert (await resolved(idle, document)).versions == {}
        assert (await resolved(idle, document, store="")).versions == {}


async def test_the_answer_names_the_generation_and_its_model(service, refused):
    answer = await resolved(service)
    assert (answer.generation, answer.embedding_model) == (1, "memory")
    assert await resolved(service, generation=1) == answer
    async with refused("GENERATION_NOT_FOUND", "NOT_FOUND"):
        await resolved(service, generation=2)
    async with refused("VECTOR_STORE_NOT_FOUND", "NOT_FOUND"):
        await resolved(service, store="nowhere")


async def test_documents_of_another_store_or_tenant_are_left_out(service, refused):
    store = await service.stores.CreateVectorStore(vector_store_pb2.CreateVectorStoreRequest(vector_store={}))
    here = await service.settled(await service.upload(b"here"))
    there = await service.settled(await service.upload(b"there", vector_store_id=store.id))
    assert (await resolved(service, here, there)).versions == {here.id: 1}
    anywhere = await resolved(service, here, there, store="")
    assert anywhere == pb.ResolveVersionsResponse(versions={here.id: 1, there.id: 1})
    with caller(tenant="rival"):
        assert (await resolved(service, here, there, store="")).versions == {}
        async with refused("VECTOR_STORE_NOT_FOUND", "NOT_FOUND"):
            await resolved(service, there, store=store.id)


async def test_a_store_being_deleted_shows_nothing(start_service, refused):
    async with start_service() as service:
        store = await service.stores.CreateVectorStore(vector_store_pb2.CreateVectorStoreRequest(vector_store={}))
        document = await service.settled(await service.upload(b"x", vector_store_id=store.id))
    async with start_service(role="server") as idle:
        request = vector_store_pb2.DeleteVectorStoreRequest(vector_store_id=store.id, force=True)
        await idle.stores.DeleteVectorStore(request)
        async with refused("VECTOR_STORE_NOT_FOUND", "NOT_FOUND"):
            await resolved(idle, document, store=store.id)
        assert (await resolved(idle, document, store="")).versions == {}
