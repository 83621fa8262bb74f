import asyncio
import json

import pytest
from loremesh.ingestion.v1 import deletion_pb2
from loremesh.ingestion.v1 import document_pb2 as pb
from loremesh_ingestion.adapters.memory import MemorySearchIndex
from loremesh_kit import events, identity
from loremesh_kit.errors import DependencyUnavailable, Overloaded, ServiceError
from loremesh_kit.testing import caller

pytestmark = pytest.mark.steelthread


def deletion(document: pb.Document) -> pb.DeleteDocumentRequest:
    return pb.DeleteDocumentRequest(document_id=document.id)


async def get_receipt(service, receipt_id: str) -> deletion_pb2.DeletionReceipt:
    return await service.deletions.GetDeletionReceipt(deletion_pb2.GetDeletionReceiptRequest(receipt_id=receipt_id))


def counts(receipt: deletion_pb2.DeletionReceipt) -> dict[str, int]:
    """By the name of each store that was purged."""
    return {
        deletion_pb2.ContentStore.Name(purge.store).removeprefix("CONTENT_STORE_"): purge.removed_count
        for purge in receipt.purges
        if purge.HasField("finish_time")
    }


async def gone(service) -> bool:
    return not await service.rows("SELECT 1 FROM documents")


class SilentIndex(MemorySearchIndex):
    """Cannot be reached for deletions while it is down."""

    down = True
    error: ServiceError = DependencyUnavailable("retrieval", retry_after=0.0)

    async def delete(self, **what):
        if self.down:
            raise self.error
        return await super().delete(**what)


async def test_after_the_answer_no_call_shows_it_and_searches_are_told(service, refused):
    kept = await service.settled(await service.upload(b"kept"))
    document = await service.settled(await service.upload(b"One.\n\nTwo."))
    assert (await service.documents.DeleteDocument(deletion(document))).receipt_id
    resolved = await service.documents.ResolveVersions(pb.ResolveVersionsRequest(document_ids=[document.id]))
    assert resolved.versions == {}
    async with refused("DOCUMENT_NOT_FOUND", "NOT_FOUND"):
        await service.get(document.id)
    listed = await service.documents.ListDocuments(pb.ListDocumentsRequest())
    assert [each.id for each in listed.documents] == [kept.id]


async def test_every_store_is_purged_and_the_receipt_counts(service):
    document = await service.settled(await service.upload(b"One.\n\nTwo."))
    receipt_id = (await service.documents.DeleteDocument(deletion(document))).receipt_id
    await service.idle()
    assert (service.blobs.objects, service.index.chunks) == ({}, {})
    assert await service.rows("SELECT 1 FROM documents") == []
    receipt = await get_receipt(service, receipt_id)
    assert (receipt.document_id, receipt.vector_store_id) == (document.id, "default")
    assert counts(receipt) == {"SEARCH_INDEX": 2, "OBJECTS": 1, "DATABASE": 2}
    assert not receipt.HasField("finish_time")
    events = await service.watch(document.id)
    assert [event.WhichOneof("payload") for event in events[-3:]] == ["state_changed", "state_changed", "deleted"]


async def test_deleting_what_is_gone_gives_the_same_receipt_and_what_never_was_is_not_found(service, refused):
    document = await service.settled(await service.upload(b"x"))
    first = await service.documents.DeleteDocument(deletion(document))
    await service.eventually(lambda: gone(service))
    assert await service.documents.DeleteDocument(deletion(document)) == first
    with caller(tenant="rival"):
        async with refused("DOCUMENT_NOT_FOUND", "NOT_FOUND"):
            await service.documents.DeleteDocument(deletion(document))
        async with refused("DELETION_RECEIPT_NOT_FOUND", "NOT_FOUND"):
            await get_receipt(service, first.receipt_id)


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
    index.error = Overloaded(retry_after=0.0)
    async with start_service(index=index) as service:
        document = await service.settled(await service.upload(b"x"))
        await service.rows("UPDATE jobs SET max_attempts = 1")
        await service.documents.DeleteDocument(deletion(document))
        await service.rows("UPDATE jobs SET max_attempts = 1 WHERE kind = 'delete'")
        await service.eventually(lambda: service.rows("SELECT 1 FROM dead_letters"), impatient=True)
        index.down = False
        await service.eventually(lambda: gone(service), impatient=True)


