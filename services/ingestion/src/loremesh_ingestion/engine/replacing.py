"""Replacing a document's content: what was given of its other values is taken too, what is the same stays."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from loremesh_kit import identity
from loremesh_kit.errors import ServiceError
from loremesh_kit.ids import new_id
from loremesh_kit.postgres import Database

from loremesh_ingestion.domain import objects
from loremesh_ingestion.domain.document import Document, DocumentState
from loremesh_ingestion.domain.upload import StoredBytes, UploadOutcome, UploadParameters
from loremesh_ingestion.engine.documents import Documents
from loremesh_ingestion.errors import DocumentNotFound
from loremesh_ingestion.ports import BlobStore
from loremesh_ingestion.records import Connection, DocumentRecords, NewContent


class Replacements:
    """Uploads for a document that there is already."""

    def __init__(self, *, database: Database, records: DocumentRecords, documents: Documents, blobs: BlobStore) -> None:
        self._database = database
        self._records = records
        self._documents = documents
        self._blobs = blobs

    async def replaceable(self, parameters: UploadParameters) -> Document:
        """The document that is meant; raises DocumentNotFound, also where it is in another store than is said."""
        document = await self._documents.get(parameters.document_id)
        if parameters.vector_store_id not in ("", document.vector_store_id):
            raise DocumentNotFound(document.id)
        return document

    async def replace(self, parameters: UploadParameters, stored: StoredBytes) -> tuple[Document, UploadOutcome]:
        """Begin the version with these bytes, unless they are those it has; raises DocumentNotFound.

        Bytes that are not wanted are removed.
        """
        document = await self.replaceable(parameters)
        if document.sha256 != stored.sha256:
            stored = await self._at_home(document, stored)
        try:
            async with self._database.transaction() as connection:
                document, outcome = await self._apply(connection, parameters, stored)
        except DocumentNotFound:
            await self._blobs.delete([stored.object_key])
            raise
        if outcome is UploadOutcome.UNCHANGED:
            with suppress(ServiceError):
                await self._blobs.delete([stored.object_key])
        return document, outcome

    async def _at_home(self, document: Document, stored: StoredBytes) -> StoredBytes:
        """The bytes below the document's own prefix; they were put elsewhere if its id came after them."""
        tenant = identity.current().tenant
        if stored.object_key.startswith(objects.prefix(tenant=tenant, document_id=document.id)):
            return stored
        key = objects.upload_key(tenant=tenant, document_id=document.id, upload_id=new_id())
        await self._blobs.write(key, self._blobs.read(stored.object_key))
        await self._blobs.delete([stored.object_key])
        return replace(stored, object_key=key)

    async def _apply(
        self, connection: Connection, parameters: UploadParameters, stored: StoredBytes
    ) -> tuple[Document, UploadOutcome]:
        rows = await self._records.lock_all(connection, parameters.document_id)
        if not rows or rows[0].state is DocumentState.DELETING:
            raise DocumentNotFound(parameters.document_id)
        document = rows[0]
        title, attributes = _title(document, parameters), _attributes(document, parameters)
        if title is not None or attributes is not None:
            rows = await self._documents.change(connection, rows, title=title, attributes=attributes)
        strategy = parameters.chunking_strategy
        if document.sha256 != stored.sha256:
            content = NewContent(stored=stored, filename=parameters.filename, media_type=parameters.media_type)
            _, document = await self._documents.begin(connection, rows, strategy=strategy, content=content)
            return document, UploadOutcome.REPLACED
        if strategy not in (None, document.chunking_strategy):
            _, begun = await self._documents.begin(connection, rows, strategy=strategy)
            return begun, UploadOutcome.UNCHANGED
        return rows[0], UploadOutcome.UNCHANGED


def _title(document: Document, given: UploadParameters) -> str | None:
    """The title to set; None where there is nothing to."""
    has = document.title if document.title_given else ""
    return None if given.title in ("", has) else given.title


def _attributes(document: Document, given: UploadParameters) -> Mapping[str, Any] | None:
    return None if given.attributes in ({}, document.attributes) else given.attributes
