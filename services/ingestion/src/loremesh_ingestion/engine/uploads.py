"""Accepting a document: its bytes first, then one transaction of document, version, job and event."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from contextvars import Context, copy_context
from typing import Protocol

from loremesh_kit import deadline, identity
from loremesh_kit.errors import Overloaded, ServiceError
from loremesh_kit.ids import new_id
from loremesh_kit.postgres import Database

from loremesh_ingestion.domain import objects
from loremesh_ingestion.domain.document import Document, DocumentState
from loremesh_ingestion.domain.upload import MAX_BYTES, StoredBytes, UploadOutcome, UploadParameters
from loremesh_ingestion.domain.vector_store import DEFAULT_ID
from loremesh_ingestion.engine import history
from loremesh_ingestion.engine.backlog import Backlog
from loremesh_ingestion.engine.batching import Batcher
from loremesh_ingestion.engine.history import History
from loremesh_ingestion.engine.replacing import Replacements
from loremesh_ingestion.engine.vector_stores import VectorStores
from loremesh_ingestion.errors import DocumentEmpty, DocumentNotFound, DocumentTooLarge, VectorStoreNotFound
from loremesh_ingestion.ports import BlobStore
from loremesh_ingestion.records import DocumentRecords, NewDocument, NewEvent, QueueRecords

_LARGE_BYTES = 1024 * 1024
_PATIENCE_SECONDS = 30.0
_INSERTIONS_AT_ONCE = 64

# With the context it came in: its job is done in the name of its own caller.
_Item = tuple[NewDocument, Context]


class IncomingUpload(Protocol):
    """An upload while it comes in."""

    def pieces(self) -> AsyncIterator[bytes]:
        """The document's bytes. Raises UploadMalformed and what is wrong with the parameters."""
        ...

    @property
    def parameters(self) -> UploadParameters:
        """What came with them: complete once the pieces have ended, since a form's fields come in any order."""
        ...


