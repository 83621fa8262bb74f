"""The life of documents as a state machine: whatever happens in whatever order, searches see what the model says."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from loremesh_ingestion.adapters.memory import MemoryBlobStore, MemoryEmbedder, MemoryParser, MemorySearchIndex
from loremesh_ingestion.domain import jobs, objects
from loremesh_ingestion.domain.chunking import Chunk
from loremesh_ingestion.domain.deletion import ContentStore
from loremesh_ingestion.domain.document import Document, DocumentState, Standing, may_enter, standing
from loremesh_ingestion.domain.upload import UploadOutcome, UploadParameters
from loremesh_ingestion.domain.version import Version
from loremesh_ingestion.engine.deletion import LateWriter
from loremesh_ingestion.engine.writing import carried
from loremesh_ingestion.errors import (
    DocumentCorrupt,
    DocumentNotFound,
    DocumentStateUnsuitable,
    GenerationAlreadyExists,
    GenerationStateUnsuitable,
)
from loremesh_ingestion.main import MIGRATIONS
from loremesh_ingestion.records import DocumentQuery, Parse
from loremesh_ingestion.settings import Settings
from loremesh_ingestion.wiring import SERVICE, Outside, assemble
from loremesh_kit.errors import DependencyUnavailable
from loremesh_kit.jobs import FenceLost, Job
from loremesh_kit.leases import Leases
from loremesh_kit.postgres import Database, open_database
from loremesh_kit.testing import caller, fresh_database

from .document_model import Line, Model, Place

pytestmark = pytest.mark.steelthread

STORE = "default"
UPLOADED, PARSING, EMBEDDING = DocumentState.UPLOADED, DocumentState.PARSING, DocumentState.EMBEDDING
READY, FAILED, DELETING = DocumentState.READY, DocumentState.FAILED, DocumentState.DELETING
PLENTY = 300

# In the order they came in, lest a failure could not be repeated: ids are made by chance.
OPEN_JOBS = """
SELECT jobs.id FROM jobs LEFT JOIN documents ON documents.key = jobs.subject_id
WHERE jobs.state IN ('QUEUED', 'RUNNING') ORDER BY jobs.created_at, jobs.kind, documents.generation, jobs.id
"""

# Any job may be claimed at any time, as if the lease of whoever has it had run out.
CLAIM = """
UPDATE jobs SET state = 'RUNNING', attempt = attempt + 1, fence = fence + 1, lease_until = now() + interval '60 s'
WHERE id = %s RETURNING id, tenant, principal, request_id, kind, payload, attempt, fence, max_attempts, subject_id
"""

HELD = "SELECT 1 FROM jobs WHERE id = %s AND fence = %s AND state = 'RUNNING'"


@dataclass(eq=False)
class Claim:
    """A job in the hands of a worker, with what it has read of the document; kept, so that it may end late."""

    job: Job
    document: Document | None
    version: Version | None
    ended: bool = False

    @property
    def place(self) -> Place:
        return (self.document.id, self.document.generation) if self.document else ("", 0)

    @property
    def is_current(self) -> bool:
        return self.version is not None and standing(self.document, self.version.version) is Standing.CURRENT


class Incoming:
    """An upload of one piece."""

    def __init__(self, content: str, **given: Any) -> None:
        self.content = content
        self.parameters = UploadParameters(**given)

    async def pieces(self) -> AsyncIterator[bytes]:
        yield self.content.encode()


class OneChunk:
    """A document that was read and has one chunk."""

    def __init__(self, text: str) -> None:
        self.chunk = Chunk(0, text, 0, len(text), page=None, heading_path=(), token_count=1)
        self.parsed = self

    def chunks(self) -> list[Chunk]:
        return [self.chunk]

    async def batches(self, _: int) -> AsyncIterator[list[Chunk]]:
        yield self.chunks()


class SilentBus:
    """Nobody listens."""

    def nudge(self, topic: str) -> None:
        pass


class Parts:
    """The use cases as the service is made of them, over real tables and stores in memory."""

    def __init__(self, database: Database) -> None:
        self.index, self.blobs, bus = MemorySearchIndex(), MemoryBlobStore(), SilentBus()
        stores: dict[str, Any] = {"blobs": self.blobs, "index": self.index, "parser": MemoryParser(), "bus": bus}
        wired = assemble(Outside(database=database, embedder=MemoryEmbedder(), **stores), settings=Settings())
        documents, vector_stores, _, generations, deletions = (each.servicer for each in wired.servicers)
        self.uploads, self.documents = documents._uploads, documents._documents
        self.deletions, self.liveness = documents._deletions, documents._liveness._records
        self.vector_stores, self.generations = vector_stores._vector_stores, generations._generations
        self.receipts = deletions._receipts
        worker: Any = wired.workers[0]
        self.handlers, self.on_dead = worker._handlers, worker._on_dead
        self.indexing = self.handlers[jobs.INDEX]._handler
        self.leases = Leases(database=database, seconds=60)


class DocumentLife(RuleBasedStateMachine):
    """Users, operators and workers at the same documents; each example is a tenant of its own."""

    runner: asyncio.Runner
    database: Database
    tenants = count()
    ids = Bundle("ids")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.tenant = f"tenant-{next(self.tenants)}"
        self.contents = count()
        self.model = Model()
        self.parts = Parts(self.database)
        self.claimed: list[Claim] = []
        self.rows_before: dict[Place, tuple[DocumentState, int, int]] = {}
        self.shown: dict[Place, int] = {}
        self.run(self.parts.vector_stores.get(STORE))

    def run(self, work: Any) -> Any:
        with caller(tenant=self.tenant):
            return self.runner.run(work, context=copy_context())

    def rows(self, query: Any, *parameters: Any) -> Any:
        return self.run(self.database.fetch(query, parameters))

    # What users do.

    @rule(target=ids)
    def upload(self) -> str:
        incoming = Incoming(f"text {next(self.contents)}", title="t")
        document, outcome = self.run(self.parts.uploads.accept(incoming))
        assert outcome is UploadOutcome.CREATED
        self.model.titles[document.id] = "t"
        self.model.lines |= {(document.id, number): Line() for number in self.model.generations}
        return document.id

    @rule(id_=ids)
    def replace(self, id_: str) -> None:
        incoming = Incoming(f"text {next(self.contents)}", document_id=id_)
        self._change(id_, self.parts.uploads.accept(incoming), Line.begin)

    @rule(id_=ids)
    def index_anew(self, id_: str) -> None:
        self._change(id_, self.parts.documents.index(id_, None), Line.begin)

    @rule(id_=ids)
    def retry(self, id_: str) -> None:
        is_failed = id_ not in self.model.receipts and self.model.seen(id_).state is FAILED
        self._change(id_, self.parts.documents.retry(id_), Line.begin, possible=is_failed)

    @rule(id_=ids, title=st.sampled_from(["u", "v"]))
    def update_title(self, id_: str, title: str) -> None:
        work = self.parts.documents.update(id_, title=title, attributes=None, etag="")
        self._change(id_, work, lambda _: self.model.titles.update({id_: title}))

    def _change(self, id_: str, work: Any, effect: Callable[[Line], None], *, possible: bool = True) -> None:
        """Each generation's row changes alike; nothing does once the document is deleted."""
        if id_ in self.model.receipts or not possible:
            with pytest.raises((DocumentNotFound, DocumentStateUnsuitable)):
                self.run(work)
            return
        self.run(work)
        for line in self.model.of(id_):
            effect(line)

    @rule(id_=ids)
    def delete(self, id_: str) -> None:
        receipt_id = self.run(self.parts.deletions.delete(id_))
        assert self.model.receipts.setdefault(id_, receipt_id) == receipt_id
        for line in self.model.of(id_):
            line.state = DELETING

    @rule()
    def begin_generation(self) -> None:
        work = self.parts.generations.create(STORE, model="other", strategy=None)
        if len(self.model.generations) > 1:
            with pytest.raises(GenerationAlreadyExists):
                self.run(work)
            return
        self.model.last += 1
        self.model.generations.add(self.model.last)
        assert self.run(work).generation == self.model.last

    @precondition(lambda self: len(self.model.generations) > 1)
    @rule()
    def activate(self) -> None:
        beside = self.model.beside()
        work = self.parts.generations.activate(STORE, beside)
        if any(self.model.is_missing(id_, beside) for id_ in self.model.kept()):
            with pytest.raises(GenerationStateUnsuitable):
                self.run(work)
            return
        self.run(work)
        self.model.live = beside

    @precondition(lambda self: len(self.model.generations) > 1)
    @rule()
    def drop_generation(self) -> None:
        beside = self.model.beside()
        self.run(self.parts.generations.delete(STORE, beside))
        self.model.generations.remove(beside)

    # What workers do.

    @rule(target=claims, which=st.integers(0, 5))
    def claim(self, which: int) -> Any:
        found = self.rows(OPEN_JOBS)
        return self._claim(found[which]["id"]) if which < len(found) else multiple()

    def _claim(self, job_id: str) -> Claim:
        (row,) = self.rows(CLAIM, job_id)
        job = Job(**row)
        loaded = (None, None)
        if job.kind in (jobs.INDEX, jobs.EMBED_BATCH):
            loaded = self.run(self.parts.indexing._records.load(job.subject_id, job.payload["version"]))
        claim = Claim(job, *loaded)
        self.claimed.append(claim)
        return claim

    def _line(self, claim: Claim) -> Line | None:
        """The line that still waits for what the claim is about."""
        line = self.model.lines.get(claim.place)
        return line if line is not None and line.wants(claim.job.payload["version"]) else None

    @rule(claim=claims)
    def announce(self, claim: Claim) -> None:
        if self._is_index(claim):
            claim.document = self.run(self.parts.indexing._announce(claim.job, claim.document))
            if (line := self._line(claim)) and line.state is UPLOADED:
                line.state = PARSING

    @rule(claim=claims)
    def write(self, claim: Claim) -> None:
        """A worker that writes into the index and is heard of later, or never again."""
        if self._is_index(claim):
            reading, parse = _read(claim)
            document, version = claim.document, claim.version
            target = carried(document, version, found_title=parse.title)
            more = {"embedded_title": parse.embedded_title, "key": document.key, "since": document.version}
            self.run(self.parts.indexing._writer.write(target, reading.chunks(), **more))

    def _is_index(self, claim: Claim) -> bool:
        return claim.job.kind == jobs.INDEX and claim.is_current and not claim.ended

    @rule(claim=claims, in_batches=st.booleans())
    def do(self, claim: Claim, in_batches: bool) -> None:
        """Only the holder of the latest claim completes its job, and only what is wanted has any effect."""
        if claim.ended:
            return
        claim.ended, held = True, bool(self.rows(HELD, claim.job.id, claim.job.fence))
        handler = self.parts.handlers[claim.job.kind]
        if claim.job.kind == jobs.INDEX:
            handler = LateWriter(handler=partial(self._index, claim, in_batches), deletions=self.parts.deletions)
        if held:
            self.run(handler(claim.job))
            assert claim.job.progress.completed
        else:
            with pytest.raises(FenceLost):
                self.run(handler(claim.job))
        self._done(claim, in_batches=in_batches, held=held)

    @rule(claim=claims)
    def do_at_once(self, claim: Claim) -> None:
        """The same, so that it is tried more often than the rest."""
        self.do(claim, in_batches=False)

    async def _index(self, claim: Claim, in_batches: bool, job: Job) -> None:
        """The handler of INDEX from where it has read document and version, which was when the job was claimed."""
        indexing, loaded = self.parts.indexing, (claim.document, claim.version)
        wanted = False
        if claim.is_current and in_batches:
            wanted = await indexing._fan_out(job, claim.document, *_read(claim))
        elif claim.is_current:
            wanted = await indexing._index(job, *loaded, *_read(claim))
        if not wanted:
            await indexing._publisher.drop(job, *loaded)

    def _done(self, claim: Claim, *, in_batches: bool, held: bool) -> None:
        job, line = claim.job, None
        match job.kind:
            case jobs.INDEX | jobs.EMBED_BATCH if held and claim.version is not None:
                line = self._line(claim)
            case jobs.BUILD_GENERATION if held:
                self.model.build(job.payload["generation"])
            case jobs.DROP_GENERATION:
                self.model.remove(lambda place: place[1] == job.payload["generation"])
            case jobs.DELETE if held and job.subject_id in self.model.receipts:
                self.model.remove(lambda place: place[0] == job.subject_id)
        if line is not None and job.kind == jobs.INDEX and in_batches:
            line.state = EMBEDDING
        elif line is not None:
            line.publish(job.payload["version"])

    @rule(claim=claims, error=st.sampled_from([DependencyUnavailable("x"), DocumentCorrupt("x")]))
    def give_up(self, claim: Claim, error: DependencyUnavailable | DocumentCorrupt) -> None:
        if claim.ended:
            return
        work = self.parts.leases.give_up(claim.job, error, self.parts.on_dead)
        if not self.rows(HELD, claim.job.id, claim.job.fence):
            with pytest.raises(FenceLost):
                self.run(work)
            return
        self.run(work)
        claim.ended = True
        line = self._line(claim) if claim.job.kind in (jobs.INDEX, jobs.EMBED_BATCH) else None
        if line is not None:
            line.state, line.retryable = FAILED, error.retryable

    @rule(in_batches=st.booleans())
    def work_off(self, in_batches: bool) -> None:
        """All jobs are done, by others than those who have them."""
        for _ in range(PLENTY):
            found = self.rows(OPEN_JOBS)
            if not found:
                return
            self.do(self._claim(found[0]["id"]), in_batches=in_batches)
            self.rows_are_what_the_model_says()
        raise AssertionError(found)

    @rule()
    def settle(self) -> None:
        """Once the last worker has come to its end nothing is left over in the stores."""
        for claim in self.claimed:
            self.do(claim, in_batches=False)
        self.work_off(in_batches=False)
        held = [document for document, _ in self.parts.index.chunks.values()]
        for each in held:
            line = self.model.lines[each.document_id, each.generation]
            # What a version that failed has left goes with the next that does not.
            assert each.version == line.version or (line.state is FAILED and each.version > line.version)
            assert each.title == self.model.titles[each.document_id] or each.version > line.version
        assert {objects.document_of(key) for key in self.parts.blobs.objects} <= {*self.model.kept()}
        for receipt_id in self.model.receipts.values():
            purges = self.run(self.parts.receipts.get(receipt_id)).purges
            left = [purge.store for purge in purges if purge.finish_time is None]
            assert left == [ContentStore.CONVERSATIONS]

    # What holds at any time.

    @invariant()
    def searches_see_what_the_model_says(self) -> None:
        for number in range(self.model.last + 1):
            live = self.run(self.parts.liveness.resolve(STORE, number, list(self.model.titles)))
            if number and number not in self.model.generations:
                assert live is None
                continue
            assert live.generation == (number or self.model.live)
            assert live.versions == self.model.visible(live.generation)
            for id_, version in live.versions.items():
                place = (id_, live.generation)
                assert version >= self.shown.get(place, 1)
                assert (version, 0) in self.parts.index.held(id_, generation=live.generation)
                self.shown[place] = version

    @invariant()
    def rows_are_what_the_model_says(self) -> None:
        rows = self.rows("SELECT id, generation, state, version, latest_version FROM documents")
        found = {
            (row["id"], row["generation"]): (DocumentState(row["state"]), row["version"], row["latest_version"])
            for row in rows
        }
        assert found == {place: (line.state, line.version, line.latest) for place, line in self.model.lines.items()}
        for place, (state, version, latest) in found.items():
            before, version_before, latest_before = self.rows_before.get(place, (UPLOADED, 0, 1))
            assert state is before or may_enter(before, state)
            assert version_before <= version <= latest >= latest_before
        for place in self.rows_before.keys() - found.keys():
            assert self.rows_before[place][0] is DELETING or place[1] not in self.model.generations
        self.rows_before = found

    @invariant()
    def every_deleted_document_has_one_receipt_and_is_not_to_be_found(self) -> None:
        receipts = self.rows("SELECT document_id, id FROM deletions")
        assert sorted((row["document_id"], row["id"]) for row in receipts) == sorted(self.model.receipts.items())
        listed = self.run(self.parts.documents.page(DocumentQuery(vector_store_id=STORE), after="", limit=PLENTY))
        assert {document.id: document.title for document in listed} == {
            id_: self.model.titles[id_] for id_ in self.model.kept()
        }


