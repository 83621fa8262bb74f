from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict, ParseDict
from loremesh.common.v1.filter_pb2 import Filter
from loremesh.ingestion.v1 import document_pb2 as pb
from loremesh.ingestion.v1 import vector_store_pb2
from loremesh_kit.testing import caller

pytestmark = pytest.mark.steelthread

TEXT = b"One.\n\nTwo.\n\nThree."
ASCENDING = {"lang": "en", "year": 2020}


def where(condition: dict) -> Filter:
    return ParseDict(condition, Filter())


async def titles(service, **request) -> list[str]:
    response = await service.documents.ListDocuments(pb.ListDocumentsRequest(**request))
    return [document.title for document in response.documents]


async def test_documents_are_listed_newest_first_and_page_by_page(service):
    for number in range(5):
        await service.upload(TEXT, title=str(number))
    found, token = [], ""
    for _ in range(3):
        page = await service.documents.ListDocuments(pb.ListDocumentsRequest(page_size=2, page_token=token))
        found += [document.title for document in page.documents]
        token = page.next_page_token
    assert found == ["4", "3", "2", "1", "0"]
    assert token == ""


async def test_a_page_token_belongs_to_its_query(service, refused):
    for number in range(3):
        await service.upload(TEXT, title=str(number))
    page = await service.documents.ListDocuments(pb.ListDocumentsRequest(page_size=1))
    other = pb.ListDocumentsRequest(page_size=1, page_token=page.next_page_token, sha256="0" * 64)
    async with refused("PAGE_TOKEN_INVALID", field="page_token"):
        await service.documents.ListDocuments(other)
    async with refused("PAGE_TOKEN_INVALID", field="page_token"):
        await service.documents.ListDocuments(pb.ListDocumentsRequest(page_token="nonsense"))


async def test_documents_are_found_by_store_state_content_and_attributes(service, refused):
    await service.stores.CreateVectorStore(
        vector_store_pb2.CreateVectorStoreRequest(vector_store=vector_store_pb2.VectorStore(id="other"))
    )
    first = await service.settled(await service.upload(b"one", title="one", attributes={"year": 2020, "tags": ["a"]}))
    await service.settled(await service.upload(b"two", title="two", attributes={"year": 2024, "at": "2024-05-01"}))
    await service.settled(await service.upload(b"\xff\xfe\xff", title="bad"))
    await service.settled(await service.upload(b"three", title="three", vector_store_id="other"))

    assert await titles(service) == ["three", "bad", "two", "one"]
    assert await titles(service, vector_store_id="other") == ["three"]
    assert await titles(service, state=pb.DOCUMENT_STATE_FAILED) == ["bad"]
    assert await titles(service, sha256=first.sha256) == ["one"]
    for condition, expected in [
        ({"eq": {"key": "tags", "value": "a"}}, ["one"]),
        ({"gte": {"key": "year", "value": 2020}}, ["two", "one"]),
        ({"gt": {"key": "at", "value": "2024-04-30T23:59:59Z"}}, ["two"]),
        ({"ne": {"key": "year", "value": 2020}}, ["three", "bad", "two"]),
        ({"not": {"exists": {"key": "year"}}}, ["three", "bad"]),
        ({"and": {"filters": [{"exists": {"key": "year"}}, {"nin": {"key": "year", "values": [2024]}}]}}, ["one"]),
        ({"eq": {"key": "missing'; DROP TABLE documents --", "value": "x\x00"}}, []),
    ]:
        assert await titles(service, filter=where(condition)) == expected

    async with refused("VECTOR_STORE_NOT_FOUND", "NOT_FOUND"):
        await titles(service, vector_store_id="never-made")
    async with refused("FILTER_INVALID"):
        await titles(service, filter=where({"gt": {"key": "lang", "value": "th"}}))


async def test_an_update_takes_what_is_set_and_the_index_follows(service):
    document = await service.settled(await service.upload(TEXT, title="old", attributes={"a": 1}))
    changed = pb.Document(id=document.id, title="new", etag=document.etag)
    updated = await service.documents.UpdateDocument(pb.UpdateDocumentRequest(document=changed))
    assert (updated.title, MessageToDict(updated.attributes)) == ("new", {"a": 1.0})
    assert updated.etag != document.etag
    await service.idle()
    assert {held.title for held, _ in service.index.chunks.values()} == {"new"}


