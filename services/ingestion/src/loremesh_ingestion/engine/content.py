"""What a document holds: its bytes, its text, its chunks."""

import codecs
from collections.abc import AsyncIterator
from dataclasses import dataclass

from loremesh_ingestion.domain.chunking import Chunk
from loremesh_ingestion.domain.document import Document
from loremesh_ingestion.domain.landmarks import stretch
from loremesh_ingestion.domain.version import Version
from loremesh_ingestion.engine.documents import Documents
from loremesh_ingestion.errors import DocumentNotFound, DocumentStateUnsuitable, SpanOutOfRange
from loremesh_ingestion.ports import BlobStore
from loremesh_ingestion.records import IndexingRecords

LINK_SECONDS = 15 * 60
LONGEST_SPAN = 1_000_000


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a text of `text_chars` code points."""

    text: str
    start: int
    end: int
    text_chars: int


class Content:
    """The use cases of DocumentService on what is in the object store and in chunks."""

    def __init__(self, *, documents: Documents, records: IndexingRecords, blobs: BlobStore) -> None:
        self._documents = documents
        self._records = records
        self._blobs = blobs

    async def download(self, document_id: str) -> tuple[Document, AsyncIterator[bytes]]:
        """The document and its bytes as they were uploaded; raises DocumentNotFound."""
        document = await self._documents.get(document_id)
        version = await self._version(document, document.latest_version)
        return document, self._blobs.read(version.object_key)

    async def link(self, document_id: str) -> str:
        """A URL to the bytes that works for LINK_SECONDS; raises DocumentNotFound."""
        document = await self._documents.get(document_id)
        version = await self._version(document, document.latest_version)
        return await self._blobs.link(
            version.object_key, filename=document.filename, media_type=document.media_type, seconds=LINK_SECONDS
        )

    async def text(self, document_id: str, *, start: int, end: int) -> Span:
        """Up to LONGEST_SPAN code points of the text that sources point into; `end` 0 is the end of it.

        Raises DocumentNotFound, DocumentStateUnsuitable before there is a text, SpanOutOfRange.
        """
        version = await self._readable(document_id)
        for field, bound in (("start_char", start), ("end_char", end)):
            if bound > version.text_chars:
                raise SpanOutOfRange(field=field, text_chars=version.text_chars)
        end = min(end or version.text_chars, start + LONGEST_SPAN)
        if end < start:
            raise SpanOutOfRange(field="end_char", text_chars=version.text_chars)
        return Span(await self._read(version, start, end), start, end, version.text_chars)

    async def pages(self, document_id: str, *, first: int, last: int) -> Span:
        """The text of pages, up to LONGEST_SPAN code points, as far as chunks tell where they lie; `last` 0 is `first`.

        Raises DocumentNotFound, DocumentStateUnsuitable before there is a text, SpanOutOfRange.
        """
        version = await self._readable(document_id)
        last = last or first
        for field, out in (("first_page", first > version.page_count), ("last_page", last < first)):
            if out:
                raise SpanOutOfRange(field=field, text_chars=version.text_chars)
        start, end = await self._records.pages(version.document_id, version.version, first=first, last=last)
        end = min(version.text_chars if end is None else end, start + LONGEST_SPAN)
        return Span(await self._read(version, start, end), start, end, version.text_chars)

    async def _readable(self, document_id: str) -> Version:
        document = await self._documents.get(document_id)
        version = await self._version(document, document.version or document.latest_version)
        if version.text_key is None:
            raise DocumentStateUnsuitable(
                "The document's text is not extracted.", document_id=document_id, state=document.state
            )
        return version

    async def _read(self, version: Version, start: int, end: int) -> str:
        if start == end or version.text_key is None:
            return ""
        where = stretch(version.text_landmarks, start, end)
        decoder = codecs.getincrementaldecoder("utf-8")()
        pieces = [
            decoder.decode(piece)
            async for piece in self._blobs.read(version.text_key, first=where.first, last=where.last)
        ]
        return "".join(pieces)[where.skip : where.skip + where.take]

    async def chunks(
        self, document_id: str, *, version: int, start: int, limit: int
    ) -> tuple[Document, int, list[Chunk]]:
        """Chunks of `version` (0: the one searches see, or the latest) from position `start` on, and which it is.

        Raises DocumentNotFound.
        """
        document = await self._documents.get(document_id)
        version = version or document.version or document.latest_version
        return document, version, await self._records.chunks(document.key, version, start=start, limit=limit)

    async def _version(self, document: Document, version: int) -> Version:
        _, found = await self._records.load(document.key, version)
        if found is None:
            raise DocumentNotFound(document.id)
        return found
