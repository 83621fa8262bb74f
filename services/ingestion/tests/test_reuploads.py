import asyncio
import json
from contextlib import suppress

import pytest
from google.protobuf.json_format import MessageToDict
from grpc import aio
from loremesh.ingestion.v1 import document_pb2 as pb
from loremesh.ingestion.v1 import vector_store_pb2
from loremesh_ingestion.adapters.memory import MemoryBlobStore, MemorySearchIndex
from loremesh_kit.channel import reason_of
from loremesh_kit.testing import caller

pytestmark = pytest.mark.steelthread

OLD, NEW = b"One.\n\nTwo.", b"One.\n\nThree."
CREATED, REPLACED, UNCHANGED = (
    pb.UPLOAD_OUTCOME_CREATED,
    pb.UPLOAD_OUTCOME_REPLACED,
    pb.UPLOAD_OUTCOME_UNCHANGED,
)


async def how_many(service) -> int:
    (row,) = await service.rows("SELECT count(*) AS documents FROM documents")
    return row["documents"]


async def bytes_of(service, document_id: str) -> bytes:
    call = service.documents.DownloadDocument(pb.DownloadDocumentRequest(document_id=document_id))
    return b"".join([body.data async for body in call])


async def test_the_same_upload_again_is_the_document_that_is_there(service):
    given = {"filename": "a.txt", "attributes": {"year": 2026, "tags": ["a"]}}
    first = await service.upload(OLD, **given)
    again = await service.upload(OLD, **given)
    assert (first.upload_outcome, again.upload_outcome) == (CREATED, UNCHANGED)
    assert again.id == first.id
    await service.settled(first)
    assert (await service.upload(OLD, **given)).id == first.id
    assert (await how_many(service), len(service.blobs.objects)) == (1, 1)


@pytest.mark.parametrize(
    "other",
    [
        {"filename": "b.txt"},
        {"title": "T"},
        {"attributes": {"year": 2027}},
        {"chunking_strategy": vector_store_pb2.ChunkingStrategy(max_tokens=64)},
    ],
)
async def test_what_differs_in_anything_given_is_another_document(service, other):
    first = await service.upload(OLD, filename="a.txt", attributes={"year": 2026})
    second = await service.upload(OLD, **{"filename": "a.txt", "attributes": {"year": 2026}, **other})
    assert second.upload_outcome == CREATED
    assert second.id != first.id


async def test_what_failed_is_not_taken_for_the_same(service):
    first = await service.settled(await service.upload(b"\xff\xfe"))
    assert first.state == pb.DOCUMENT_STATE_FAILED
    assert (await service.upload(b"\xff\xfe")).upload_outcome == CREATED


async def test_another_tenant_s_document_is_never_the_same(service):
    first = await service.upload(OLD)
    with caller(tenant="another"):
        second = await service.upload(OLD)
    assert second.upload_outcome == CREATED
    assert second.id != first.id


async def test_the_same_upload_many_times_at_once_makes_one_document(start_service):
    parts = {"blobs": MemoryBlobStore(), "index": MemorySearchIndex()}
    async with start_service(**parts) as one, start_service(role="server", **parts) as other:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(replica.upload(OLD)) for replica in (one, other) * 6]
        answers = [task.result() for task in tasks]
        assert sorted(answer.upload_outcome for answer in answers) == [CREATED] + [UNCHANGED] * 11
        assert len({answer.id for answer in answers}) == 1
        assert (await how_many(one), len(one.blobs.objects)) == (1, 1)
        (jobs,) = await one.rows("SELECT count(*) AS jobs FROM jobs WHERE kind = 'index'")
        assert jobs["jobs"] == 1


