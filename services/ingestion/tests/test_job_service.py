"""Jobs shown and taken up again, documents retried, events asked for, and calls repeated under a key."""

import pytest
from loremesh.ingestion.v1 import document_pb2 as pb
from loremesh.ingestion.v1 import job_pb2, vector_store_pb2
from loremesh_ingestion.adapters.memory import MemoryParser
from loremesh_ingestion.domain.version import BATCH_SIZE
from loremesh_kit.testing import caller

pytestmark = pytest.mark.steelthread

TEXT = b"One.\n\nTwo.\n\nThree."
BAD = b"\xff\xfe"


class FussyParser(MemoryParser):
    """Reads nothing until it is mended."""

    def __init__(self) -> None:
        super().__init__()
        self.is_mended = False

    async def parse_and_chunk(self, path, **how):
        if not self.is_mended:
            path.write_bytes(BAD)
        return await super().parse_and_chunk(path, **how)


@pytest.fixture
def parser():
    return FussyParser()


@pytest.fixture
async def fussy(start_service, parser):
    async with start_service(parser=parser) as running:
        yield running


async def failed(service) -> pb.Document:
    document = await service.settled(await service.upload(TEXT))
    assert document.state == pb.DOCUMENT_STATE_FAILED
    return document


async def letters(service, **which) -> list[job_pb2.DeadLetter]:
    request = job_pb2.ListDeadLettersRequest(filter=job_pb2.DeadLetterFilter(**which))
    return list((await service.jobs.ListDeadLetters(request)).dead_letters)


def replay(service, *job_ids, **which):
    return service.jobs.ReplayDeadLetters(
        job_pb2.ReplayDeadLettersRequest(job_ids=job_ids, filter=job_pb2.DeadLetterFilter(**which))
    )


async def test_jobs_are_listed_and_shown(service, refused):
    documents = [await service.settled(await service.upload(b"%d. %b" % (n, TEXT))) for n in range(3)]
    await service.idle()
    request = job_pb2.ListJobsRequest(page_size=2, kind="index", state=job_pb2.JOB_STATE_SUCCEEDED)
    first = await service.jobs.ListJobs(request)
    request.page_token = first.next_page_token
    second = await service.jobs.ListJobs(request)

    jobs = [*first.jobs, *second.jobs]
    assert [job.subject_id for job in jobs] == [document.id for document in reversed(documents)]
    assert second.next_page_token == ""
    job = await service.jobs.GetJob(job_pb2.GetJobRequest(job_id=jobs[0].id))
    assert job == jobs[0]
    assert (job.kind, job.attempt, job.HasField("finish_time"), job.error_reason) == ("index", 1, True, "")
    by_subject = await service.jobs.ListJobs(job_pb2.ListJobsRequest(subject_id=documents[0].id, kind="index"))
    assert [each.subject_id for each in by_subject.jobs] == [documents[0].id]
    with caller(tenant="globex"):
        async with refused("JOB_NOT_FOUND", "NOT_FOUND"):
            await service.jobs.GetJob(job_pb2.GetJobRequest(job_id=job.id))


async def test_a_dead_job_of_a_document_replayed_indexes_it_anew(fussy, parser):
    document = await failed(fussy)
    (letter,) = await letters(fussy)
    assert (letter.kind, letter.subject_id, letter.reason) == ("index", document.id, "DOCUMENT_CORRUPT")
    parser.is_mended = True
    answer = await replay(fussy, letter.job_id)

    assert (list(answer.job_ids), answer.more) == ([letter.job_id], False)
    again = await fussy.settled(document)
    assert (again.state, again.version) == (pb.DOCUMENT_STATE_READY, 2)
    assert await letters(fussy) == []


async def test_dead_letters_are_chosen_by_what_they_are(fussy, parser):
    documents = [await failed(fussy) for _ in range(3)]
    page = await fussy.jobs.ListDeadLetters(job_pb2.ListDeadLettersRequest(page_size=2))
    rest = job_pb2.ListDeadLettersRequest(page_size=2, page_token=page.next_page_token)
    rest = await fussy.jobs.ListDeadLetters(rest)
    subjects = [letter.subject_id for letter in (*page.dead_letters, *rest.dead_letters)]
    assert subjects == [document.id for document in reversed(documents)]
    assert await letters(fussy, reason="PARSE_LIMIT") == []
    assert len(await letters(fussy, kind="index", reason="DOCUMENT_CORRUPT")) == 3

    parser.is_mended = True
    assert list((await replay(fussy, kind="purge")).job_ids) == []
    assert len((await replay(fussy, subject_id=documents[0].id)).job_ids) == 1
    assert len((await replay(fussy)).job_ids) == 2
    for document in documents:
        assert (await fussy.settled(document)).state == pb.DOCUMENT_STATE_READY


