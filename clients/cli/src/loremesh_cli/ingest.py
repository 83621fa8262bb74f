"""Puts files into a mesh and sees each through to its end: several at once, each once, over restarts of the mesh."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.api.httpbody_pb2 import HttpBody  # type: ignore[import-untyped]
from google.protobuf.struct_pb2 import Struct
from loremesh.common.v1.filter_pb2 import Exists, Filter
from loremesh.ingestion.v1 import document_pb2 as pb

from loremesh_cli.client import UNARY_SECONDS, Mesh, as_command_error
from loremesh_cli.files import LIMIT_BYTES, legible, media_type, pieces, sha256

FILES_AT_ONCE = 48
UPLOADS_AT_ONCE = 8
UPLOAD_SECONDS = 600.0
PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 0.5
PAGE_SIZE = 1000
PATH = "path"  # the attribute that says which file a document was
PASSING = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED})

T = TypeVar("T")


@dataclass(slots=True)
class FileProgress:
    """How far one file is: in `stage`, with `done` of `total` bytes or batches; `outcome` is set at its end."""

    path: Path
    stage: str = "waiting"
    done: int = 0
    total: int = 0
    outcome: str = ""  # ready, known or failed
    document_id: str = ""
    chunks: int = 0
    reason: str = ""
    message: str = ""

    def move(self, stage: str, *, done: int = 0, total: int = 0) -> None:
        """Enter a stage, or get on in it."""
        self.stage, self.done, self.total = stage, done, total

    def fail(self, reason: str, message: str) -> None:
        """End without success; `reason` is the public one."""
        self.outcome, self.reason, self.message = "failed", reason, message

    def outcome_fields(self) -> dict[str, Any]:
        """Return what a program wants to know of a file that has ended."""
        fields = asdict(self) | {"path": legible(self.path)}
        return {name: fields[name] for name in ("path", "outcome", "document_id", "chunks", "reason", "message")}


class Ingest:
    """One run over many files; `seen` is called whenever a file has moved, and once with its outcome."""

    def __init__(self, mesh: Mesh, *, vector_store_id: str, seen: Callable[[FileProgress], None]) -> None:
        self._mesh = mesh
        self._vector_store_id = vector_store_id
        self._seen = seen
        self._uploads = asyncio.Semaphore(UPLOADS_AT_ONCE)
        self._before: dict[str, str] = {}

    async def files(self, paths: Iterable[Path]) -> list[FileProgress]:
        """Ingest files, some at a time; return them in their order, each with its outcome.

        A file that was ingested before and has changed since replaces its document's content. What is wrong with one
        file is its own outcome. Raises AioRpcError when there is no mesh, or when it stays away for a minute later on.
        """
        self._before = await self._documents_by_path()
        files = [FileProgress(path) for path in paths]
        rest = iter(files)
        async with asyncio.TaskGroup() as group:
            for _ in range(min(FILES_AT_ONCE, len(files))):
                group.create_task(self._work(rest))
        return files

    async def _documents_by_path(self) -> dict[str, str]:
        """Ids of documents by the path they were ingested from, the newest where there are several."""
        found: dict[str, str] = {}
        request = pb.ListDocumentsRequest(
            vector_store_id=self._vector_store_id, page_size=PAGE_SIZE, filter=Filter(exists=Exists(key=PATH))
        )
        while True:
            page = await self._mesh.documents.ListDocuments(request, timeout=UNARY_SECONDS)
            for document in page.documents:
                found.setdefault(document.attributes.fields[PATH].string_value, document.id)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def _work(self, rest: Iterator[FileProgress]) -> None:
        for file in rest:
            try:
                await self._one(file)
            except grpc.aio.AioRpcError as error:
                if error.code() in PASSING:
                    raise
                file.fail(as_command_error(error, url=self._mesh.url).reason, error.details() or "")
            except OSError as error:
                file.fail("NOT_READABLE", error.strerror or "it cannot be read")
            self._seen(file)

    async def _one(self, file: FileProgress) -> None:
        if file.path.stat().st_size > LIMIT_BYTES:
            file.fail("DOCUMENT_TOO_LARGE", "larger than 100 MiB")
            return
        digest = await asyncio.to_thread(sha256, file.path)
        document = await _patiently(lambda: self._find(digest))
        if document is not None and document.state == pb.DOCUMENT_STATE_READY:
            file.outcome, file.document_id, file.chunks = "known", document.id, document.chunk_count
            return
        if document is not None and document.state == pb.DOCUMENT_STATE_FAILED:
            request = pb.IndexDocumentRequest(document_id=document.id)
            await self._mesh.documents.IndexDocument(request, timeout=UNARY_SECONDS)
        elif document is None:
            document = await self._upload_once(file, digest)
        file.document_id = document.id
        await self._watch(file)

    async def _find(self, digest: str) -> pb.Document | None:
        request = pb.ListDocumentsRequest(sha256=digest, vector_store_id=self._vector_store_id, page_size=1)
        found = await self._mesh.documents.ListDocuments(request, timeout=UNARY_SECONDS)
        return found.documents[0] if found.documents else None

    async def _upload_once(self, file: FileProgress, digest: str) -> pb.Document:
        """Upload a file; where an answer was lost, look whether the document was taken before sending it again."""
        tries = 0

        async def attempt() -> pb.Document:
            nonlocal tries
            tries += 1
            taken = await self._find(digest) if tries > 1 else None
            return taken or await self._mesh.documents.UploadDocument(self._pieces(file), timeout=UPLOAD_SECONDS)

        async with self._uploads:
            return await _patiently(attempt)

    async def _pieces(self, file: FileProgress) -> AsyncIterator[pb.UploadDocumentRequest]:
        attributes = Struct()
        attributes.update({PATH: legible(file.path)})
        request = pb.UploadDocumentRequest(
            document_id=self._before.get(legible(file.path), ""),
            vector_store_id=self._vector_store_id,
            filename=legible(file.path.name)[-255:],
            attributes=attributes,
        )
        size, sent = file.path.stat().st_size, 0
        for piece in pieces(file.path):
            request.file.CopyFrom(HttpBody(content_type="" if sent else media_type(file.path), data=piece))
            yield request
            request = pb.UploadDocumentRequest()
            sent += len(piece)
            file.move("uploading", done=sent, total=size)
            self._seen(file)

    async def _watch(self, file: FileProgress) -> None:
        """Follow a document's events to the terminal one, taking up a stream that was cut where it ended."""
        seq = 0

        async def follow() -> bool:
            nonlocal seq
            request = pb.WatchDocumentRequest(document_id=file.document_id, after_seq=seq)
            async for event in self._mesh.documents.WatchDocument(request):
                seq = event.seq or seq
                _apply(event, file)
                if file.outcome:
                    return True
                self._seen(file)
            return False

        while True:
            if await _patiently(follow):
                return
            await asyncio.sleep(PAUSE_SECONDS)


def _apply(event: pb.DocumentEvent, file: FileProgress) -> None:
    match event.WhichOneof("payload"):
        case "state_changed":
            name = pb.DocumentState.Name(event.state_changed.state)
            file.move(name.removeprefix("DOCUMENT_STATE_").lower())
        case "progress":
            file.move("indexing", done=event.progress.batches_done, total=event.progress.batches_total)
        case "ready":
            file.outcome, file.chunks = "ready", event.ready.chunk_count
        case "failed":
            file.fail(event.failed.reason, event.failed.message)
        case "deleted":
            file.fail("DELETED", "it was deleted meanwhile")


async def _patiently(work: Callable[[], Awaitable[T]]) -> T:
    """Try again while the mesh is away or too busy, for a minute at most; any other refusal is raised at once."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while True:
        try:
            return await work()
        except grpc.aio.AioRpcError as error:
            if error.code() not in PASSING or asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(PAUSE_SECONDS)
