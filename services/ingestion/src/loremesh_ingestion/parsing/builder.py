"""Putting a text together from parts, and remembering where each part came to lie."""

from loremesh_ingestion.domain.parsed import Block, BlockKind, Page, ParsedDocument
from loremesh_ingestion.domain.text import clean
from loremesh_ingestion.errors import ParseLimit

LARGEST_TEXT = 1 << 27  # characters, more than any honest file of 100 MiB holds
_SEPARATOR = "\n\n"


class DocumentBuilder:
    """Collects blocks and pages; parts are separated by a blank line."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._blocks: list[Block] = []
        self._pages: list[tuple[int, int]] = []

    def add(self, kind: BlockKind, text: str, *, level: int = 0) -> None:
        """Append a block; blank ones are left out. Raises ParseLimit when the text grows beyond all reason."""
        text = clean(text).strip("\n").rstrip()
        if not text.strip():
            return
        start = self._length + (len(_SEPARATOR) if self._parts else 0)
        self._parts.append(text)
        self._length = start + len(text)
        if self._length > LARGEST_TEXT:
            limit = "text"
            raise ParseLimit(limit)
        self._blocks.append(Block(kind, start, self._length, level))

    def heading(self, text: str, *, level: int) -> None:
        """Append a heading on one line, marked as Markdown marks it; `level` is brought into 1..6."""
        level = min(max(level, 1), 6)
        title = " ".join(text.split())
        if title:
            self.add(BlockKind.HEADING, f"{'#' * level} {title}", level=level)

    def page(self, number: int) -> None:
        """Begin page, slide or sheet `number`; what is added from now on stands on it."""
        self._pages.append((number, self._length))

    def build(self, *, media_type: str, title: str = "") -> ParsedDocument:
        """Return the document; each page reaches to where the next begins."""
        ends = [start for _, start in self._pages[1:]] + [self._length]
        return ParsedDocument(
            text=_SEPARATOR.join(self._parts),
            media_type=media_type,
            title=title,
            blocks=tuple(self._blocks),
            pages=tuple(Page(number, start, end) for (number, start), end in zip(self._pages, ends, strict=False)),
        )
