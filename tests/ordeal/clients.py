"""Callers who write down what they are told, and ask again with the same key when they were told nothing."""

import asyncio
import hashlib
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Self, TypeVar

import httpx
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.struct_pb2 import Struct
from grpc import StatusCode, aio
from loremesh.agent.v1 import chat_pb2
from loremesh.agent.v1.chat_pb2_grpc import ChatServiceStub
from loremesh.ingestion.v1 import document_pb2 as pb
from loremesh.ingestion.v1.document_pb2_grpc import DocumentServiceStub
from loremesh.retrieval.v1 import retrieval_pb2
from loremesh.retrieval.v1.retrieval_pb2_grpc import RetrievalServiceStub

from tests.ordeal import text
from tests.ordeal.checker import NOT_ASKED, TERMINAL
from tests.ordeal.ledger import Entry, Ledger, Outcome
from tests.ordeal.passages import edition_in, generation_of

T = TypeVar("T")
MARK = "ordeal_key"
_CALL_SECONDS = 20.0
_PAUSE_SECONDS = 0.3
# There are hundreds of them in a large one.
_WATCH_PAUSE_SECONDS = 1.0
_HTTP_OK = 200
_HTTP_OVERLOADED = 429
_HTTP_SERVER = 500
# The caller learns nothing of the effect, or is asked to come again.
_AGAIN = frozenset(
    {
        StatusCode.UNAVAILABLE,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.INTERNAL,
        StatusCode.CANCELLED,
        StatusCode.UNKNOWN,
        StatusCode.RESOURCE_EXHAUSTED,
        StatusCode.ABORTED,
    }
)
_FINISHED = frozenset({pb.DOCUMENT_STATE_READY, pb.DOCUMENT_STATE_FAILED})


