import pytest
from loremesh.ingestion.v1 import document_pb2 as pb
from loremesh_ingestion.adapters.memory import MemorySearchIndex
from loremesh_kit.errors import DependencyUnavailable

pytestmark = pytest.mark.steelthread


def deletion(document: pb.Document) -> pb.DeleteDocumentRequest:
    return pb.DeleteDocumentRequest(document_id=document.id)


async def gone(service) -> bool:
    return not await service.rows("SELECT 1 FROM documents")


class SilentIndex(MemorySearchIndex):
    """Cannot be reached for deletions while it is down."""

    down = True

    async def delete(self, **what):
        if self.down:
            raise DependencyUnavailable("retrieval", retry_after=0.0)
        return await super().delete(**what)


async def test_after_the_answer_no_call_and_no_search_shows_it(service, refused):
    kept = await service.settled(await service.upload(b"kept"))
    document = await service.settled(await service.upload(b"One.\n\nTwo."))
    receipt = await service.documents.DeleteDocument(deletion(document))
    assert receipt.receipt_id
    assert service.index.held(document.id) == []
    async with refused("DOCUMENT_NOT_FOUND", "NOT_FOUND"):
        await service.get(document.id)
    listed = await service.documents.ListDocuments(pb.ListDocumentsRequest())
    assert [each.id for each in listed.documents] == [kept.id]


async def test_every_store_is_purged_and_the_receipt_counts(service, refused):
    document = await service.settled(await service.upload(b"One.\n\nTwo."))
    receipt = await service.documents.DeleteDocument(deletion(document))
    await service.idle()
    assert service.blobs.objects == {}
    assert await service.rows("SELECT 1 FROM documents") == []
    (row,) = await service.rows("SELECT * FROM deletions")
    assert (row["id"], row["document_id"]) == (receipt.receipt_id, document.id)
    assert (row["index_chunks"], row["objects"], row["chunks"]) == (2, 1, 2)
    assert row["finish_time"] is not None
    events = await service.watch(document.id)
    assert [event.WhichOneof("payload") for event in events[-3:]] == ["state_changed", "state_changed", "deleted"]
    async with refused("DOCUMENT_NOT_FOUND", "NOT_FOUND"):
        await service.documents.DeleteDocument(deletion(document))


async def test_deleting_twice_while_it_runs_is_one_deletion(start_service, refused):
    async with start_service(role="server") as service:
        document = await service.upload(b"x")
        first = await service.documents.DeleteDocument(deletion(document))
        second = await service.documents.DeleteDocument(deletion(document))
        assert first == second
        (jobs,) = await service.rows("SELECT count(*) AS deletions FROM jobs WHERE kind = 'delete'")
        assert jobs["deletions"] == 1
        for call in (
            service.documents.UpdateDocument(pb.UpdateDocumentRequest(document=pb.Document(id=document.id, title="x"))),
            service.documents.IndexDocument(pb.IndexDocumentRequest(document_id=document.id)),
        ):
            async with refused("DOCUMENT_STATE_UNSUITABLE", "FAILED_PRECONDITION"):
                await call


async def test_a_deletion_is_accepted_while_the_index_is_down_and_done_when_it_is_back(start_service):
    index = SilentIndex()
    async with start_service(index=index) as service:
        document = await service.settled(await service.upload(b"x"))
        await service.documents.DeleteDocument(deletion(document))
        index.down = False
        await service.eventually(lambda: gone(service), impatient=True)
        assert index.chunks == {}


async def test_a_deletion_that_was_given_up_is_begun_anew(start_service):
    index = SilentIndex()
    async with start_service(index=index) as service:
        document = await service.settled(await service.upload(b"x"))
        await service.rows("UPDATE jobs SET max_attempts = 1")
        await service.documents.DeleteDocument(deletion(document))
        await service.rows("UPDATE jobs SET max_attempts = 1 WHERE kind = 'delete'")
        await service.eventually(lambda: service.rows("SELECT 1 FROM dead_letters"), impatient=True)
        index.down = False
        await service.eventually(lambda: gone(service), impatient=True)
