import asyncio
from collections.abc import Sequence

import pytest
from loremesh.ingestion.v1 import document_pb2 as pb
from loremesh_ingestion.adapters.memory import MemoryBlobStore, MemoryEmbedder, MemoryParser, MemorySearchIndex
from loremesh_ingestion.domain.version import BATCH_SIZE
from loremesh_ingestion.errors import ParserCrashed
from loremesh_kit.errors import DependencyUnavailable, InvalidField

pytestmark = pytest.mark.steelthread

TEXT = b"One.\n\nTwo.\n\nThree."
LONG = "\n\n".join(f"Paragraph {number}." for number in range(5 * BATCH_SIZE + 3)).encode()


class GatedEmbedder(MemoryEmbedder):
    """Waits at a gate; says when somebody has come to it."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.reached = asyncio.Event()
        self.fail_for = ""

    async def embed(self, texts: Sequence[str], *, model: str):
        self.reached.set()
        await self.open.wait()
        if self.fail_for and any(self.fail_for in text for text in texts):
            raise InvalidField("Not this one.", field="texts")
        return await super().embed(texts, model=model)


class ForgetfulIndex(MemorySearchIndex):
    """Loses a chunk now and then."""

    def __init__(self, losses: int) -> None:
        super().__init__()
        self.losses = losses

    async def upsert(self, document, entries):
        await super().upsert(document, entries)
        if self.losses:
            self.losses -= 1
            self.chunks.popitem()


class FlakyIndex(MemorySearchIndex):
    """Fails some times before it works."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    async def upsert(self, document, entries):
        if self.failures:
            self.failures -= 1
            raise DependencyUnavailable("retrieval", retry_after=0.0)
        await super().upsert(document, entries)


class CrashingParser(MemoryParser):
    """Dies of some documents, and of others the first time it sees any."""

    def __init__(self):
        self.crashes = 0

    async def parse_and_chunk(self, path, **how):
        content = path.read_bytes()
        if b"poison" in content or (b"mishap" in content and self.crashes == 0):
            self.crashes += 1
            raise ParserCrashed
        return await super().parse_and_chunk(path, **how)


async def consistent(service, document: pb.Document, version: int = 1) -> None:
    """The index holds exactly what Postgres says is live."""
    rows = await service.rows("SELECT version, index FROM chunks WHERE document_id = %s ORDER BY 1, 2", document.id)
    assert [(row["version"], row["index"]) for row in rows] == service.index.held(document.id)
    assert {row["version"] for row in rows} == {version}


async def test_a_long_document_is_done_in_batches_with_live_progress(service):
    accepted = await service.upload(LONG)
    document = await service.settled(accepted)
    assert (document.state, document.chunk_count) == (pb.DOCUMENT_STATE_READY, 5 * BATCH_SIZE + 3)
    assert (document.progress.batches_done, document.progress.batches_total) == (6, 6)
    events = await service.watch(accepted.id)
    progress = [event.progress.batches_done for event in events if event.WhichOneof("payload") == "progress"]
    assert progress == [1, 2, 3, 4, 5, 6]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.WhichOneof("payload") for event in events].count("ready") == 1
    await consistent(service, document)


@pytest.mark.parametrize("text", [TEXT, LONG])
async def test_two_workers_share_the_batches_and_repeat_nothing_visible(start_service, text):
    parts = {"blobs": MemoryBlobStore(), "embedder": MemoryEmbedder(), "index": MemorySearchIndex()}
    async with start_service(**parts) as service, start_service(role="worker", **parts):
        document = await service.settled(await service.upload(text))
        assert document.state == pb.DOCUMENT_STATE_READY
        await consistent(service, document)
        jobs = await service.rows("SELECT state, attempt FROM jobs WHERE kind IN ('index', 'embed_batch')")
        assert {(job["state"], job["attempt"]) for job in jobs} == {("SUCCEEDED", 1)}


@pytest.mark.parametrize("text", [TEXT, LONG])
async def test_a_second_worker_on_the_same_job_changes_nothing(start_service, text):
    """The first is frozen past its lease, the second does the work, and the first then goes on."""
    frozen, blobs, index = GatedEmbedder(), MemoryBlobStore(), MemorySearchIndex()
    alone = {"job_concurrency": 1}
    async with start_service(blobs=blobs, index=index, embedder=frozen, settings=alone) as service:
        accepted = await service.upload(text)
        await asyncio.wait_for(frozen.reached.wait(), 10)
        async with start_service(role="worker", blobs=blobs, index=index):
            await service.rows(
                "UPDATE jobs SET state = 'QUEUED', lease_until = NULL, announced_at = NULL, fence = fence + 1"
                " WHERE state = 'RUNNING'"
            )
            document = await service.settled(accepted)
        held = service.index.held(document.id)
        frozen.open.set()
        await service.idle()
        await asyncio.sleep(0.2)
        assert service.index.held(document.id) == held
        await consistent(service, document)
        events = await service.watch(document.id)
        assert [event.WhichOneof("payload") for event in events].count("ready") == 1