def _read(claim: Claim) -> tuple[OneChunk, Parse]:
    document: Any = claim.document
    text = f"text of {document.sha256}"
    parse = Parse(
        text_key=f"{claim.job.id}-{claim.job.fence}.txt",
        text_landmarks=[0],
        text_chars=len(text),
        media_type="text/plain",
        title="",
        embedded_title=document.title,
        page_count=1,
        chunk_count=1,
        token_count=0,
        metadata_revision=document.metadata_revision,
    )
    return OneChunk(text), parse


@pytest.fixture
def machine(postgres_url: str) -> Iterator[type[DocumentLife]]:
    """The machine on a database of its own; its loop is not that of an asynchronous test."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        urls = runner.run(
            stack.enter_async_context(fresh_database(postgres_url, schema=SERVICE, migrations=MIGRATIONS))
        )
        opened = open_database(Settings(database_url=urls.plain))
        DocumentLife.runner, DocumentLife.database = runner, runner.run(stack.enter_async_context(opened))
        yield DocumentLife
        runner.run(stack.aclose())


def test_a_late_worker_does_not_take_a_document_back(machine: type[DocumentLife]) -> None:
    life = machine()
    life.upload()
    late, other = life.claim(0), life.claim(0)
    life.do(other, in_batches=True)
    life.announce(late)
    life.rows_are_what_the_model_says()
    life.settle()


def test_a_late_worker_leaves_no_title_of_before(machine: type[DocumentLife]) -> None:
    life = machine()
    id_ = life.upload()
    late, other = life.claim(0), life.claim(0)
    life.do(other, in_batches=False)
    life.update_title(id_, "u")
    life.work_off(in_batches=False)
    life.do(late, in_batches=False)
    life.settle()


@pytest.mark.parametrize("in_batches", [False, True])
def test_a_version_that_was_superseded_does_not_go_live(machine: type[DocumentLife], in_batches: bool) -> None:
    life = machine()
    id_ = life.upload()
    late = life.claim(0)
    life.index_anew(id_)
    life.do(late, in_batches=in_batches)
    life.rows_are_what_the_model_says()
    life.searches_see_what_the_model_says()
    life.settle()


def test_whatever_happens_searches_see_what_the_model_says(machine: type[DocumentLife]) -> None:
    few = settings(
        max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    run_state_machine_as_test(machine, settings=few)
