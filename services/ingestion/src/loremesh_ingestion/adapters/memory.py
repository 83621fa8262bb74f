"""The ports in memory, for tests and for reading: each does what its real counterpart promises."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

from loremesh_kit import identity
from loremesh_kit.errors import DependencyUnavailable

from loremesh_ingestion.domain.chunking import Chunk, ChunkingStrategy
from loremesh_ingestion.domain.parsed import Page, ParsedDocument
from loremesh_ingestion.errors import DocumentCorrupt
from loremesh_ingestion.parsing import result
from loremesh_ingestion.parsing.result import Parsed
from loremesh_ingestion.ports import EmbeddingModel, IndexedDocument, IndexedVersion, IndexEntry, StoredObject, Vector


class MemoryBlobStore:
    """Objects in a dict."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.write_times: dict[str, datetime] = {}

    async def write(self, key: str, pieces: AsyncIterable[bytes]) -> None:
        """Keep the pieces, joined, once all of them have come."""
        self.objects[key] = b"".join([piece async for piece in pieces])
        self.write_times[key] = datetime.now(UTC)

    async def read(self, key: str, *, first: int = 0, last: int | None = None) -> AsyncIterator[bytes]:
        """Give the range in one piece."""
        if key not in self.objects:
            raise DependencyUnavailable("s3")
        yield self.objects[key][first : None if last is None else last + 1]

    async def delete(self, keys: Sequence[str]) -> None:
        """Forget the objects."""
        for key in keys:
            self.objects.pop(key, None)

    async def delete_all(self, prefix: str) -> int:
        """Forget every object below `prefix`."""
        keys = [key for key in self.objects if key.startswith(prefix)]
        await self.delete(keys)
        return len(keys)

    async def entries(self, prefix: str) -> AsyncIterator[Sequence[StoredObject]]:
        """All at once."""
        keys = sorted(key for key in self.objects if key.startswith(prefix))
        yield [StoredObject(key, self.write_times[key]) for key in keys]

    async def link(self, key: str, *, filename: str, media_type: str, seconds: int) -> str:
        """A URL that says what was asked for."""
        return f"memory:///{quote(key)}?filename={quote(filename)}&type={quote(media_type)}&seconds={seconds}"


class MemoryEmbedder:
    """Vectors that depend on the text alone and mean nothing."""

    def __init__(self, *, dimension: int = 8) -> None:
        self.dimension = dimension
        self.calls: list[Sequence[str]] = []

    async def embed(self, texts: Sequence[str], *, model: str) -> Sequence[Vector]:
        """One vector per text."""
        self.calls.append(texts)
        return [self._vector(f"{model}\n{text}") for text in texts]

    def _vector(self, text: str) -> Vector:
        digest = hashlib.sha256(text.encode()).digest()
        return Vector([byte / 255 for byte in digest[: self.dimension]], [digest[0], digest[0] + 1], [1.0, 0.5])

    async def models(self) -> Sequence[EmbeddingModel]:
        """Two models, the first one the default."""
        first = EmbeddingModel(id="memory", dimension=self.dimension, max_input_tokens=256, default=True)
        return [first, replace(first, id="other", default=False)]


class MemorySearchIndex:
    """Chunks in a dict, apart by tenant."""

    def __init__(self) -> None:
        self.chunks: dict[tuple[str, str], tuple[IndexedDocument, IndexEntry]] = {}

    async def upsert(self, document: IndexedDocument, entries: Sequence[IndexEntry]) -> None:
        """Keep the chunks by their ids."""
        tenant = identity.current().tenant
        for entry in entries:
            self.chunks[tenant, entry.id] = (document, entry)

    async def delete(
        self,
        *,
        vector_store_id: str,
        generation: int,
        embedding_model: str,
        document_id: str = "",
        before_version: int = 0,
    ) -> int:
        """Forget what matches."""
        doomed = [
            key
            for key, document in self._documents().items()
            if (document.vector_store_id, document.generation) == (vector_store_id, generation)
            and document.embedding_model == embedding_model
            and document_id in ("", document.document_id)
            and (before_version == 0 or document.version < before_version)
        ]
        for key in doomed:
            del self.chunks[key]
        return len(doomed)

    async def vectors(self, document: IndexedDocument, chunk_ids: Sequence[str]) -> Mapping[str, Vector]:
        """Give those that are held."""
        del document
        tenant = identity.current().tenant
        return {id_: self.chunks[tenant, id_][1].vector for id_ in chunk_ids if (tenant, id_) in self.chunks}

    async def update(self, document: IndexedDocument) -> None:
        """Replace title and attributes on the document's chunks."""
        for key, held in self._documents().items():
            if (held.document_id, held.generation) == (document.document_id, document.generation):
                carried = replace(held, title=document.title, attributes=document.attributes)
                self.chunks[key] = (carried, self.chunks[key][1])

    async def count(self, document: IndexedDocument) -> int:
        """Count what is held of the version."""
        wanted = (document.document_id, document.generation, document.version)
        return sum((held.document_id, held.generation, held.version) == wanted for held in self._documents().values())

    async def versions(
        self, *, vector_store_id: str, embedding_model: str, generation: int = 1
    ) -> AsyncIterator[Sequence[IndexedVersion]]:
        """One chunk after the other."""
        for held in list(self._documents().values()):
            place = (held.vector_store_id, held.generation, held.embedding_model)
            if place == (vector_store_id, generation, embedding_model):
                yield [IndexedVersion(held.document_id, held.version, 1)]

    def _documents(self) -> Mapping[tuple[str, str], IndexedDocument]:
        tenant = identity.current().tenant
        return {key: document for key, (document, _) in self.chunks.items() if key[0] == tenant}

    def held(self, document_id: str, *, generation: int = 1) -> list[tuple[int, int]]:
        """Version and position of every chunk of a document in a generation, in order."""
        return sorted(
            (document.version, entry.chunk.index)
            for document, entry in self.chunks.values()
            if (document.document_id, document.generation) == (document_id, generation)
        )


class MemoryParser:
    """Reads UTF-8 and cuts it at blank lines, into pages at form feeds; whatever is not UTF-8 it calls corrupt."""

    async def parse_and_chunk(
        self, path: Path, *, filename: str, declared_media_type: str, strategy: ChunkingStrategy, directory: Path
    ) -> Parsed:
        """One chunk for each paragraph, one token for each word; the strategy is not asked."""
        del filename, declared_media_type, strategy
        try:
            text = (await asyncio.to_thread(path.read_bytes)).decode()
        except UnicodeDecodeError as error:
            raise DocumentCorrupt("The document is not UTF-8.") from error
        ends = [found.start() for found in re.finditer("\f|$", text)] if "\f" in text else []
        pages = tuple(Page(number, start, end) for number, (start, end) in enumerate(pairwise([0, *ends]), 1))
        document = ParsedDocument(text=text, media_type="text/plain", pages=pages)
        return result.read(result.write(document, _paragraphs(text), directory), directory)


def _paragraphs(text: str) -> Iterator[Chunk]:
    for index, found in enumerate(re.finditer(r"\S(?:.|\n(?!\s*\n))*", text)):
        words, page = len(found[0].split()), text.count("\f", 0, found.start()) + 1 if "\f" in text else None
        yield Chunk(index, found[0], found.start(), found.end(), page=page, heading_path=(), token_count=words)