async def test_an_update_mask_can_clear(service):
    document = await service.settled(await service.upload(TEXT, filename="f.txt", title="old", attributes={"a": 1}))
    request = pb.UpdateDocumentRequest(
        document=pb.Document(id=document.id), update_mask=FieldMask(paths=["title", "attributes"])
    )
    updated = await service.documents.UpdateDocument(request)
    assert (updated.title, MessageToDict(updated.attributes)) == ("f.txt", {})
    await service.idle()
    assert {(held.title, len(held.attributes)) for held, _ in service.index.chunks.values()} == {("f.txt", 0)}


async def test_an_update_is_refused_for_what_changed_or_cannot_change(service, refused):
    document = await service.settled(await service.upload(TEXT, attributes={"a": 1}))
    stale = pb.Document(id=document.id, title="x", etag="0")
    async with refused("ETAG_MISMATCH", "ABORTED"):
        await service.documents.UpdateDocument(pb.UpdateDocumentRequest(document=stale))
    mask = FieldMask(paths=["state"])
    async with refused("INVALID_FIELD", field="update_mask"):
        await service.documents.UpdateDocument(
            pb.UpdateDocumentRequest(document=pb.Document(id=document.id), update_mask=mask)
        )
    nested = pb.Document(id=document.id)
    nested.attributes.update({"a": {"b": 1}})
    async with refused("ATTRIBUTES_INVALID", field="document.attributes"):
        await service.documents.UpdateDocument(pb.UpdateDocumentRequest(document=nested))


@pytest.mark.parametrize("document_id", ["never", "a\x00b", "00000000-0000-7000-8000-000000000000"])
async def test_what_is_not_there_is_not_found_by_any_call(service, refused, document_id):
    calls = [
        service.documents.GetDocument(pb.GetDocumentRequest(document_id=document_id)),
        service.documents.UpdateDocument(pb.UpdateDocumentRequest(document=pb.Document(id=document_id, title="x"))),
        service.documents.IndexDocument(pb.IndexDocumentRequest(document_id=document_id)),
        service.documents.DeleteDocument(pb.DeleteDocumentRequest(document_id=document_id)),
        service.documents.CreateDownloadUrl(pb.CreateDownloadUrlRequest(document_id=document_id)),
        service.documents.GetDocumentText(pb.GetDocumentTextRequest(document_id=document_id)),
        service.documents.ListChunks(pb.ListChunksRequest(document_id=document_id)),
        service.watch(document_id),
        anext(aiter(service.documents.DownloadDocument(pb.DownloadDocumentRequest(document_id=document_id)))),
    ]
    for call in calls:
        async with refused("DOCUMENT_NOT_FOUND", "NOT_FOUND"):
            await call


async def test_another_tenant_s_document_is_not_there(service, refused):
    document = await service.settled(await service.upload(TEXT))
    with caller(tenant="intruder"):
        async with refused("DOCUMENT_NOT_FOUND", "NOT_FOUND"):
            await service.get(document.id)
        async with refused("DOCUMENT_NOT_FOUND", "NOT_FOUND"):
            await service.watch(document.id)
        assert await titles(service) == []


async def test_the_bytes_come_back_as_they_were_under_their_name(service):
    document = await service.upload(b"abc" * 100_000, filename="ปีก.txt", content_type="text/html")
    call = service.documents.DownloadDocument(pb.DownloadDocumentRequest(document_id=document.id))
    bodies = [body async for body in call]
    headers = dict(await call.initial_metadata())
    assert b"".join(body.data for body in bodies) == b"abc" * 100_000
    assert bodies[0].content_type == "text/html"
    assert headers["content-disposition"].startswith("attachment;")
    assert headers["x-content-type-options"] == "nosniff"
    link = await service.documents.CreateDownloadUrl(pb.CreateDownloadUrlRequest(document_id=document.id))
    assert "seconds=900" in link.url
    assert link.expire_time.seconds > document.create_time.seconds


