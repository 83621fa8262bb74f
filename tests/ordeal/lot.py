"""A piece of ground with a client on it, and the verdict on what happened there."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psycopg
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.struct_pb2 import Struct
from grpc import StatusCode, aio
from loremesh.ingestion.v1 import document_pb2 as pb
from loremesh.ingestion.v1.document_pb2_grpc import DocumentServiceStub
from loremesh.ingestion.v1.generation_pb2 import ActivateIndexGenerationRequest, CreateIndexGenerationRequest
from loremesh.ingestion.v1.generation_pb2_grpc import IndexGenerationServiceStub
from loremesh.ingestion.v1.vector_store_pb2 import ChunkingStrategy
from loremesh_kit.testing import caller
from psycopg.rows import dict_row

from tests.ordeal.checker import Finding, Promise, judge
from tests.ordeal.clients import MARK
from tests.ordeal.ledger import Ledger, Outcome
from tests.ordeal.passages import edition_in
from tests.ordeal.steel import WHOLE, Ground, Process, Twin
from tests.ordeal.stores import DocumentRow, JobRow, Stores

T = TypeVar("T")
TENANT = "acme"
STORE = "default"
_QUIET_SECONDS = 20.0
_POLL_SECONDS = 0.05
_CALL_SECONDS = 20.0

_BUSY = """
SELECT (SELECT count(*) FROM documents WHERE state NOT IN ('READY', 'FAILED'))
    + (SELECT count(*) FROM jobs WHERE state IN ('QUEUED', 'RUNNING'))
    + (SELECT count(*) FROM outbox WHERE sent_at IS NULL) AS busy
"""
# What a dead process has held for fifteen seconds is free: let them have passed.
_PASS_TIME = "UPDATE outbox SET held_until = now() WHERE held_until > now()"

# No agent runs here to forget what it quoted.
_RECEIPTS = """
SELECT document_id, num_nulls(index_time, objects_time, rows_time) = 0 AS finished FROM deletions
"""

_DOCUMENTS = """
SELECT documents.id, documents.generation = vector_stores.generation AS live, state, version, failure,
    documents.attributes
