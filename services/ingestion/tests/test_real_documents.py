"""The service with its real parser and the real object store."""

import io
import zipfile

import pytest
from loremesh.ingestion.v1 import document_pb2 as pb
from loremesh_ingestion.adapters.parser import ProcessParser
from loremesh_ingestion.adapters.s3 import open_blob_store

pytestmark = pytest.mark.steelthread

MARKDOWN = "# วิศวกรรม\n\nปีกเครื่องบิน 🛩️ stalls.\n\n## Table\n\n| a | b |\n|---|---|\n| 1 | 2 |\n".encode()
BINARY = bytes(range(256)) * 64


def bomb() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", b"\0" * 300_000_000)
    return held.getvalue()


@pytest.fixture
async def service(start_service, s3):
    async with (
        open_blob_store(
            endpoint_url=s3.endpoint_url,
            public_endpoint_url="",
            access_key_id=s3.access_key_id,
            secret_access_key=s3.secret_access_key,
            region=s3.region,
            bucket=s3.bucket,
        ) as blobs,
        ProcessParser(workers=2, memory_bytes=1 << 30, cpu_seconds=20, wall_seconds=60) as parser,
        start_service(blobs=blobs, parser=parser) as running,
    ):
        yield running


async def test_hostile_and_broken_documents_fail_with_their_reasons_beside_good_ones(service):
    cases = [
        (b"plain text", "", "READY", ""),
        (MARKDOWN, "lies.pdf", "READY", ""),
        (b"name,age\nAda,36\n", "t.csv", "READY", ""),
        (BINARY, "text.txt", "FAILED", "UNSUPPORTED_MEDIA_TYPE"),
        (b"%PDF-1.7\n%truncated", "a.pdf", "FAILED", "DOCUMENT_CORRUPT"),
        (bomb(), "bomb.docx", "FAILED", "PARSE_LIMIT"),
        (b" \n ", "blank.txt", "FAILED", "DOCUMENT_EMPTY"),
        (b"more plain text", "", "READY", ""),
    ]
    accepted = [(await service.upload(content, filename=name), state, reason) for content, name, state, reason in cases]
    for upload, state, reason in accepted:
        document = await service.settled(upload)
        assert pb.DocumentState.Name(document.state) == f"DOCUMENT_STATE_{state}", document.failure
        assert document.failure.reason == reason
        if reason:
            assert document.failure.stage == pb.DOCUMENT_STATE_PARSING
            assert not document.failure.retryable


async def test_offsets_point_into_the_text_in_any_script(service):
    document = await service.settled(await service.upload(MARKDOWN, filename="wings.md"))
    assert document.media_type == "text/markdown"
    assert document.title
    text = await service.documents.GetDocumentText(pb.GetDocumentTextRequest(document_id=document.id))
    chunks = (await service.documents.ListChunks(pb.ListChunksRequest(document_id=document.id))).chunks
    assert chunks
    for chunk in chunks:
        assert text.text[chunk.start_char : chunk.end_char] == chunk.content
    assert any("🛩️" in chunk.content for chunk in chunks)
    assert any(chunk.heading_path for chunk in chunks)