@pytest.mark.parametrize("text", [TEXT, LONG])
async def test_a_job_that_is_done_again_after_its_end_has_no_effect(service, text):
    document = await service.settled(await service.upload(text))
    before = await service.watch(document.id)
    await service.rows(
        "UPDATE jobs SET state = 'QUEUED', lease_until = NULL, finished_at = NULL, announced_at = NULL"
        " WHERE kind IN ('index', 'embed_batch')"
    )
    await service.idle()
    await consistent(service, document)
    assert await service.watch(document.id) == before
    assert (await service.get(document.id)).etag == document.etag


@pytest.mark.parametrize("text", [TEXT, LONG])
async def test_a_deletion_while_it_is_indexed_wins(start_service, refused, text):
    embedder = GatedEmbedder()
    async with start_service(embedder=embedder) as service:
        accepted = await service.upload(text)
        await asyncio.wait_for(embedder.reached.wait(), 10)
        await service.documents.DeleteDocument(pb.DeleteDocumentRequest(document_id=accepted.id))
        async with refused("DOCUMENT_NOT_FOUND", "NOT_FOUND"):
            await service.get(accepted.id)
        embedder.open.set()
        await service.idle()
        assert service.index.chunks == {}
        assert service.blobs.objects == {}
        for table in ("documents", "document_versions", "chunks", "finished_batches"):
            assert await service.rows(f"SELECT 1 FROM {table}") == []  # noqa: S608
        events = await service.watch(accepted.id)
        assert events[-1].WhichOneof("payload") == "deleted"


@pytest.mark.parametrize("text", [TEXT, LONG])
async def test_a_newer_version_while_one_is_indexed_wins(start_service, text):
    embedder = GatedEmbedder()
    async with start_service(embedder=embedder) as service:
        accepted = await service.upload(text)
        await asyncio.wait_for(embedder.reached.wait(), 10)
        await service.documents.IndexDocument(pb.IndexDocumentRequest(document_id=accepted.id))
        embedder.open.set()
        document = await service.settled(accepted)
        assert (document.state, document.version) == (pb.DOCUMENT_STATE_READY, 2)
        await service.idle()
        await consistent(service, document, version=2)


@pytest.mark.parametrize("text", [TEXT, LONG])
async def test_indexing_anew_replaces_the_old_version_and_its_objects(service, text):
    document = await service.settled(await service.upload(text))
    answer = await service.documents.IndexDocument(pb.IndexDocumentRequest(document_id=document.id))
    assert answer.document.state == pb.DOCUMENT_STATE_UPLOADED
    assert answer.document.version == 1
    assert answer.job_id
    again = await service.settled(document)
    assert (again.version, again.chunk_count) == (2, document.chunk_count)
    await service.idle()
    await consistent(service, again, version=2)
    rows = await service.rows("SELECT version FROM document_versions")
    assert [row["version"] for row in rows] == [2]
    assert len(service.blobs.objects) == 1


async def test_the_old_version_stays_searchable_until_the_new_one_is_complete(start_service):
    embedder = GatedEmbedder()
    embedder.open.set()
    async with start_service(embedder=embedder) as service:
        document = await service.settled(await service.upload(LONG))
        embedder.open.clear()
        embedder.reached.clear()
        await service.upload(LONG.replace(b"Paragraph", b"Section"), document_id=document.id)
        await asyncio.wait_for(embedder.reached.wait(), 10)
        assert (await service.get(document.id)).version == 1
        assert len(service.index.held(document.id)) == document.chunk_count
        embedder.open.set()
        assert (await service.settled(document)).version == 2


async def test_what_was_updated_during_indexing_reaches_the_index(start_service):
    embedder = GatedEmbedder()
    async with start_service(embedder=embedder) as service:
        accepted = await service.upload(TEXT, title="old")
        await asyncio.wait_for(embedder.reached.wait(), 10)
        changed = pb.Document(id=accepted.id, title="new")
        await service.documents.UpdateDocument(pb.UpdateDocumentRequest(document=changed))
        embedder.open.set()
        await service.settled(accepted)
        await service.idle()
        assert {held.title for held, _ in service.index.chunks.values()} == {"new"}


