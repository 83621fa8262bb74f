import asyncio
import hashlib
import json
import os
import resource

import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.json_format import MessageToDict
from loremesh.ingestion.v1 import document_pb2 as pb
from loremesh.ingestion.v1 import vector_store_pb2
from loremesh_ingestion.adapters.s3 import open_blob_store
from loremesh_ingestion.domain.upload import MAX_BYTES

pytestmark = pytest.mark.steelthread

MEBIBYTE = 1024 * 1024
FORM = "multipart/form-data; boundary=edge"


def form(**parts: str | bytes) -> bytes:
    body = b""
    for name, value in parts.items():
        filename = '; filename="note.md"\r\nContent-Type: text/markdown' if name == "file" else ""
        body += f'--edge\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'.encode()
        body += (value if isinstance(value, bytes) else value.encode()) + b"\r\n"
    return body + b"--edge--\r\n"


def as_json(**fields: object) -> bytes:
    return json.dumps(fields).encode()


async def stored(service, document: pb.Document) -> bytes:
    (row,) = await service.rows("SELECT object_key FROM document_versions WHERE document_id = %s", document.id)
    return b"".join([piece async for piece in service.blobs.read(row["object_key"])])


async def nothing_is_stored(service) -> bool:
    return not service.blobs.objects and not await service.rows("SELECT 1 FROM documents UNION SELECT 1 FROM jobs")


async def test_a_native_client_sends_parameters_and_pieces(service):
    document = await service.upload(
        [b"one ", b"", b"two"],
        title=" Numbers\x00 ",
        filename="numbers.txt",
        content_type="text/plain; charset=utf-8",
        attributes={"tags": ["a", "b"], "year": 2026, "draft": True},
    )
    assert await stored(service, document) == b"one two"
    assert (document.title, document.filename, document.media_type) == ("Numbers", "numbers.txt", "text/plain")
    assert document.sha256 == hashlib.sha256(b"one two").hexdigest()
    assert document.size_bytes == 7
    assert MessageToDict(document.attributes) == {"tags": ["a", "b"], "year": 2026.0, "draft": True}


async def test_a_native_client_s_json_file_is_the_document_itself(service):
    document = await service.upload(b'{"content": "not a body"}', content_type="application/json")
    assert await stored(service, document) == b'{"content": "not a body"}'


async def test_a_json_body_holds_the_text(service):
    body = as_json(content="ข้อความ 🙂", title="T", attributes={"n": 1}, chunking_strategy={"max_tokens": 64})
    document = await service.post(body, "application/json; charset=utf-8", pieces=5)
    assert await stored(service, document) == "ข้อความ 🙂".encode()
    assert (document.title, document.media_type) == ("T", "text/plain")
    assert MessageToDict(document.attributes) == {"n": 1.0}
    assert document.chunking_strategy.max_tokens == 64


async def test_a_form_holds_the_file_and_fields_in_any_order(service):
    fields = {"title": "T", "attributes": '{"n": 1}', "chunking_strategy": '{"max_tokens": 64}'}
    for parts in ({"file": b"# Note", **fields}, {**fields, "file": b"# Note"}):
        document = await service.post(form(**parts), FORM, pieces=7)
        assert await stored(service, document) == b"# Note"
        assert (document.title, document.filename, document.media_type) == ("T", "note.md", "text/markdown")
        assert MessageToDict(document.attributes) == {"n": 1.0}
        assert document.chunking_strategy.max_tokens == 64


async def test_any_other_body_is_the_file_with_parameters_in_the_query(service):
    document = await service.post(b"a,b\n1,2\n", "text/csv", filename="t.csv", title="Table")
    assert await stored(service, document) == b"a,b\n1,2\n"
    assert (document.title, document.filename, document.media_type) == ("Table", "t.csv", "text/csv")


async def test_the_body_wins_over_the_query(service):
    document = await service.post(as_json(content="x", title="body"), "application/json", title="query")
    assert document.title == "body"
    document = await service.post(as_json(content="x"), "application/json", title="query")
    assert document.title == "query"


