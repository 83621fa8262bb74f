"""Reading bytes as the child process does, but in this one."""

from collections.abc import Callable
from pathlib import Path

import pytest
from loremesh_ingestion.domain.parsed import BlockKind, ParsedDocument
from loremesh_ingestion.parsing.extract import extract

Read = Callable[..., ParsedDocument]
Blocks = Callable[[ParsedDocument], list[tuple[str, str]]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write bytes to a file and read it back as a document."""

    def from_bytes(data: bytes, filename: str = "", declared: str = "") -> ParsedDocument:
        path = tmp_path / "document"
        path.write_bytes(data)
        return extract(path, filename=filename, declared_media_type=declared)

    return from_bytes


@pytest.fixture
def blocks_of() -> Blocks:
    """List a document's blocks as (kind, text), having checked that they stand in order."""

    def blocks(document: ParsedDocument) -> list[tuple[str, str]]:
        done = 0
        for block in document.blocks:
            assert done <= block.start < block.end <= len(document.text)
            assert (block.level > 0) == (block.kind is BlockKind.HEADING)
            done = block.end
        return [(str(block.kind), document.text[block.start : block.end]) for block in document.blocks]

    return blocks
