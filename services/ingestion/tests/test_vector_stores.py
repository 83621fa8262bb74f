import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict
from loremesh.ingestion.v1 import document_pb2
from loremesh.ingestion.v1 import vector_store_pb2 as pb
from loremesh_kit.testing import caller

pytestmark = pytest.mark.steelthread


async def create(service, **given) -> pb.VectorStore:
    return await service.stores.CreateVectorStore(pb.CreateVectorStoreRequest(vector_store=pb.VectorStore(**given)))


async def get(service, vector_store_id: str) -> pb.VectorStore:
    return await service.stores.GetVectorStore(pb.GetVectorStoreRequest(vector_store_id=vector_store_id))


async def test_the_default_store_always_exists_for_everyone(service):
    for tenant in ("acme", "newcomer"):
        with caller(tenant=tenant):
            store = await get(service, "default")
            assert (store.id, store.embedding_model) == ("default", "memory")
            listed = await service.stores.ListVectorStores(pb.ListVectorStoresRequest())
            assert [each.id for each in listed.vector_stores] == ["default"]


async def test_a_store_keeps_what_it_is_given(service):
    strategy = pb.ChunkingStrategy(type=pb.CHUNKING_STRATEGY_TYPE_FIXED, max_tokens=64, overlap_tokens=16)
    created = await create(
        service, id="wings", display_name="Wings", description="d", embedding_model="other", chunking_strategy=strategy
    )
    assert created == await get(service, "wings")
    assert (created.display_name, created.embedding_model, created.chunking_strategy) == ("Wings", "other", strategy)
    assert created.document_count == 0
    await service.upload(b"x", vector_store_id="wings")
    assert (await get(service, "wings")).document_count == 1


async def test_an_id_is_made_where_none_is_given_and_never_given_twice(service, refused):
    made = await create(service)
    assert len(made.id) == 36
    await create(service, id="once")
    async with refused("VECTOR_STORE_ALREADY_EXISTS", "ALREADY_EXISTS"):
        await create(service, id="once")
    with caller(tenant="another"):
        await create(service, id="once")


async def test_what_a_store_cannot_be_is_refused(service, refused):
    async with refused("EMBEDDING_MODEL_UNKNOWN", field="embedding_model"):
        await create(service, embedding_model="word2vec")
    async with refused("INVALID_FIELD", field="vector_store.id"):
        await create(service, id="Not A Slug")
    async with refused("VECTOR_STORE_NOT_FOUND", "NOT_FOUND"):
        await get(service, "never-made")
    nested = pb.VectorStore(id="nested")
    nested.attributes.update({"a": {"b": 1}})
    async with refused("ATTRIBUTES_INVALID", field="vector_store.attributes"):
        await service.stores.CreateVectorStore(pb.CreateVectorStoreRequest(vector_store=nested))


async def test_stores_are_listed_newest_first_page_by_page(service, refused):
    await get(service, "default")
    for number in range(4):
        await create(service, id=f"s{number}")
    found, token = [], ""
    while True:
        page = await service.stores.ListVectorStores(pb.ListVectorStoresRequest(page_size=2, page_token=token))
        found += [store.id for store in page.vector_stores]
        token = page.next_page_token
        if not token:
            break
    assert found == ["s3", "s2", "s1", "s0", "default"]
    async with refused("PAGE_TOKEN_INVALID", field="page_token"):
        await service.stores.ListVectorStores(pb.ListVectorStoresRequest(page_token="x"))


async def test_an_update_takes_what_is_set_or_what_the_mask_names(service, refused):
    created = await create(service, id="s", display_name="old", description="kept")
    changed = await service.stores.UpdateVectorStore(
        pb.UpdateVectorStoreRequest(vector_store=pb.VectorStore(id="s", display_name="new", etag=created.etag))
    )
    assert (changed.display_name, changed.description) == ("new", "kept")
    cleared = await service.stores.UpdateVectorStore(
        pb.UpdateVectorStoreRequest(
            vector_store=pb.VectorStore(id="s"), update_mask=FieldMask(paths=["description", "attributes"])
        )
    )
    assert (cleared.display_name, cleared.description, MessageToDict(cleared.attributes)) == ("new", "", {})
    async with refused("ETAG_MISMATCH", "ABORTED"):
        await service.stores.UpdateVectorStore(
            pb.UpdateVectorStoreRequest(vector_store=pb.VectorStore(id="s", display_name="x", etag=created.etag))
        )
    async with refused("INVALID_FIELD", field="update_mask"):
        await service.stores.UpdateVectorStore(
            pb.UpdateVectorStoreRequest(
                vector_store=pb.VectorStore(id="s"), update_mask=FieldMask(paths=["embedding_model"])
            )
        )
    async with refused("VECTOR_STORE_NOT_FOUND", "NOT_FOUND"):
        await service.stores.UpdateVectorStore(
            pb.UpdateVectorStoreRequest(vector_store=pb.VectorStore(id="never-made", display_name="x"))
        )


async def test_a_store_with_documents_goes_only_by_force_and_takes_them_with_it(service, refused):
    await create(service, id="s")
    for number in range(3):
        await service.settled(await service.upload(f"text {number}".encode(), vector_store_id="s"))
    kept = await service.settled(await service.upload(b"kept"))
    async with refused("VECTOR_STORE_IN_USE", "FAILED_PRECONDITION"):
        await service.stores.DeleteVectorStore(pb.DeleteVectorStoreRequest(vector_store_id="s"))

    await service.stores.DeleteVectorStore(pb.DeleteVectorStoreRequest(vector_store_id="s", force=True))
    listed = await service.documents.ListDocuments(document_pb2.ListDocumentsRequest())
    assert [document.id for document in listed.documents] == [kept.id]
    async with refused("VECTOR_STORE_NOT_FOUND", "NOT_FOUND"):
        await service.upload(b"late", vector_store_id="s")

    await service.idle()
    assert [row["id"] for row in await service.rows("SELECT id FROM documents")] == [kept.id]
    assert len(service.blobs.objects) == 1
    assert {held.document_id for held, _ in service.index.chunks.values()} == {kept.id}
    receipts = await service.rows("SELECT index_chunks, objects, chunks FROM deletions WHERE rows_time IS NOT NULL")
    assert [tuple(row.values()) for row in receipts] == [(1, 1, 1)] * 3
    assert (await create(service, id="s")).document_count == 0


async def test_the_default_store_stays(service, refused):
    async with refused("VECTOR_STORE_IN_USE", "FAILED_PRECONDITION"):
        await service.stores.DeleteVectorStore(pb.DeleteVectorStoreRequest(vector_store_id="default", force=True))
    async with refused("VECTOR_STORE_NOT_FOUND", "NOT_FOUND"):
        await service.stores.DeleteVectorStore(pb.DeleteVectorStoreRequest(vector_store_id="never-made"))