async def test_nul_and_lone_surrogates_are_dropped(service):
    body = b'{"content": "a\\u0000b\\ud800c", "title": "t\\u0000", "attributes": {"k\\ud800": "v\\u0000"}}'
    document = await service.post(body, "application/json")
    assert await stored(service, document) == b"abc"
    assert document.title == "t"
    assert MessageToDict(document.attributes) == {"k": "v"}


@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        (b"", "UPLOAD_MALFORMED", "file"),
        (b"{", "UPLOAD_MALFORMED", "file"),
        (b"[]", "UPLOAD_MALFORMED", "file"),
        (b'"text"', "UPLOAD_MALFORMED", "file"),
        (b"\xff\xfe", "UPLOAD_MALFORMED", "file"),
        (b'{"content": NaN}', "UPLOAD_MALFORMED", "file"),
        (b'{"attributes": ' + b"[" * 100_000, "UPLOAD_MALFORMED", "file"),
        (as_json(title="no text"), "DOCUMENT_EMPTY", "file"),
        (as_json(content=7), "INVALID_FIELD", "content"),
        (as_json(content="x", colour="red"), "INVALID_FIELD", "colour"),
        (as_json(content="x", title="t" * 501), "INVALID_FIELD", "title"),
        (as_json(content="x", attributes=[1]), "INVALID_FIELD", "attributes"),
        (as_json(content="x", attributes={"a": {"b": 1}}), "ATTRIBUTES_INVALID", "attributes"),
        (as_json(content="x", attributes={"a": None}), "ATTRIBUTES_INVALID", "attributes"),
        (as_json(content="x", attributes={f"k{n}": 1 for n in range(65)}), "ATTRIBUTES_INVALID", "attributes"),
        (as_json(content="x", attributes={"a": "x" * 20_000}), "ATTRIBUTES_INVALID", "attributes"),
        (as_json(content="x", chunking_strategy={"max_tokens": 3}), "INVALID_FIELD", "chunking_strategy.max_tokens"),
        (as_json(content="x", chunking_strategy={"type": "NONSENSE"}), "INVALID_FIELD", "chunking_strategy"),
        (
            as_json(content="x", chunking_strategy={"max_tokens": 64, "overlap_tokens": 33}),
            "CHUNKING_STRATEGY_INVALID",
            None,
        ),
    ],
)
async def test_a_bad_json_body_names_what_is_bad_and_leaves_nothing(service, refused, body, reason, field):
    async with refused(reason, field=field):
        await service.post(body, "application/json")
    assert await nothing_is_stored(service)


@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        (form(title="T"), "UPLOAD_MALFORMED", "file"),
        (form(file="")[:-20], "UPLOAD_MALFORMED", "file"),
        (form(file="x", colour="red"), "UPLOAD_MALFORMED", "colour"),
        (form(file="x", attributes="{"), "UPLOAD_MALFORMED", "attributes"),
        (form(file="x", attributes="7"), "INVALID_FIELD", "attributes"),
        (form(file="x", title="t" * 501), "INVALID_FIELD", "title"),
        (form(file=""), "DOCUMENT_EMPTY", "file"),
    ],
)
async def test_a_bad_form_names_the_part_and_leaves_nothing(service, refused, body, reason, field):
    async with refused(reason, field=field):
        await service.post(body, FORM)
    assert await nothing_is_stored(service)


async def test_an_empty_upload_is_refused(service, refused):
    async with refused("DOCUMENT_EMPTY", field="file"):
        await service.upload(b"")
    async with refused("UPLOAD_MALFORMED", field="file"):
        await service.documents.UploadDocument(iter([]))
    assert await nothing_is_stored(service)