async def test_any_span_of_the_text_can_be_read(service, refused):
    text = "ไทย 🙂 " * 30_000
    document = await service.settled(await service.upload(text.encode()))

    async def span(start: int, end: int) -> pb.GetDocumentTextResponse:
        request = pb.GetDocumentTextRequest(document_id=document.id, start_char=start, end_char=end)
        return await service.documents.GetDocumentText(request)

    assert document.text_chars == len(text)
    for start, end in [(0, 0), (0, 5), (65_530, 65_540), (131_072, 131_080), (len(text) - 3, len(text)), (7, 7)]:
        found = await span(start, end)
        assert found.text == text[start : end or len(text)]
        assert (found.start_char, found.end_char, found.text_chars) == (start, end or len(text), len(text))
    for start, end, field in [(len(text) + 1, 0, "start_char"), (0, len(text) + 1, "end_char"), (9, 3, "end_char")]:
        async with refused("SPAN_OUT_OF_RANGE", "OUT_OF_RANGE", field=field):
            await span(start, end)


async def test_any_pages_of_the_text_can_be_read(service, refused):
    # The second paragraph begins on page 1 and runs on to page 2; page 3 has none that begins there.
    text = "one a\n\none b\ftwo a\n\ntwo b\fthree\ffour a\n\nfour b\n\nfour c"
    document = await service.settled(await service.upload(text.encode()))
    other = await service.settled(await service.upload(b"no pages"))

    async def pages(first: int, last: int, **more: Any) -> str:
        request = pb.GetDocumentTextRequest(document_id=document.id, first_page=first, last_page=last, **more)
        found = await service.documents.GetDocumentText(request)
        assert found.text == text[found.start_char : found.end_char]
        return found.text

    assert document.page_count == 4
    for first, last, wanted in [
        (1, 1, "one b\ftwo a"),
        (2, 0, "two a"),
        (3, 3, "three"),
        (2, 4, "four c"),
        (4, 99, "four c"),
    ]:
        whole = await pages(first, last)
        assert wanted in whole
        assert last != 1 or "two b" not in whole
    assert not (await pages(4, 4)).startswith("one")
    for first, last, field in [(5, 0, "first_page"), (2, 1, "last_page")]:
        async with refused("SPAN_OUT_OF_RANGE", "OUT_OF_RANGE", field=field):
            await pages(first, last)
    for first, last, more in [(1, 0, {"start_char": 1}), (1, 0, {"end_char": 1}), (0, 1, {})]:
        async with refused("INVALID_FIELD"):
            await pages(first, last, **more)
    async with refused("SPAN_OUT_OF_RANGE", "OUT_OF_RANGE", field="first_page"):
        await service.documents.GetDocumentText(pb.GetDocumentTextRequest(document_id=other.id, first_page=1))


async def test_there_is_no_text_before_there_is_one(start_service, refused):
    async with start_service(role="server") as service:
        document = await service.upload(TEXT)
        async with refused("DOCUMENT_STATE_UNSUITABLE", "FAILED_PRECONDITION"):
            await service.documents.GetDocumentText(pb.GetDocumentTextRequest(document_id=document.id))
        chunks = await service.documents.ListChunks(pb.ListChunksRequest(document_id=document.id))
        assert not chunks.chunks


async def test_chunks_are_listed_page_by_page_and_a_new_version_ends_the_listing(service, refused):
    document = await service.settled(await service.upload(TEXT))
    first = await service.documents.ListChunks(pb.ListChunksRequest(document_id=document.id, page_size=2))
    assert [chunk.content for chunk in first.chunks] == ["One.", "Two."]
    following = pb.ListChunksRequest(document_id=document.id, page_size=2, page_token=first.next_page_token)
    second = await service.documents.ListChunks(following)
    assert [(chunk.index, chunk.content) for chunk in second.chunks] == [(2, "Three.")]
    assert second.next_page_token == ""
    assert {chunk.id for chunk in (*first.chunks, *second.chunks)} == {id_ for _, id_ in service.index.chunks}

    await service.documents.IndexDocument(pb.IndexDocumentRequest(document_id=document.id))
    await service.idle()
    async with refused("PAGE_TOKEN_INVALID", field="page_token"):
        await service.documents.ListChunks(following)