async def test_what_is_not_dead_or_not_there_is_not_replayed(fussy, parser, refused):
    document = await failed(fussy)
    (letter,) = await letters(fussy)
    async with refused("JOB_NOT_FOUND", "NOT_FOUND"):
        await replay(fussy, letter.job_id, "nobody")
    parser.is_mended = True
    await replay(fussy, letter.job_id)
    async with refused("JOB_NOT_DEAD", "FAILED_PRECONDITION"):
        await replay(fussy, letter.job_id)
    assert (await fussy.settled(document)).version == 2


@pytest.mark.parametrize("how", ["superseded", "deleted"])
async def test_what_nobody_wants_any_more_is_only_struck_off(fussy, parser, how):
    document = await failed(fussy)
    parser.is_mended = True
    if how == "superseded":
        await fussy.documents.IndexDocument(pb.IndexDocumentRequest(document_id=document.id))
        await fussy.settled(document)
    else:
        await fussy.documents.DeleteDocument(pb.DeleteDocumentRequest(document_id=document.id))
    await fussy.idle()

    assert len((await replay(fussy)).job_ids) == 1
    await fussy.idle()
    assert await letters(fussy) == []
    jobs = await fussy.rows("SELECT 1 FROM jobs WHERE kind = 'index'")
    assert len(jobs) == (2 if how == "superseded" else 1)


async def test_batches_that_died_begin_their_document_once(start_service):
    async with start_service(role="server") as service:
        long = "\n\n".join(f"Paragraph {number}." for number in range(2 * BATCH_SIZE)).encode()
        document = await service.upload(long)
        await service.rows("UPDATE documents SET state = 'FAILED', failure = %s", _failure())
        for batch in range(2):
            await service.rows(_DEAD_BATCH, str(batch), document.id, str(batch), document.id)
        answer = await replay(service, kind="embed_batch")

        assert len(answer.job_ids) == 2
        assert (await service.get(document.id)).state == pb.DOCUMENT_STATE_UPLOADED
        (row,) = await service.rows("SELECT latest_version FROM documents")
        assert row["latest_version"] == 2


_DEAD_BATCH = """
WITH dead AS (
    INSERT INTO jobs (tenant, id, kind, subject_id, principal, request_id, payload, max_attempts, state, finished_at)
    VALUES ('acme', %s, 'embed_batch', %s, 'ada', 'r', '{"version": 1, "batch": 0}', 8, 'FAILED', now())
)
INSERT INTO dead_letters (tenant, id, kind, subject_id, attempt, reason, message)
VALUES ('acme', %s, 'embed_batch', %s, 8, 'INTERNAL', 'x')
"""


def _failure():
    return '{"stage": "EMBEDDING", "reason": "INTERNAL", "message": "x", "retryable": true, "metadata": {}}'


async def test_other_work_that_died_is_done_as_it_was(start_service):
    async with start_service() as service:
        document = await service.settled(await service.upload(TEXT))
        await service.documents.IndexDocument(pb.IndexDocumentRequest(document_id=document.id))
        await service.settled(document)
        await service.idle()
        (purge,) = await service.rows("SELECT id FROM jobs WHERE kind = 'purge'")
        await service.rows("UPDATE jobs SET state = 'FAILED' WHERE kind = 'purge'")
        await service.rows(
            "INSERT INTO dead_letters (tenant, id, kind, subject_id, attempt, reason, message)"
            " SELECT tenant, id, kind, subject_id, 8, 'INTERNAL', 'x' FROM jobs WHERE kind = 'purge'"
        )
        await replay(service, purge["id"])
        await service.idle()
        job = await service.jobs.GetJob(job_pb2.GetJobRequest(job_id=purge["id"]))
        assert (job.state, job.attempt) == (job_pb2.JOB_STATE_SUCCEEDED, 1)