class Uploads:
    """The use case of UploadDocument."""

    def __init__(
        self,
        *,
        database: Database,
        documents: DocumentRecords,
        queue: QueueRecords,
        vector_stores: VectorStores,
        replacements: Replacements,
        backlog: Backlog,
        blobs: BlobStore,
        at_once: int,
        large_at_once: int,
    ) -> None:
        """`at_once` uploads are taken, the next is refused; of those which take memory `large_at_once`, others wait."""
        self._database = database
        self._documents = documents
        self._queue = queue
        self._vector_stores = vector_stores
        self._replacements = replacements
        self._backlog = backlog
        self._blobs = blobs
        self._at_once = at_once
        self._in_hand = 0
        self._large = asyncio.Semaphore(large_at_once)
        self._insertions: Batcher[str, _Item, Document | None] = Batcher(
            run=self._insert, size=lambda _: 1, limit=_INSERTIONS_AT_ONCE, at_once=1
        )

    async def accept(self, upload: IncomingUpload) -> tuple[Document, UploadOutcome]:
        """Store the bytes and accept the document: it will be READY or FAILED in the end, whatever dies meanwhile.

        Raises DocumentEmpty, DocumentTooLarge, VectorStoreNotFound, DocumentNotFound, Overloaded, QueueFull, and what
        the upload raises. When the document is refused, or there already, its bytes are removed; when it is unknown
        whether it was accepted (Postgres fell silent during the commit) they stay, for an object without a row is waste
        but a row without an object is a loss.
        """
        if self._in_hand >= self._at_once:
            raise Overloaded
        await self._backlog.admit()
        self._in_hand += 1
        try:
            return await self._accept(upload)
        finally:
            self._in_hand -= 1

    async def _accept(self, upload: IncomingUpload) -> tuple[Document, UploadOutcome]:
        document_id = new_id()
        if upload.parameters.document_id:
            document_id = (await self._replacements.replaceable(upload.parameters)).id
        key = objects.upload_key(tenant=identity.current().tenant, document_id=document_id, upload_id=new_id())
        stored = await self._store(upload, key)
        try:
            if upload.parameters.document_id:
                return await self._replacements.replace(upload.parameters, stored)
            document = await self._record(_new(document_id, upload.parameters, stored))
        except (VectorStoreNotFound, DocumentNotFound):
            await self._blobs.delete([key])
            raise
        if document.id == document_id:
            return document, UploadOutcome.CREATED
        with suppress(ServiceError):
            await self._blobs.delete([key])
        return document, UploadOutcome.UNCHANGED

    async def _store(self, upload: IncomingUpload, key: str) -> StoredBytes:
        meter = _Meter()
        async with aclosing(self._metered(upload, meter)) as pieces:
            await self._blobs.write(key, pieces)
        return StoredBytes(object_key=key, size_bytes=meter.size, sha256=meter.digest.hexdigest())

    async def _metered(self, upload: IncomingUpload, meter: "_Meter") -> AsyncGenerator[bytes, None]:
        async with AsyncExitStack() as large:
            async for piece in upload.pieces():
                grown_large = meter.size <= _LARGE_BYTES < meter.size + len(piece)
                meter.take(piece)
                if grown_large:
                    await large.enter_async_context(self._large_slot())
                    await self._vector_stores.get(upload.parameters.vector_store_id or DEFAULT_ID)
                yield piece
        if meter.size == 0:
            raise DocumentEmpty("The document has no bytes.", field="file")

    @asynccontextmanager
    async def _large_slot(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(deadline.within(_PATIENCE_SECONDS)):
                await self._large.acquire()
        except TimeoutError as error:
            raise Overloaded from error
        try:
            yield
        finally:
            self._large.release()

    async def _record(self, new: NewDocument) -> Document:
        tenant = identity.current().tenant
        document = await self._insertions.submit(tenant, (new, copy_context()))
        if document is None and new.vector_store_id == DEFAULT_ID:
            await self._vector_stores.make_default()
            document = await self._insertions.submit(tenant, (new, copy_context()))
        if document is None:
            raise VectorStoreNotFound(new.vector_store_id)
        return document

    async def _insert(self, tenant: str, items: Sequence[_Item]) -> list[Document | None]:
        """Accept documents that came in at the same time, in one transaction; None where there is no such store."""
        async with self._database.transaction(tenant) as connection:
            found = await self._documents.insert(connection, [new for new, _ in items])
            accepted = [
                (document, context)
                for new, context in items
                for document in found.get(new.id, ())
                if document.id == new.id
            ]
            async with connection.pipeline():
                await self._queue.enqueue(
                    connection,
                    [context.run(history.index_job, document) for document, context in accepted],
                )
                uploaded = [event for document, _ in accepted if document.live for event in _uploaded(document)]
                await self._queue.append(connection, uploaded, watched=False)
        return [next(iter(found.get(new.id, ())), None) for new, _ in items]


def _new(document_id: str, given: UploadParameters, stored: StoredBytes) -> NewDocument:
    return NewDocument(
        id=document_id,
        vector_store_id=given.vector_store_id or DEFAULT_ID,
        title=given.title,
        filename=given.filename,
        media_type=given.media_type,
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        object_key=stored.object_key,
        attributes=given.attributes,
        chunking_strategy=given.chunking_strategy,
    )


def _uploaded(document: Document) -> list[NewEvent]:
    history_ = History(document_id=document.id, version=document.latest_version)
    return history_.entered([DocumentState.UPLOADED])


class _Meter:
    """Counts and hashes what passes."""

    def __init__(self) -> None:
        self.size = 0
        self.digest = hashlib.sha256()

    def take(self, piece: bytes) -> None:
        """Raises DocumentTooLarge as soon as there is too much."""
        self.size += len(piece)
        if self.size > MAX_BYTES:
            raise DocumentTooLarge("A document has at most 100 MiB.", limit_bytes=MAX_BYTES)
        self.digest.update(piece)
