"""Orphans and drift are planted, counted and repaired; what is young or in work is left alone."""

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from loremesh.ingestion.v1 import deletion_pb2 as pb
from loremesh.ingestion.v1 import document_pb2
from loremesh_ingestion.adapters.postgres_reconciliations import PostgresReconciliations
from loremesh_ingestion.domain.chunking import Chunk
from loremesh_ingestion.domain.document import DocumentState
from loremesh_ingestion.domain.reconciliation import Recorded, Remedy, Verdict, judge
from loremesh_ingestion.engine.reconciliations import DailyReconciliation
from loremesh_ingestion.ports import IndexedDocument, IndexEntry, Vector
from loremesh_kit.errors import Overloaded

pytestmark = pytest.mark.steelthread

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


async def reconciled(service, *, repair: bool = False) -> pb.Reconciliation:
    request = pb.ReconcileVectorStoreRequest(vector_store_id="default", repair=repair)
    begun = await service.deletions.ReconcileVectorStore(request)
    assert begun.state == pb.RECONCILIATION_STATE_RUNNING

    async def ended():
        found = await get(service, begun.id)
        return found if found.HasField("finish_time") else None

    ended_ = await service.eventually(ended)
    assert (ended_.state, ended_.repair) == (pb.RECONCILIATION_STATE_DONE, repair)
    return ended_


async def get(service, reconciliation_id: str) -> pb.Reconciliation:
    return await service.deletions.GetReconciliation(pb.GetReconciliationRequest(reconciliation_id=reconciliation_id))


def findings(found: pb.Reconciliation) -> tuple[int, int, int]:
    return found.orphan_chunks, found.drifted_documents, found.orphan_objects


async def plant(service, document_id: str, *, version: int = 1) -> None:
    document = IndexedDocument("default", 1, "memory", document_id, version, "t", {})
    chunk = Chunk(99, "planted", 0, 7, page=None, heading_path=(), token_count=1)
    await service.index.upsert(document, [IndexEntry(str(uuid4()), chunk, Vector([0.0], [], []))])


async def age(service) -> None:
    """Everything there is happened long ago."""
    await service.idle()
    await service.rows("UPDATE documents SET update_time = now() - interval '2 hours'")
    await service.rows("UPDATE deletions SET rows_time = now() - interval '2 hours'")
    service.blobs.write_times = dict.fromkeys(service.blobs.objects, LONG_AGO)


async def ready(service, text: bytes = b"One.\n\nTwo.") -> str:
    return (await service.settled(await service.upload(text))).id


async def test_where_all_is_well_nothing_is_found(service, refused):
    document_id = await ready(service)
    await age(service)
    found = await reconciled(service, repair=True)
    assert (found.documents_checked, found.chunks_checked, findings(found)) == (1, 2, (0, 0, 0))
    assert len(service.index.held(document_id)) == 2
    async with refused("RECONCILIATION_NOT_FOUND", "NOT_FOUND"):
        await get(service, "nothing")
    async with refused("VECTOR_STORE_NOT_FOUND", "NOT_FOUND"):
        await service.deletions.ReconcileVectorStore(pb.ReconcileVectorStoreRequest(vector_store_id="nowhere"))


async def test_chunks_of_unknown_and_deleted_documents_and_old_versions_are_orphans(service):
    document_id, doomed = await ready(service), await ready(service, b"doomed")
    await service.documents.IndexDocument(document_pb2.IndexDocumentRequest(document_id=document_id))
    await service.settled(document_id)
    await service.documents.DeleteDocument(document_pb2.DeleteDocumentRequest(document_id=doomed))
    await age(service)
    await plant(service, str(uuid4()))
    await plant(service, doomed)
    await plant(service, document_id, version=1)
    assert findings(await reconciled(service)) == (3, 0, 0)
    assert len(service.index.chunks) == 5
    assert findings(await reconciled(service, repair=True)) == (3, 0, 0)
    assert service.index.held(document_id) == [(2, 0), (2, 1)]
    assert len(service.index.chunks) == 2
    assert findings(await reconciled(service)) == (0, 0, 0)


async def test_a_document_that_lacks_chunks_or_has_too_many_is_indexed_again(service):
    lacking, surplus, fine = [await ready(service, b"%d.\n\nTwo." % number) for number in range(3)]
    await age(service)
    chunks = service.index.chunks
    chunks.pop(next(key for key, (held, _) in chunks.items() if held.document_id == lacking))
    await plant(service, surplus)
    assert findings(await reconciled(service)) == (0, 2, 0)
    assert findings(await reconciled(service, repair=True)) == (0, 2, 0)
    for document_id in (lacking, surplus):
        await service.settled(document_id)
    await service.idle()
    assert service.index.held(lacking) == service.index.held(surplus) == [(2, 0), (2, 1)]
    assert service.index.held(fine) == [(1, 0), (1, 1)]
    await age(service)
    assert findings(await reconciled(service)) == (0, 0, 0)


