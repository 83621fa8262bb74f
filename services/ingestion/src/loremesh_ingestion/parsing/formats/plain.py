"""Plain text and source code: the text as it stands."""

from loremesh_ingestion.domain.parsed import Block, BlockKind, ParsedDocument
from loremesh_ingestion.parsing.media_types import Format


def read(text: str, kind: Format) -> ParsedDocument:
    """Return plain text without blocks, since where to cut it is for its sentences to say, and code as one block."""
    blocks = (Block(BlockKind.CODE, 0, len(text)),) if kind.language else ()
    return ParsedDocument(text=text, media_type=kind.media_type, blocks=blocks, language=kind.language)