FROM documents JOIN vector_stores ON vector_stores.id = vector_store_id
"""

_EXPECTED = """
SELECT documents.id AS document_id, documents.generation, chunks.version, chunks.index
FROM chunks JOIN documents ON documents.key = chunks.document_id WHERE chunks.version = documents.version
"""


@dataclass(kw_only=True)
class Lot:
    """One tenant's client, one process at a time unless a test starts more."""

    ground: Ground
    superuser_url: str
    ledger: Ledger = field(default_factory=Ledger)
    twin: Twin = WHOLE
    process: Process = field(init=False)
    _processes: list[Process] = field(default_factory=list)
    _connection: psycopg.AsyncConnection[dict[str, Any]] | None = None

    async def start(self) -> Process:
        """Start the first process, or another after the last one has ended."""
        self.process = await Process(self.ground, twin=self.twin).start()
        self._processes.append(self.process)
        return self.process

    async def upload(self, content: str, *, key: str = "") -> str:
        """The document's id; empty when nothing was heard of it."""
        attributes = Struct()
        attributes.update({MARK: key})
        file = HttpBody(content_type="text/plain", data=content.encode())
        request = pb.UploadDocumentRequest(file=file, attributes=attributes)
        metadata = (("idempotency-key", key),) if key else ()
        answer = await self._call(
            "upload",
            lambda stub: stub.UploadDocument(iter([request]), timeout=_CALL_SECONDS, metadata=metadata),
            key=key,
        )
        return "" if answer is None else str(answer.id)

    async def replace(self, document_id: str, content: str, *, key: str) -> None:
        """Upload it with other content."""
        await self._put("replace", document_id, content, key=key)

    async def upload_again(self, document_id: str, content: str) -> None:
        """Upload it with the content it has."""
        await self._put("upload_again", document_id, content)

    async def _put(self, name: str, document_id: str, content: str, *, key: str = "") -> None:
        file = HttpBody(content_type="text/plain", data=content.encode())
        request = pb.UploadDocumentRequest(file=file, document_id=document_id)
        await self._call(
            name,
            lambda stub: stub.UploadDocument(iter([request]), timeout=_CALL_SECONDS),
            document_id=document_id,
            key=key,
        )

    def sees(self, document_id: str, *, edition: int) -> None:
        """Write down that from now on no search may find an earlier edition."""
        now = time.monotonic()
        self.ledger.note("current", Outcome.OK, sent=now, document_id=document_id, version=edition)

    async def switch(self) -> None:
        """Build the next generation of the store's index and have searches see that."""
        with caller(tenant=TENANT):
            stub: Any = IndexGenerationServiceStub(self.process.channel)
            strategy = ChunkingStrategy(type="CHUNKING_STRATEGY_TYPE_SENTENCES", max_tokens=16)
            begin = CreateIndexGenerationRequest(vector_store_id=STORE, chunking_strategy=strategy)
            generation = (await stub.CreateIndexGeneration(begin, timeout=_CALL_SECONDS)).generation
            await self.quiet()
            sent, wanted = time.monotonic(), {"vector_store_id": STORE, "generation": generation}
            await stub.ActivateIndexGeneration(ActivateIndexGenerationRequest(**wanted), timeout=_CALL_SECONDS)
        self.ledger.note("switched", Outcome.OK, sent=sent, key=STORE, version=generation)

    async def rename(self, document_id: str) -> None:
        """Give it another title."""
        request = pb.UpdateDocumentRequest(document=pb.Document(id=document_id, title="Another title"))
        await self._call("rename", lambda stub: stub.UpdateDocument(request, timeout=_CALL_SECONDS))

    async def delete(self, document_id: str) -> None:
        """Ask for it to be deleted."""
        request = pb.DeleteDocumentRequest(document_id=document_id)
        await self._call(
            "delete", lambda stub: stub.DeleteDocument(request, timeout=_CALL_SECONDS), document_id=document_id
        )

    async def index(self, document_id: str, *, key: str = "") -> None:
        """Ask for it to be indexed anew."""
        request = pb.IndexDocumentRequest(document_id=document_id)
        metadata = (("idempotency-key", key),) if key else ()
        await self._call(
            "index",
            lambda stub: stub.IndexDocument(request, timeout=_CALL_SECONDS, metadata=metadata),
            document_id=document_id,
            key=key,
        )

    async def retitle(self, document_id: str, title: str) -> None:
        """Give it another title."""
        request = pb.UpdateDocumentRequest(document=pb.Document(id=document_id, title=title))
        await self._call(
            "update", lambda stub: stub.UpdateDocument(request, timeout=_CALL_SECONDS), document_id=document_id
        )

    async def look(self, document_id: str) -> int:
        """The version that is live."""
        request = pb.GetDocumentRequest(document_id=document_id)
        answer = await self._call(
            "seen", lambda stub: stub.GetDocument(request, timeout=_CALL_SECONDS), document_id=document_id
        )
        return 0 if answer is None else int(answer.version)

    async def search(self, document_id: str, *, strict: bool = True) -> None:
        """Take what the index holds of a document for what a search would find; `strict` asks first what is live."""
        sent = time.monotonic()
        points = [_hit(held, entry) for held, entry in self._points() if held.document_id == document_id]
        if strict:
            with caller(tenant=TENANT):
                request = pb.ResolveVersionsRequest(vector_store_id=STORE, document_ids=[document_id])
                stub: Any = DocumentServiceStub(self.process.channel)
                live = await stub.ResolveVersions(request, timeout=_CALL_SECONDS)
            points = [each for each in points if (live.versions.get(each[0]), live.generation) == each[1:3]]
        self.ledger.note("search", Outcome.OK, sent=sent, key=STORE, hits=points)

    async def promises(self) -> frozenset[Promise]:
        """Those the service makes already."""
        found = set(Promise)
        try:
            await self.search("nothing")
        except aio.AioRpcError as error:
            if error.code() is not StatusCode.NOT_FOUND:
                found.discard(Promise.STRICT_SEARCH)
        if await self.upload("One.", key="asked twice") and await self.upload("Two.", key="asked twice"):
            found.discard(Promise.UPLOAD_KEYS)
        self.ledger.entries.clear()
        return frozenset(found)

    async def _call(self, name: str, call: Callable[[Any], Awaitable[Any]], **facts: str) -> Any:
        """What was answered, also written down; None when the process died or refused."""
        process = self.process
        sent, died = time.monotonic(), asyncio.ensure_future(process.life.died.wait())
        with caller(tenant=TENANT):
            calling = asyncio.ensure_future(call(DocumentServiceStub(process.channel)))
        await asyncio.wait({calling, died}, return_when=asyncio.FIRST_COMPLETED)
        died.cancel()
        if not calling.done():
            calling.cancel()
            self.ledger.note(name, Outcome.CUT, sent=sent, **facts)
            return None
        try:
            answer = calling.result()
        except aio.AioRpcError as error:
            self.ledger.note(name, Outcome.REFUSED, sent=sent, reason=str(error.code()), **facts)
            return None
        told: dict[str, Any] = {"document_id": answer.id} if name == "upload" else {}
        told |= {"version": answer.version} if name == "seen" else {}
        self.ledger.note(name, Outcome.OK, sent=sent, **{**facts, **told})
        return answer

    async def quiet(self, seconds: float = _QUIET_SECONDS, *, or_dead: bool = False) -> bool:
        """Wait until nothing is left to do; False when there still is after so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if or_dead and (self.process.life.died.is_set() or self.process.life.frozen.is_set()):
                return False
            if (await self.rows(_BUSY))[0]["busy"] == 0:
                return True
            await asyncio.sleep(_POLL_SECONDS)
        return False

    async def settle(self) -> None:
        """Come to rest, letting the holds of dead processes run out; what is busy after that is stuck."""
        for _ in range(3):
            await self.pass_time()
            if await self.quiet():
                return

    async def pass_time(self) -> None:
        """Have the holds of a dead process run out."""
        await self.rows(_PASS_TIME)

    async def stores(self) -> Stores:
        """What they hold."""
        lines = await self.rows(_DOCUMENTS)
        jobs = await self.rows("SELECT id, kind, state FROM jobs")
        unsent = await self.rows("SELECT count(*) AS count FROM outbox WHERE sent_at IS NULL")
        expected = await self.rows(_EXPECTED)
        receipts = await self.rows(_RECEIPTS)
        events: dict[str, list[int]] = {}
        for row in await self.rows("SELECT run_id, seq FROM events ORDER BY run_id, seq"):
            events.setdefault(row["run_id"], []).append(row["seq"])
        return Stores(
            documents={row["id"]: _document(row) for row in lines if row["live"]},
            others=[_document(row) for row in lines if not row["live"]],
            jobs=[JobRow(**row) for row in jobs],
            unsent=unsent[0]["count"],
            expected=frozenset(tuple(row.values()) for row in expected),
            indexed=[
                (held.document_id, held.generation, held.version, entry.chunk.index) for held, entry in self._points()
            ],
            objects=frozenset(key.split("/")[1] for key in self.ground.blobs.objects),
            receipts={row["document_id"]: row["finished"] for row in receipts},
            events=events,
        )

    def _points(self) -> list[Any]:
        return list(self.ground.index.chunks.values())

    async def verdict(self, *, promises: Collection[Promise] = frozenset()) -> list[Finding]:
        """By the same checker that judges a whole mesh."""
        return judge(self.ledger.entries, await self.stores(), promises=promises)

    async def settled_verdict(self, *, promises: Collection[Promise] = frozenset()) -> list[Finding]:
        """The verdict at rest; asked for twice when it is bad, since a process that starts sends facts once more."""
        await self.settle()
        if findings := await self.verdict(promises=promises):
            await self.settle()
            findings = await self.verdict(promises=promises)
        return findings

    async def rows(self, query: str) -> list[dict[str, Any]]:
        """As a superuser, past every process."""
        if self._connection is None:
            self._connection = await psycopg.AsyncConnection.connect(
                self.superuser_url, row_factory=dict_row, autocommit=True
            )
        cursor = await self._connection.execute(query)  # type: ignore[arg-type]
        return await cursor.fetchall() if cursor.description else []

    def unused_rewrites(self) -> set[str]:
        """Patterns of the twin that no process has met."""
        return set.intersection(*(process.database.unused for process in self._processes))

    async def close(self) -> None:
        """End what still runs."""
        for process in self._processes:
            await process.end()
        if self._connection is not None:
            await self._connection.close()


def _document(row: dict[str, Any]) -> DocumentRow:
    return DocumentRow(
        id=row["id"],
        state=row["state"],
        version=row["version"],
        key=row["attributes"].get(MARK, ""),
        reason=(row["failure"] or {}).get("reason", ""),
    )


def _hit(held: Any, entry: Any) -> tuple[str, int, int, int]:
    return held.document_id, held.version, held.generation, edition_in(entry.chunk.text)