async def test_other_bytes_replace_a_document_s_content_and_its_objects(service):
    document = await service.settled(await service.upload(OLD, filename="a.txt", title="T", attributes={"year": 2026}))
    replaced = await service.upload(NEW, document_id=document.id)
    assert (replaced.id, replaced.upload_outcome) == (document.id, REPLACED)
    assert (replaced.state, replaced.version) == (pb.DOCUMENT_STATE_UPLOADED, 1)
    assert (replaced.size_bytes, replaced.sha256 != document.sha256) == (len(NEW), True)
    assert (replaced.filename, replaced.title) == ("a.txt", "T")
    assert MessageToDict(replaced.attributes) == {"year": 2026.0}
    ready = await service.settled(document)
    assert (ready.version, await bytes_of(service, document.id)) == (2, NEW)
    await service.idle()
    assert service.index.held(document.id) == [(2, 0), (2, 1)]
    assert list(service.blobs.objects.values()) == [NEW]
    assert await how_many(service) == 1


async def test_a_replacement_nobody_can_read_leaves_the_old_content_searchable(service):
    document = await service.settled(await service.upload(OLD))
    await service.upload(b"\xff\xfe", document_id=document.id)
    failed = await service.settled(document)
    assert (failed.state, failed.version) == (pb.DOCUMENT_STATE_FAILED, 1)
    await service.idle()
    assert service.index.held(document.id) == [(1, 0), (1, 1)]
    back = await service.upload(OLD, document_id=document.id)
    assert back.upload_outcome == REPLACED
    await service.settled(document)
    await service.idle()
    assert list(service.blobs.objects.values()) == [OLD]


async def test_the_same_bytes_change_nothing_but_what_else_is_given(service):
    document = await service.settled(await service.upload(OLD, title="old"))
    same = await service.upload(OLD, document_id=document.id)
    assert (same.upload_outcome, same.etag, same.version) == (UNCHANGED, document.etag, 1)
    changed = await service.upload(OLD, document_id=document.id, title="new", attributes={"a": 1})
    assert (changed.upload_outcome, changed.title, changed.state) == (UNCHANGED, "new", pb.DOCUMENT_STATE_READY)
    await service.idle()
    assert {held.title for held, _ in service.index.chunks.values()} == {"new"}
    strategy = vector_store_pb2.ChunkingStrategy(max_tokens=64)
    again = await service.upload(OLD, document_id=document.id, chunking_strategy=strategy)
    assert (again.upload_outcome, again.state) == (UNCHANGED, pb.DOCUMENT_STATE_UPLOADED)
    ready = await service.settled(document)
    assert (ready.version, ready.chunking_strategy.max_tokens) == (2, 64)
    assert list(service.blobs.objects.values()) == [OLD]


FORM = "multipart/form-data; boundary=edge"


def field(name: str, value: str) -> str:
    return f'--edge\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'


@pytest.mark.parametrize("where", ["query", "json", "form before", "form after"])
async def test_over_rest_the_document_is_named_in_query_json_or_form(service, where):
    document = await service.settled(await service.upload(OLD))
    named = field("document_id", document.id)
    file = '--edge\r\nContent-Disposition: form-data; name="file"; filename="n.txt"\r\n\r\nOne.\n\nThree.\r\n'
    calls = {
        "query": lambda: service.post(NEW, "text/plain", document_id=document.id),
        "json": lambda: service.post(
            json.dumps({"content": NEW.decode(), "document_id": document.id}).encode(), "application/json"
        ),
        "form before": lambda: service.post(f"{named}{file}--edge--\r\n".encode(), FORM),
        "form after": lambda: service.post(f"{file}{named}--edge--\r\n".encode(), FORM),
    }
    replaced = await calls[where]()
    assert (replaced.id, replaced.upload_outcome) == (document.id, REPLACED)
    assert (await service.settled(document)).version == 2
    await service.idle()
    assert list(service.blobs.objects.values()) == [NEW]
    await service.documents.DeleteDocument(pb.DeleteDocumentRequest(document_id=document.id))
    await service.idle()
    assert service.blobs.objects == {}


@pytest.mark.parametrize("document_id", ["never", "../../other/x"])
@pytest.mark.parametrize("as_json", [False, True])
async def test_there_is_nothing_to_replace_where_there_is_no_document(service, refused, document_id, as_json):
    async with refused("DOCUMENT_NOT_FOUND", "NOT_FOUND"):
        if as_json:
            await service.post(json.dumps({"content": "x", "document_id": document_id}).encode(), "application/json")
        else:
            await service.upload(b"x", document_id=document_id)
    assert service.blobs.objects == {}