async def test_only_a_document_that_failed_is_retried(fussy, parser, refused):
    document = await failed(fussy)
    parser.is_mended = True
    answer = await fussy.documents.RetryDocument(pb.RetryDocumentRequest(document_id=document.id))
    assert (answer.document.state, bool(answer.job_id)) == (pb.DOCUMENT_STATE_UPLOADED, True)
    assert (await fussy.settled(document)).state == pb.DOCUMENT_STATE_READY
    async with refused("DOCUMENT_STATE_UNSUITABLE", "FAILED_PRECONDITION"):
        await fussy.documents.RetryDocument(pb.RetryDocumentRequest(document_id=document.id))
    async with refused("DOCUMENT_NOT_FOUND", "NOT_FOUND"):
        await fussy.documents.RetryDocument(pb.RetryDocumentRequest(document_id="nobody"))


async def test_a_repeated_call_under_a_key_is_one_call(service, refused):
    key = (("idempotency-key", "k"),)
    document = await service.settled(await service.upload(TEXT))
    request = pb.IndexDocumentRequest(document_id=document.id)
    answers = [await service.documents.IndexDocument(request, metadata=key) for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert (await service.settled(document)).version == 2
    async with refused("IDEMPOTENCY_CONFLICT", "ALREADY_EXISTS"):
        await service.documents.IndexDocument(pb.IndexDocumentRequest(document_id="other"), metadata=key)

    store = vector_store_pb2.CreateVectorStoreRequest(vector_store=vector_store_pb2.VectorStore(id="s"))
    made = [await service.stores.CreateVectorStore(store, metadata=key) for _ in range(2)]
    assert made[0] == made[1]
    removal = pb.DeleteDocumentRequest(document_id=document.id)
    receipts = [await service.documents.DeleteDocument(removal, metadata=key) for _ in range(2)]
    await service.idle()
    receipts.append(await service.documents.DeleteDocument(removal, metadata=key))
    assert len({receipt.receipt_id for receipt in receipts}) == 1


async def history(service, document, **request):
    return await service.documents.ListDocumentEvents(pb.ListDocumentEventsRequest(document_id=document.id, **request))


async def test_events_can_be_asked_for(service, refused):
    document = await service.settled(await service.upload(TEXT))
    watched = await service.watch(document.id)
    page = await history(service, document)
    assert (list(page.events), page.last_seq) == (watched, watched[-1].seq)
    part = await history(service, document, after_seq=1, page_size=2)
    assert [event.seq for event in part.events] == [2, 3]
    assert list((await history(service, document, after_seq=page.last_seq)).events) == []
    # Who has seen the last event is told nothing twice.
    assert await service.watch(document.id, after_seq=page.last_seq) == []
    async with refused("AFTER_SEQ_OUT_OF_RANGE", "OUT_OF_RANGE", "after_seq"):
        await history(service, document, after_seq=page.last_seq + 1)
    async with refused("AFTER_SEQ_OUT_OF_RANGE", "OUT_OF_RANGE", "after_seq"):
        await service.watch(document.id, after_seq=page.last_seq + 1)
    async with refused("DOCUMENT_NOT_FOUND", "NOT_FOUND"):
        await service.documents.ListDocumentEvents(pb.ListDocumentEventsRequest(document_id="nobody"))


async def test_a_browser_that_reconnects_goes_on_where_it_was(service):
    document = await service.settled(await service.upload(TEXT))
    watched = await service.watch(document.id)
    call = service.documents.WatchDocument(
        pb.WatchDocumentRequest(document_id=document.id), metadata=(("last-event-id", "2"),)
    )
    assert [event async for event in call] == watched[2:]


async def test_where_events_are_not_kept_any_more_a_snapshot_comes_first(service):
    document = await service.settled(await service.upload(TEXT))
    last_seq = (await history(service, document)).last_seq
    await service.rows("DELETE FROM events")
    await service.rows("UPDATE event_heads SET first_seq = last_seq + 1")

    (snapshot,) = (await history(service, document)).events
    assert (snapshot.snapshot, snapshot.seq) == (await service.get(document.id), last_seq)
    told = await service.watch(document.id)
    assert [event.WhichOneof("payload") for event in told] == ["snapshot", "ready"]
    assert told[-1].ready.chunk_count == document.chunk_count
    await service.documents.IndexDocument(pb.IndexDocumentRequest(document_id=document.id))
    await service.settled(document)
    events = await service.watch(document.id)
    assert (events[0].WhichOneof("payload"), events[-1].WhichOneof("payload")) == ("snapshot", "ready")