@dataclass(kw_only=True)
class Clients:
    """All of them; `patience` is for how many seconds one call is tried again."""

    target: str
    ledger: Ledger
    seed: int
    documents: int
    patience: float
    replies: list[str] = field(default_factory=list)
    chance: random.Random = field(init=False)
    channel: aio.Channel = field(init=False)
    http: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)  # noqa: S311 - the same callers for the same seed

    async def __aenter__(self) -> Self:
        self.channel = aio.insecure_channel(self.target)
        self.http = httpx.AsyncClient(base_url=f"http://{self.target}", timeout=_CALL_SECONDS)
        for store in (text.STORE, text.SWITCHED):
            (await self.http.post("/api/v1/vector_stores", json={"id": store})).raise_for_status()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()
        await self.channel.close()

    async def upload(self, number: int) -> str:
        """Over gRPC and REST by turns, until it is accepted; the document's id, empty if it never was."""
        key, content, store = text.key(self.seed, number), text.body(self.seed, number), text.store(number)
        way = self._upload_by_grpc if number % 2 else self._upload_by_rest
        told = await self._insist("upload", lambda: way(key, content, store), key=key, text=_digest(content))
        return told["document_id"] if told else ""

    async def replace(self, document_id: str, number: int, *, edition: int) -> int | None:
        """Upload it with other content, until that is accepted; which version was live then, None if it never was."""
        content, version = text.body(self.seed, number, edition), 0

        async def call() -> dict[str, str]:
            nonlocal version
            version = (await self._put(document_id, content, key=f"{text.key(self.seed, number)}-{edition}")).version
            return {}

        facts = {"document_id": document_id, "key": str(edition), "text": _digest(content)}
        return None if await self._insist("replace", call, **facts) is None else version

    async def follow(self, document_id: str, *, edition: int, after: int) -> None:
        """Look until searches see an edition that was accepted when the version `after` was live, and write that down.

        `current` says in the ledger since when, with the edition for a version.
        """
        until = time.monotonic() + self.patience
        while time.monotonic() < until:
            sent, found = time.monotonic(), await self.look(document_id)
            if found is None or found.state == pb.DOCUMENT_STATE_FAILED:
                return
            # Work for older versions is void from the acceptance of this one on: what is later is this content.
            if found.state == pb.DOCUMENT_STATE_READY and found.version > after:
                self.ledger.note("current", Outcome.OK, sent=sent, document_id=document_id, version=edition)
                return
            await asyncio.sleep(_WATCH_PAUSE_SECONDS)

    async def upload_again(self, document_id: str, number: int) -> None:
        """Upload a document with the very content it has."""
        content, key = text.body(self.seed, number), f"{text.key(self.seed, number)}-again"

        async def call() -> dict[str, str]:
            await self._put(document_id, content, key=key)
            return {}

        await self._insist("upload_again", call, document_id=document_id)

    async def _put(self, document_id: str, content: str, *, key: str) -> pb.Document:
        file = HttpBody(content_type="text/plain", data=content.encode())
        request = pb.UploadDocumentRequest(file=file, document_id=document_id)
        metadata = (("idempotency-key", key),)
        stub = DocumentServiceStub(self.channel)
        return await stub.UploadDocument(iter([request]), timeout=_CALL_SECONDS, metadata=metadata)

    async def _upload_by_grpc(self, key: str, content: str, store: str) -> dict[str, str]:
        attributes = Struct()
        attributes.update({MARK: key})
        file = HttpBody(content_type="text/plain", data=content.encode())
        request = pb.UploadDocumentRequest(file=file, vector_store_id=store, attributes=attributes)
        stub = DocumentServiceStub(self.channel)
        metadata = (("idempotency-key", key),)
        answer = await stub.UploadDocument(iter([request]), timeout=_CALL_SECONDS, metadata=metadata)
        return {"document_id": answer.id}

    async def _upload_by_rest(self, key: str, content: str, store: str) -> dict[str, str]:
        body = {"content": content, "vector_store_id": store, "attributes": {MARK: key}}
        response = await self.http.post("/api/v1/documents", json=body, headers={"idempotency-key": key})
        self.replies.append(response.text)
        if response.status_code == _HTTP_OVERLOADED or response.status_code >= _HTTP_SERVER:
            raise ConnectionError(str(response.status_code))
        response.raise_for_status()
        return {"document_id": response.json()["id"]}

    async def delete(self, document_id: str) -> None:
        """Until it is accepted, or was before."""
        stub = DocumentServiceStub(self.channel)

        async def call() -> dict[str, str]:
            await stub.DeleteDocument(pb.DeleteDocumentRequest(document_id=document_id), timeout=_CALL_SECONDS)
            return {}

        await self._insist("delete", call, document_id=document_id)

    async def index(self, document_id: str, *, key: str) -> None:
        """Have it indexed anew."""
        stub = DocumentServiceStub(self.channel)

        async def call() -> dict[str, str]:
            request = pb.IndexDocumentRequest(document_id=document_id)
            await stub.IndexDocument(request, timeout=_CALL_SECONDS, metadata=(("idempotency-key", key),))
            return {}

        await self._insist("index", call, document_id=document_id, key=key)

    async def look(self, document_id: str) -> pb.Document | None:
        """See which version is live; None when there is no such document, one without an id when nothing was heard."""
        sent, stub = time.monotonic(), DocumentServiceStub(self.channel)
        try:
            found = await stub.GetDocument(pb.GetDocumentRequest(document_id=document_id), timeout=_CALL_SECONDS)
        except aio.AioRpcError as error:
            heard = not self._refused("seen", error, sent=sent, document_id=document_id)
            return None if heard else pb.Document()
        self.ledger.note("seen", Outcome.OK, sent=sent, document_id=document_id, version=found.version)
        return found

    async def unfinished(self, document_id: str) -> bool:
        """Whether there is still something to be done for it, as far as one can see."""
        found = await self.look(document_id)
        return found is not None and found.state not in _FINISHED

    async def search(self) -> None:
        """Once; what is found is judged later."""
        store = self.chance.choice((text.STORE, text.SWITCHED))
        sent, stub = time.monotonic(), RetrievalServiceStub(self.channel)
        query = text.query(self.chance, self.documents, of=store)
        request = retrieval_pb2.SearchRequest(query=query, vector_store_id=store, top_k=50)
        try:
            found = await stub.Search(request, timeout=_CALL_SECONDS)
        except aio.AioRpcError as error:
            self._refused("search", error, sent=sent, key=store)
        else:
            self.ledger.note("search", Outcome.OK, sent=sent, key=store, hits=[_hit(each) for each in found.results])

    async def watch(self, document_id: str) -> None:
        """A document's events to the end, resumed after each cut."""
        stub, after, until = DocumentServiceStub(self.channel), 0, time.monotonic() + self.patience
        while time.monotonic() < until:
            sent, events = time.monotonic(), list[tuple[int, str]]()
            request = pb.WatchDocumentRequest(document_id=document_id, after_seq=after)
            try:
                async for event in stub.WatchDocument(request, timeout=self.patience):
                    kind = str(event.WhichOneof("payload"))
                    if kind not in ("heartbeat", "snapshot"):
                        events.append((event.seq, kind))
            except aio.AioRpcError as error:
                outcome, reason = Outcome.CUT, str(error.code())
                self.replies.append(str(error.details()))
                if error.code() is StatusCode.NOT_FOUND:
                    return
            else:
                outcome, reason = Outcome.OK, ""
            after = events[-1][0] if events else after
            self.ledger.write(
                Entry(
                    call="watch",
                    outcome=outcome,
                    sent=sent,
                    at=time.monotonic(),
                    key=document_id,
                    document_id=document_id,
                    events=events,
                    reason=reason,
                )
            )
            if outcome is Outcome.OK:
                return
            await asyncio.sleep(_WATCH_PAUSE_SECONDS)

    async def chat(self, number: int) -> None:
        """Ask once, and keep what was streamed."""
        stub, sent, events, said = ChatServiceStub(self.channel), time.monotonic(), list[tuple[int, str]](), ""
        request = chat_pb2.ChatRequest(message=text.query(self.chance, self.documents), vector_store_ids=[text.STORE])
        outcome, reason = Outcome.OK, ""
        try:
            async for event in stub.StreamChat(request, timeout=_CALL_SECONDS):
                kind = str(event.WhichOneof("payload"))
                if kind == "heartbeat":
                    continue
                events.append((event.seq, kind))
                if kind == "completed":
                    said, reason = event.completed.response, "" if event.completed.model else NOT_ASKED
                if kind in TERMINAL:
                    self.replies.append(str(event))
        except aio.AioRpcError as error:
            outcome, reason = Outcome.CUT, str(error.code())
            self.replies.append(str(error.details()))
        self.ledger.note("chat", outcome, sent=sent, key=str(number), events=events, text=said, reason=reason)

    async def chat_job(self, number: int) -> None:
        """Ask in the background, until it is accepted; the job's id stands where a document's would."""
        key = f"chat-{self.seed}-{number}"
        question = text.query(random.Random(key), self.documents)  # noqa: S311 - the same body under the same key
        body = {"message": question, "vector_store_ids": [text.STORE]}
        await self.accepted("chat_job", "/api/v1/chat/async", body, key=key, id_field="job_id")

    async def accepted(self, call: str, path: str, body: object, *, key: str, id_field: str) -> str:
        """Post something under a key, until it is accepted; its id, which stands where a document's would."""

        async def post() -> dict[str, str]:
            response = await self.http.post(path, json=body, headers={"idempotency-key": key})
            self.replies.append(response.text)
            if response.status_code == _HTTP_OVERLOADED or response.status_code >= _HTTP_SERVER:
                raise ConnectionError(str(response.status_code))
            response.raise_for_status()
            return {"document_id": response.json()[id_field]}

        told = await self._insist(call, post, key=key)
        return told["document_id"] if told else ""

    async def _insist(
        self, name: str, call: Callable[[], Awaitable[dict[str, str]]], **facts: str
    ) -> dict[str, str] | None:
        """Again and again, until it is accepted or refused; what was told, None where nothing was."""
        until = time.monotonic() + self.patience
        while time.monotonic() < until:
            sent = time.monotonic()
            try:
                told = await call()
            except (aio.AioRpcError, httpx.HTTPError, ConnectionError) as error:
                if not self._refused(name, error, sent=sent, **facts):
                    return None
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                self.ledger.note(name, Outcome.OK, sent=sent, **{**facts, **told})
                return told
        return None

    def _refused(self, name: str, error: Exception, *, sent: float, **facts: str) -> bool:
        """Write it down; whether it is worth another try."""
        again = not isinstance(error, aio.AioRpcError) or error.code() in _AGAIN
        if isinstance(error, httpx.HTTPStatusError):
            again = False
        reason = str(error.code()) if isinstance(error, aio.AioRpcError) else type(error).__name__
        self.replies.append(str(error.details()) if isinstance(error, aio.AioRpcError) else str(error))
        self.ledger.note(name, Outcome.CUT if again else Outcome.REFUSED, sent=sent, reason=reason, **facts)
        return again


def _hit(found: retrieval_pb2.SearchResult) -> tuple[str, int, int, int]:
    generation = generation_of(found.chunk_id, found.vector_store_id, found.document_id, found.document_version)
    return found.document_id, found.document_version, generation, edition_in(found.content)


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()