class LateIndex(MemorySearchIndex):
    """Holds the first writer up until it is let go on."""

    def __init__(self):
        super().__init__()
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def upsert(self, document, entries):
        if not self.reached.is_set():
            self.reached.set()
            await self.go_on.wait()
        await super().upsert(document, entries)


async def delete_under_way(service):
    """Delete a document while it is being written, up to the end of its rows."""
    document = await service.upload(b"late")
    await service.index.reached.wait()
    receipt = await service.documents.DeleteDocument(deletion(document))
    await service.eventually(lambda: gone(service))
    return document, receipt.receipt_id


async def test_what_is_written_after_the_deletion_is_removed_again(start_service):
    async with start_service(index=LateIndex()) as service:
        await delete_under_way(service)
        service.index.go_on.set()
        await service.idle()
        assert (service.index.chunks, service.blobs.objects) == ({}, {})


async def test_a_late_writer_that_lost_its_job_leaves_nothing_either(start_service):
    async with start_service(index=LateIndex()) as service:
        document, receipt_id = await delete_under_way(service)
        # Another worker had the job meanwhile, saw that the document is gone, and completed it.
        await service.rows(
            "UPDATE jobs SET state = 'SUCCEEDED', fence = fence + 1, lease_until = NULL, finished_at = now()"
            " WHERE kind = 'index'"
        )
        service.index.go_on.set()
        await service.eventually(lambda: deletions_done(service, 2))
        assert service.index.held(document.id) == []
        assert counts(await get_receipt(service, receipt_id))["SEARCH_INDEX"] == 1


async def deletions_done(service, number: int) -> bool:
    rows = await service.rows("SELECT 1 FROM jobs WHERE kind = 'delete' AND state = 'SUCCEEDED'")
    return len(rows) == number


async def test_what_a_dead_attempt_left_is_removed_by_the_next_though_the_document_is_gone(start_service):
    class DyingIndex(LateIndex):
        async def upsert(self, document, entries):
            await super().upsert(document, entries)
            raise DependencyUnavailable("retrieval", retry_after=0.0)

    async with start_service(index=DyingIndex()) as service:
        await delete_under_way(service)
        service.index.go_on.set()
        await service.eventually(lambda: deletions_done(service, 2), impatient=True)
        assert service.index.chunks == {}


async def test_a_receipt_is_finished_when_conversations_have_forgotten_too(service, nats_url):
    document = await service.settled(await service.upload(b"x"))
    receipt_id = (await service.documents.DeleteDocument(deletion(document))).receipt_id
    await service.idle()
    subject = events.subject("agent", "events.DocumentForgotten")
    async with events.connect(nats_url, service="agent") as bus:
        await service.eventually(lambda: connected(bus))
        await bus.ensure_service_stream()
        for fact in (b"no fact", json.dumps({"document_id": document.id, "passages": 3}).encode()):
            for _ in range(2):
                headers = {identity.TENANT_HEADER: "acme"}
                await bus.publish(subject, fact, message_id=f"{document.id}-{len(fact)}", headers=headers)

    async def finished():
        receipt = await get_receipt(service, receipt_id)
        return receipt if receipt.HasField("finish_time") else None

    receipt = await service.eventually(finished)
    assert counts(receipt)["CONVERSATIONS"] == 3
    assert receipt.finish_time.ToDatetime() >= receipt.create_time.ToDatetime()


async def connected(bus) -> bool:
    return bus.is_connected


async def test_receipts_are_listed_the_latest_first_page_by_page(service, refused):
    documents = [await service.upload(f"text {number}".encode()) for number in range(3)]
    receipts = [(await service.documents.DeleteDocument(deletion(each))).receipt_id for each in documents]
    listed, token = [], ""
    for _ in range(2):
        request = deletion_pb2.ListDeletionReceiptsRequest(page_size=2, page_token=token, vector_store_id="default")
        page = await service.deletions.ListDeletionReceipts(request)
        listed += [each.id for each in page.receipts]
        token = page.next_page_token
    assert (listed, token) == (receipts[::-1], "")
    elsewhere = deletion_pb2.ListDeletionReceiptsRequest(vector_store_id="elsewhere")
    assert list((await service.deletions.ListDeletionReceipts(elsewhere)).receipts) == []
    async with refused("PAGE_TOKEN_INVALID", field="page_token"):
        await service.deletions.ListDeletionReceipts(deletion_pb2.ListDeletionReceiptsRequest(page_token="x"))