async def test_objects_that_no_document_refers_to_are_orphans_of_their_tenant_only(service):
    document_id = await ready(service)
    orphan, foreign = f"acme/{uuid4()}/bytes", f"acme-rival/{uuid4()}/bytes"
    service.blobs.objects |= {orphan: b"x", foreign: b"y"}
    await age(service)
    assert findings(await reconciled(service)) == (0, 0, 1)
    assert findings(await reconciled(service, repair=True)) == (0, 0, 1)
    assert {key.split("/")[1] for key in service.blobs.objects} == {document_id, foreign.split("/")[1]}


async def test_what_is_young_or_in_work_is_left_alone(service):
    document_id, doomed = await ready(service), await ready(service, b"doomed")
    await service.documents.DeleteDocument(document_pb2.DeleteDocumentRequest(document_id=doomed))
    await service.idle()
    await plant(service, document_id)
    await plant(service, doomed)
    key = f"acme/{uuid4()}/bytes"
    service.blobs.objects[key], service.blobs.write_times[key] = b"x", datetime.now(UTC)
    assert findings(await reconciled(service, repair=True)) == (0, 0, 0)
    assert len(service.index.chunks) == 4
    assert key in service.blobs.objects


async def test_a_reconciliation_that_is_given_up_says_why(start_service):
    async with start_service() as service:
        await ready(service)

        async def fail(**what):
            raise Overloaded(retry_after=0.0)
            yield

        service.index.versions = fail
        begun = await service.deletions.ReconcileVectorStore(pb.ReconcileVectorStoreRequest(vector_store_id="default"))
        await service.rows("UPDATE jobs SET max_attempts = 1 WHERE kind = 'reconcile'")

        async def failed():
            found = await get(service, begun.id)
            return found if found.state == pb.RECONCILIATION_STATE_FAILED else None

        assert (await service.eventually(failed, impatient=True)).error_reason in (
            "OVERLOADED",
            "ATTEMPTS_EXHAUSTED",
        )


async def test_each_vector_store_has_its_turn_once_a_day_whoever_looks(service):
    await ready(service)
    await age(service)
    await plant(service, str(uuid4()))
    replicas = [
        DailyReconciliation(database=service.database, records=PostgresReconciliations(database=service.database))
        for _ in range(4)
    ]

    async def enqueued() -> int:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(replica.enqueue_due()) for replica in replicas]
        return sum(task.result() for task in tasks)

    assert await enqueued() == 0
    await service.rows("UPDATE reconciliation_days SET day = current_date - 1")
    assert await enqueued() == 1
    assert await enqueued() == 0
    await service.idle()
    (row,) = await service.rows("SELECT state, repair, orphan_chunks FROM reconciliations")
    assert (row["state"], row["repair"], row["orphan_chunks"]) == ("DONE", True, 1)
    assert len(service.index.chunks) == 2


@pytest.mark.parametrize(
    ("recorded", "held", "expected"),
    [
        (("READY", 2, 2, 3, True), {2: 3}, Verdict(Remedy.NOTHING, 0, 2)),
        (("READY", 2, 2, 3, True), {1: 4, 2: 3}, Verdict(Remedy.CLEAR, 4, 2)),
        (("READY", 2, 2, 3, True), {}, Verdict(Remedy.INDEX_AGAIN, 0, 2)),
        (("READY", 2, 2, 3, True), {1: 1, 2: 4}, Verdict(Remedy.INDEX_AGAIN, 1, 2)),
        (("READY", 2, 2, 3, False), {1: 1}, Verdict(Remedy.NOTHING)),
        (("INDEXING", 1, 2, 3, True), {1: 1}, Verdict(Remedy.NOTHING)),
        (("DELETING", 1, 1, 3, True), {1: 3}, Verdict(Remedy.NOTHING)),
        (("FAILED", 0, 2, 0, True), {1: 1, 2: 2}, Verdict(Remedy.CLEAR, 3, 3)),
        (("FAILED", 1, 2, 3, True), {1: 3, 2: 2}, Verdict(Remedy.NOTHING, 0, 1)),
    ],
)
def test_the_verdict_on_a_document(recorded, held, expected):
    state, *rest = recorded
    assert judge(Recorded("d", DocumentState(state), *rest), held) == expected