async def test_a_passing_outage_delays_and_fails_nothing(start_service):
    async with start_service(index=FlakyIndex(failures=2)) as service:
        document = await service.settled(await service.upload(TEXT), impatient=True)
        assert document.state == pb.DOCUMENT_STATE_READY
        await consistent(service, document)
        events = await service.watch(document.id)
        assert events[-1].attempt == 3


@pytest.mark.parametrize("text", [TEXT, LONG])
async def test_chunks_missing_in_the_index_are_noticed_before_it_is_ready(start_service, text):
    async with start_service(index=ForgetfulIndex(losses=1)) as service:
        document = await service.settled(await service.upload(text), impatient=True)
        if text is LONG:
            assert document.state == pb.DOCUMENT_STATE_READY
            await consistent(service, document)


async def test_content_nobody_can_read_fails_at_once_and_says_why(service):
    bad = await service.upload(b"\xff\xfe", filename="bad.bin")
    good = await service.upload(TEXT)
    document = await service.settled(bad)
    assert document.state == pb.DOCUMENT_STATE_FAILED
    assert document.failure.stage == pb.DOCUMENT_STATE_PARSING
    assert (document.failure.reason, document.failure.retryable) == ("DOCUMENT_CORRUPT", False)
    assert document.failure.message
    events = await service.watch(bad.id)
    assert events[-1].failed == document.failure
    assert (await service.settled(good)).state == pb.DOCUMENT_STATE_READY
    letters = await service.rows("SELECT reason, subject_id FROM dead_letters")
    assert letters == [{"reason": "DOCUMENT_CORRUPT", "subject_id": bad.id}]


async def test_a_document_of_white_space_is_empty(service):
    document = await service.settled(await service.upload(b" \n\n \t "))
    assert (document.state, document.failure.reason) == (pb.DOCUMENT_STATE_FAILED, "DOCUMENT_EMPTY")


async def test_a_poisonous_document_is_given_up_after_three_crashes_in_a_row(start_service):
    parser = CrashingParser()
    async with start_service(parser=parser) as service:
        document = await service.settled(await service.upload(b"poison"))
        assert (document.state, document.failure.reason) == (pb.DOCUMENT_STATE_FAILED, "PARSER_CRASHED")
        (job,) = await service.rows("SELECT attempt FROM jobs WHERE kind = 'index'")
        assert (job["attempt"], parser.crashes) == (1, 3)


async def test_a_parser_that_dies_once_is_no_fault_of_a_document_that_failed_before(start_service):
    parser = CrashingParser()
    async with start_service(parser=parser, index=FlakyIndex(failures=3)) as service:
        document = await service.settled(await service.upload(b"mishap"), impatient=True)
        assert (document.state, parser.crashes) == (pb.DOCUMENT_STATE_READY, 1)


async def test_a_failure_in_one_batch_leaves_nothing_of_the_document_in_the_index(start_service):
    embedder = GatedEmbedder()
    embedder.open.set()
    embedder.fail_for = "Paragraph 100."
    async with start_service(embedder=embedder) as service:
        document = await service.settled(await service.upload(LONG))
        assert document.state == pb.DOCUMENT_STATE_FAILED
        assert (document.failure.stage, document.failure.reason) == (pb.DOCUMENT_STATE_EMBEDDING, "INVALID_FIELD")
        await service.idle()
        assert service.index.chunks == {}

        embedder.fail_for = ""
        await service.documents.IndexDocument(pb.IndexDocumentRequest(document_id=document.id))
        again = await service.settled(document)
        assert (again.state, again.version, again.HasField("failure")) == (pb.DOCUMENT_STATE_READY, 2, False)
        await service.idle()
        await consistent(service, again, version=2)


async def test_stored_bytes_that_are_not_those_uploaded_are_not_indexed(start_service):
    async with start_service(role="server") as service:
        accepted = await service.upload(TEXT)
        (key,) = service.blobs.objects
        service.blobs.objects[key] = b"something else"
        async with start_service(role="worker", blobs=service.blobs):
            query = "SELECT 1 FROM jobs WHERE error_reason = 'DEPENDENCY_UNAVAILABLE'"
            await service.eventually(lambda: service.rows(query))
        assert (await service.get(accepted.id)).state == pb.DOCUMENT_STATE_UPLOADED
