"""From the bytes in the object store to text and chunks on disk."""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog
from loremesh_kit.errors import DependencyUnavailable

from loremesh_ingestion.domain import landmarks
from loremesh_ingestion.domain.chunking import Chunk
from loremesh_ingestion.domain.document import Document
from loremesh_ingestion.domain.jobs import MAX_CRASHES
from loremesh_ingestion.domain.version import Version
from loremesh_ingestion.errors import ParserCrashed
from loremesh_ingestion.parsing.result import Parsed, read_chunks
from loremesh_ingestion.ports import BlobStore, Parser

T = TypeVar("T")

_PIECE = 1 << 20
# A file of this size is read or written in less time than it takes to hand the work to a thread.
_SMALL = 1 << 16
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Text:
    """What is to be known of an extracted text."""

    sha256: str
    landmarks: list[int]
    chars: int


@dataclass(frozen=True, slots=True)
class Reading:
    """A document that was read; its files are there as long as the reader holds it."""

    parsed: Parsed
    text: Text

    def chunks(self) -> list[Chunk]:
        """All chunks, of a document that has few."""
        return list(read_chunks(self.parsed.directory))


class Reader:
    """Fetches documents and has them parsed."""

    def __init__(
        self, *, blobs: BlobStore, parser: Parser, directory: Path | None, quick_directory: Path | None
    ) -> None:
        """The directories hold the files meanwhile, `quick_directory` small ones; None means the system's."""
        self._blobs = blobs
        self._parser = parser
        self._directory = directory
        self._quick_directory = quick_directory

    @asynccontextmanager
    async def read(self, document: Document, version: Version) -> AsyncIterator[Reading]:
        """Raises what the parser raises, DependencyUnavailable when the bytes are not to be had as they were stored."""
        where = self._quick_directory if document.size_bytes <= _SMALL else self._directory
        directory = tempfile.TemporaryDirectory(prefix="document-", dir=where, ignore_cleanup_errors=True)
        try:
            place = Path(directory.name)
            await self._fetch(document, version, place / "bytes")
            parsed = await self._parse(document, version, place)
            text = await _run(lambda: _survey(parsed.text_path), size=parsed.text_length)
            yield Reading(parsed, text)
        finally:
            directory.cleanup()

    async def _parse(self, document: Document, version: Version, place: Path) -> Parsed:
        """Raises ParserCrashed only when one process after the other died: any may be hit by what is not in it."""
        for _ in range(MAX_CRASHES - 1):
            with suppress(ParserCrashed):
                return await self._parse_once(document, version, place)
        return await self._parse_once(document, version, place)

    async def _parse_once(self, document: Document, version: Version, place: Path) -> Parsed:
        return await self._parser.parse_and_chunk(
            place / "bytes",
            filename=document.filename,
            declared_media_type=document.media_type,
            strategy=version.chunking_strategy,
            directory=place,
        )

    async def _fetch(self, document: Document, version: Version, path: Path) -> None:
        digest = hashlib.sha256()
        with path.open("wb") as file:
            async for piece in self._blobs.read(version.object_key):
                digest.update(piece)
                await _run(lambda piece=piece: file.write(piece), size=len(piece))  # type: ignore[misc]
        if digest.hexdigest() != document.sha256:
            _log.error("stored bytes differ from those uploaded", document_id=document.id)
            raise DependencyUnavailable("s3")

    async def keep_text(self, reading: Reading, document: Document, version: Version, key: str) -> str:
        """Store the text, and return its key: that of the bytes where they are the text already."""
        if reading.text.sha256 == document.sha256:
            return version.object_key
        await self._blobs.write(key, _pieces(reading.parsed.text_path))
        return key


async def _run(work: Callable[[], T], *, size: int) -> T:
    return work() if size <= _SMALL else await asyncio.to_thread(work)


def _survey(path: Path) -> Text:
    digest = hashlib.sha256()

    def strides() -> Iterator[str]:
        # Line ends as they are: turning them into others would shift every offset.
        with path.open(encoding="utf-8", newline="") as file:
            while stride := file.read(landmarks.STRIDE):
                digest.update(stride.encode())
                yield stride

    offsets, chars = landmarks.landmarks(strides())
    return Text(digest.hexdigest(), offsets, chars)


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            yield piece