async def test_a_document_being_deleted_or_in_another_store_cannot_be_replaced(start_service, refused):
    async with start_service(role="server") as service:
        document = await service.upload(OLD)
        async with refused("DOCUMENT_NOT_FOUND", "NOT_FOUND"):
            await service.upload(NEW, document_id=document.id, vector_store_id="other")
        await service.documents.DeleteDocument(pb.DeleteDocumentRequest(document_id=document.id))
        async with refused("DOCUMENT_NOT_FOUND", "NOT_FOUND"):
            await service.upload(NEW, document_id=document.id)
        # What was deleted is not the same either.
        assert (await service.upload(OLD)).upload_outcome == CREATED


async def test_replacing_while_it_is_indexed_ends_with_the_last_content(service):
    document = await service.upload(OLD)
    for number in range(5):
        await service.upload(f"Text {number}.".encode(), document_id=document.id)
    await service.idle()
    ready = await service.settled(document)
    assert (ready.state, ready.version) == (pb.DOCUMENT_STATE_READY, 6)
    assert list(service.blobs.objects.values()) == [b"Text 4."]
    assert service.index.held(document.id) == [(6, 0)]


async def test_a_tenant_with_too_much_waiting_is_told_to_come_back(start_service, refused):
    async with start_service(role="server", settings={"queue_limit": 2}) as service:
        await service.upload(b"one")
        await service.upload(b"two")
        async with refused("QUEUE_FULL", "RESOURCE_EXHAUSTED"):
            await service.upload(b"three")
        with caller(tenant="another"):
            assert (await service.upload(b"three")).upload_outcome == CREATED
        assert len(service.blobs.objects) == 3


async def test_who_was_told_to_come_back_is_let_in_once_jobs_are_done(start_service):
    async with start_service(role="server", settings={"queue_limit": 1}) as service:

        async def taken():
            with suppress(aio.AioRpcError):
                return await service.upload(b"two")

        await service.upload(b"one")
        with pytest.raises(aio.AioRpcError) as refused:
            await service.upload(b"two")
        assert (reason_of(refused.value), dict(refused.value.trailing_metadata())["retry-after"]) == ("QUEUE_FULL", "5")
        assert (await how_many(service), len(service.blobs.objects)) == (1, 1)
        async with start_service(role="worker", blobs=service.blobs, index=service.index):
            await service.idle()
            assert (await service.eventually(taken)).upload_outcome == CREATED
        assert await how_many(service) == 2


async def test_an_upload_repeated_under_its_key_is_the_same_upload(service):
    first = await service.upload(OLD, title="A", key="k1")
    await service.settled(first)
    await service.documents.UpdateDocument(
        pb.UpdateDocumentRequest(document=pb.Document(id=first.id, title="Another since"))
    )
    again = await service.upload(OLD, title="A", key="k1")
    assert (again.id, again.upload_outcome) == (first.id, CREATED)
    assert (await how_many(service), len(service.blobs.objects)) == (1, 1)


async def test_two_uploads_under_one_key_at_the_same_time_make_one_document(service):
    async with asyncio.TaskGroup() as group:
        uploads = [group.create_task(service.upload(OLD, key="k2")) for _ in range(4)]
    assert len({upload.result().id for upload in uploads}) == 1
    assert await how_many(service) == 1


async def test_a_key_used_before_with_another_upload_is_refused(service, refused):
    await service.upload(OLD, key="k3")
    async with refused("IDEMPOTENCY_CONFLICT", "ALREADY_EXISTS"):
        await service.upload(NEW, key="k3")
    async with refused("IDEMPOTENCY_KEY_INVALID", "INVALID_ARGUMENT"):
        await service.upload(NEW, key="k" * 201)
    assert (await how_many(service), len(service.blobs.objects)) == (1, 1)
