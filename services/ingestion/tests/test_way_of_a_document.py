import pytest
from google.protobuf.json_format import MessageToDict
from loremesh.ingestion.v1 import document_pb2 as pb

pytestmark = pytest.mark.steelthread

TEXT = "The wing stalls at twelve degrees.\n\nปีกเครื่องบิน 🛩️ stalls later."


async def test_an_uploaded_document_becomes_searchable(service):
    accepted = await service.upload(TEXT.encode(), title="Wings", attributes={"lang": "en", "year": 1965})
    assert accepted.state == pb.DOCUMENT_STATE_UPLOADED
    assert accepted.vector_store_id == "default"

    document = await service.settled(accepted)

    assert document.state == pb.DOCUMENT_STATE_READY
    assert (document.version, document.chunk_count, document.text_chars) == (1, 2, len(TEXT))
    assert MessageToDict(document.attributes) == {"lang": "en", "year": 1965.0}
    assert service.index.held(document.id) == [(1, 0), (1, 1)]


async def test_every_stage_is_told_in_order_and_the_last_event_is_the_end(service):
    accepted = await service.upload(TEXT.encode())
    events = await service.watch(accepted.id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    states = [pb.DocumentState.Name(event.state_changed.state)[15:] for event in events[:-1]]
    assert states == ["UPLOADED", "PARSING", "CHUNKING", "EMBEDDING", "INDEXING"]
    assert events[-1].ready.chunk_count == 2


async def test_chunks_are_exact_slices_of_the_text(service):
    document = await service.settled(await service.upload(TEXT.encode()))
    chunks = (await service.documents.ListChunks(pb.ListChunksRequest(document_id=document.id))).chunks
    for chunk in chunks:
        span = await service.documents.GetDocumentText(
            pb.GetDocumentTextRequest(document_id=document.id, start_char=chunk.start_char, end_char=chunk.end_char)
        )
        assert span.text == chunk.content
    assert "".join(TEXT[chunk.start_char : chunk.end_char] for chunk in chunks) == "".join(TEXT.split("\n\n"))
