"""The result of reading a document, kept in two files so that neither process holds a large one in memory."""

import asyncio
import json
from collections.abc import AsyncIterator, Generator, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from loremesh_ingestion.domain.chunking import Chunk
from loremesh_ingestion.domain.parsed import Page, ParsedDocument

_PIECE = 1 << 20  # characters encoded at a time
_TEXT = "text.txt"
_CHUNKS = "chunks.jsonl"


@dataclass(frozen=True, slots=True)
class Parsed:
    """A document that was read and cut; text and chunks lie in files of the directory its caller gave.

    `title` is what the document calls itself (empty when it does not), `text_length` is in code points.
    """

    title: str
    media_type: str
    pages: tuple[Page, ...]
    text_length: int
    chunk_count: int
    directory: Path

    @property
    def text_path(self) -> Path:
        """The extracted text, in UTF-8."""
        return self.directory / _TEXT

    async def text(self) -> str:
        """Return the whole extracted text; for large documents rather stream `text_path`."""
        return await asyncio.to_thread(self._read_text)

    async def batches(self, size: int = 256) -> AsyncIterator[list[Chunk]]:
        """Yield the chunks in order, in lists of `size` (the last one shorter), read off the event loop."""
        chunks = read_chunks(self.directory)
        try:
            while batch := await asyncio.to_thread(lambda: list(islice(chunks, size))):
                yield batch
        finally:
            await asyncio.to_thread(chunks.close)

    def _read_text(self) -> str:
        # Not in text mode, which would turn line ends into others and shift every offset.
        return self.text_path.read_bytes().decode()


def write(document: ParsedDocument, chunks: Iterable[Chunk], directory: Path) -> dict[str, Any]:
    """Write text and chunks into `directory` and return the rest of the result, ready for JSON."""
    text = document.text
    with (directory / _TEXT).open("wb") as file:
        for start in range(0, len(text), _PIECE):
            file.write(text[start : start + _PIECE].encode())
    count = 0
    with (directory / _CHUNKS).open("wb") as file:
        for count, chunk in enumerate(chunks, start=1):  # noqa: B007 - the count is what is left of it
            file.write(_line(chunk))
    return {
        "title": document.title,
        "media_type": document.media_type,
        "pages": [[page.number, page.start, page.end] for page in document.pages],
        "text_length": len(text),
        "chunk_count": count,
    }


def read(result: dict[str, Any], directory: Path) -> Parsed:
    """Rebuild what `write` returned; raises KeyError, TypeError or ValueError when it is something else."""
    return Parsed(
        title=str(result["title"]),
        media_type=str(result["media_type"]),
        pages=tuple(Page(int(number), int(start), int(end)) for number, start, end in result["pages"]),
        text_length=int(result["text_length"]),
        chunk_count=int(result["chunk_count"]),
        directory=directory,
    )


def read_chunks(directory: Path) -> Generator[Chunk, None, None]:
    """Yield the chunks written into `directory`, one line at a time."""
    with (directory / _CHUNKS).open("rb") as file:
        for index, line in enumerate(file):
            text, start, end, page, path, tokens = json.loads(line)
            yield Chunk(index, text, start, end, page, tuple(path), tokens)


def _line(chunk: Chunk) -> bytes:
    fields = [chunk.text, chunk.start, chunk.end, chunk.page, chunk.heading_path, chunk.token_count]
    return json.dumps(fields, ensure_ascii=False).encode() + b"\n"
