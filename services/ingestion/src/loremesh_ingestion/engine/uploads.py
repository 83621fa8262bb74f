"""Accepting a document: its bytes first, then one transaction of document, version, job and event."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from contextvars import Context, copy_context
from dataclasses import fields
from typing import Protocol

from loremesh_kit import deadline, identity
from loremesh_kit.errors import Overloaded
from loremesh_kit.ids import new_id
from loremesh_kit.postgres import Database

from loremesh_ingestion.domain import objects
from loremesh_ingestion.domain.document import Document, DocumentState
from loremesh_ingestion.domain.jobs import INDEX
from loremesh_ingestion.domain.upload import MAX_BYTES, UploadParameters
from loremesh_ingestion.domain.vector_store import DEFAULT_ID
from loremesh_ingestion.engine import history
from loremesh_ingestion.engine.batching import Batcher
from loremesh_ingestion.engine.history import History
from loremesh_ingestion.engine.vector_stores import VectorStores
from loremesh_ingestion.errors import DocumentEmpty, DocumentTooLarge, VectorStoreNotFound
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
        blobs: BlobStore,
        at_once: int,
        large_at_once: int,
    ) -> None:
        """`at_once` uploads are taken, the next is refused; of those which take memory `large_at_once`, others wait."""
        self._database = database
        self._documents = documents
        self._queue = queue
        self._vector_stores = vector_stores
        self._blobs = blobs
        self._at_once = at_once
        self._in_hand = 0
        self._large = asyncio.Semaphore(large_at_once)
        self._insertions: Batcher[str, _Item, Document | None] = Batcher(
            run=self._insert, size=lambda _: 1, limit=_INSERTIONS_AT_ONCE, at_once=1
        )

    async def accept(self, upload: IncomingUpload) -> Document:
        """Store the bytes and accept the document: it will be READY or FAILED in the end, whatever dies meanwhile.

        Raises DocumentEmpty, DocumentTooLarge, VectorStoreNotFound, Overloaded, and what the upload raises. When the
        document is refused its bytes are removed; when it is unknown whether it was accepted (Postgres fell silent
        during the commit) they stay, for an object without a row is waste but a row without an object is a loss.
        """
        if self._in_hand >= self._at_once:
            raise Overloaded
        self._in_hand += 1
        try:
            return await self._accept(upload)
        finally:
            self._in_hand -= 1

    async def _accept(self, upload: IncomingUpload) -> Document:
        document_id, meter = new_id(), _Meter()
        key = objects.upload_key(tenant=identity.current().tenant, document_id=document_id, upload_id=new_id())
        async with aclosing(self._metered(upload, meter)) as pieces:
            await self._blobs.write(key, pieces)
        new = NewDocument(
            **{field.name: getattr(upload.parameters, field.name) for field in fields(UploadParameters)},
            id=document_id,
            size_bytes=meter.size,
            sha256=meter.digest.hexdigest(),
            object_key=key,
        )
        try:
            return await self._record(new)
        except VectorStoreNotFound:
            await self._blobs.delete([key])
            raise

    async def _metered(self, upload: IncomingUpload, meter: "_Meter") -> AsyncGenerator[bytes, None]:
        async with AsyncExitStack() as large:
            async for piece in upload.pieces():
                grown_large = meter.size <= _LARGE_BYTES < meter.size + len(piece)
                meter.take(piece)
                if grown_large:
                    await large.enter_async_context(self._large_slot())
                    await self._vector_stores.get(upload.parameters.vector_store_id)
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
            accepted = [(found[new.id], context) for new, context in items if new.id in found]
            async with connection.pipeline():
                await self._queue.enqueue(
                    connection,
                    [
                        context.run(history.job, INDEX, document.id, version=document.latest_version)
                        for document, context in accepted
                    ],
                )
                uploaded = [event for document, _ in accepted for event in _uploaded(document)]
                await self._queue.append(connection, uploaded, watched=False)
        return [found.get(new.id) for new, _ in items]


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