async def test_only_the_first_message_has_parameters(service, refused):
    messages = [
        pb.UploadDocumentRequest(file=HttpBody(data=b"x")),
        pb.UploadDocumentRequest(file=HttpBody(data=b"y"), vector_store_id="other"),
    ]
    async with refused("UPLOAD_MALFORMED", field="file"):
        await service.documents.UploadDocument(iter(messages))
    assert await nothing_is_stored(service)


@pytest.mark.parametrize("size", [1, 3 * MEBIBYTE])
async def test_an_unknown_store_takes_nothing(service, refused, size):
    async with refused("VECTOR_STORE_NOT_FOUND", "NOT_FOUND"):
        await service.upload(b"x" * size, vector_store_id="never-made")
    assert await nothing_is_stored(service)


async def test_a_contradictory_strategy_is_refused_before_anything_is_read(service, refused):
    strategy = vector_store_pb2.ChunkingStrategy(max_tokens=64, overlap_tokens=40)
    async with refused("CHUNKING_STRATEGY_INVALID"):
        await service.upload(b"x", chunking_strategy=strategy)


async def test_a_json_body_of_nine_mebibytes_is_too_large_but_a_file_is_not(service, refused):
    async with refused("DOCUMENT_TOO_LARGE", "INVALID_ARGUMENT"):
        await service.post(as_json(content="x" * 9 * MEBIBYTE), "application/json", pieces=9)
    document = await service.post(b"x" * 9 * MEBIBYTE, "text/plain", pieces=9)
    assert document.size_bytes == 9 * MEBIBYTE


async def test_an_upload_that_is_given_up_leaves_nothing(service):
    async def messages():
        yield pb.UploadDocumentRequest(file=HttpBody(data=b"x"))
        await asyncio.sleep(60)

    call = service.documents.UploadDocument(messages())
    await asyncio.sleep(0.2)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.sleep(0.1)
    assert await nothing_is_stored(service)


async def test_more_uploads_than_there_is_room_for_are_told_to_come_back(start_service, refused):
    async def slow():
        yield pb.UploadDocumentRequest(file=HttpBody(data=b"x"))
        await asyncio.sleep(60)

    async with start_service(settings={"uploads_at_once": 1}) as service:
        held = service.documents.UploadDocument(slow())
        await asyncio.sleep(0.2)
        async with refused("OVERLOADED", "RESOURCE_EXHAUSTED"):
            await service.upload(b"y")
        held.cancel()
        with pytest.raises(asyncio.CancelledError):
            await held
        await asyncio.sleep(0.1)
        assert (await service.upload(b"y")).state == pb.DOCUMENT_STATE_UPLOADED


@pytest.fixture
async def service_on_s3(start_service, s3):
    async with (
        open_blob_store(
            endpoint_url=s3.endpoint_url,
            public_endpoint_url="",
            access_key_id=s3.access_key_id,
            secret_access_key=s3.secret_access_key,
            region=s3.region,
            bucket=s3.bucket,
        ) as blobs,
        start_service(role="server", blobs=blobs) as service,
    ):
        yield service


def peak_mebibytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def test_a_hundred_mebibytes_come_in_with_flat_memory_and_one_byte_more_does_not(service_on_s3, refused):
    await service_on_s3.blobs.delete_all("acme/")  # what other tests left in the bucket they share
    piece = os.urandom(MEBIBYTE)
    await service_on_s3.upload([piece] * 20)
    before = peak_mebibytes()
    document = await service_on_s3.upload([piece] * 100)
    # The sender is this process too; what it sends is one piece, a hundred times.
    assert peak_mebibytes() - before < 48
    digest = hashlib.sha256()
    for _ in range(100):
        digest.update(piece)
    assert (document.size_bytes, document.sha256) == (MAX_BYTES, digest.hexdigest())
    async with refused("DOCUMENT_TOO_LARGE", "INVALID_ARGUMENT"):
        await service_on_s3.upload([piece] * 100 + [b"x"])
    (count,) = await service_on_s3.rows("SELECT count(*) AS documents FROM documents")
    assert count["documents"] == 2
    assert await service_on_s3.blobs.delete_all("acme/") == 2
