"""The lines and tables of one PDF page, from its characters and where they stand."""

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pypdfium2 import PdfPage, PdfTextPage  # type: ignore[import-untyped]
from pypdfium2.raw import FS_RECTF, FPDFText_GetLooseCharBox, FPDFText_GetUnicode  # type: ignore[import-untyped]

Box = tuple[float, float, float, float]  # left, bottom, right, top, in points from the page's lower left corner

_DIVIDING_HYPHEN = 0x02  # PDFium's mark for a hyphen at a line's end; it has already joined the two lines
_LINE_ENDS = (0x0A, 0x0D)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text; `size` is the height of its first letter in points."""

    text: str
    top: float
    bottom: float

    @property
    def size(self) -> float:
        """Return the line's height, rounded to what a reader would notice."""
        return round((self.top - self.bottom) * 2) / 2


@dataclass(slots=True)
class Table:
    """A ruled table: for each row its cells' boxes (None where a merged cell covers it), and their text."""

    box: Box
    cells: Sequence[Sequence[Box | None]]
    rows: list[list[str]] = field(init=False)
    _last: tuple[Box, int, int] | None = None  # where the last character went, most likely the next one's place too

    def __post_init__(self) -> None:
        self.rows = [[""] * len(row) for row in self.cells]

    @property
    def width(self) -> int:
        """Return the number of columns."""
        return len(self.rows[0])

    def add(self, character: str, x: float, y: float) -> None:
        """Put a character into the cell it stands in; between cells there is nothing to read."""
        if self._last is None or not _inside(self._last[0], x, y):
            self._last = self._find(x, y)
        if self._last:
            _, row, column = self._last
            self.rows[row][column] += character

    def _find(self, x: float, y: float) -> tuple[Box, int, int] | None:
        for row, boxes in enumerate(self.cells):
            for column, box in enumerate(boxes):
                if box and _inside(box, x, y):
                    return box, row, column
        return None


def _inside(box: Box, x: float, y: float) -> bool:
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]


def page_items(page: PdfPage, tables: Sequence[Table]) -> Iterator[Line | Table]:
    """Yield the page's lines in its own order, each table where its first character stands."""
    textpage = page.get_textpage()
    try:
        yield from _Reading(textpage, tables).items()
    finally:
        textpage.close()
        page.close()


class _Reading:
    """One pass over a page's characters. Boxes are asked for where they are needed, as they cost more than the text."""

    def __init__(self, textpage: PdfTextPage, tables: Sequence[Table]) -> None:
        self._textpage = textpage
        self._tables = tables
        self._rect = FS_RECTF()
        self._characters: list[str] = []
        self._box: Box | None = None  # of the line's first character

    def items(self) -> Iterator[Line | Table]:
        """Yield what is on the page; characters within a table go into it."""
        shown: list[Table] = []
        for index in range(self._textpage.count_chars()):
            code = FPDFText_GetUnicode(self._textpage, index)
            if code == _DIVIDING_HYPHEN:
                continue
            if code in _LINE_ENDS:
                yield from self._line()
                continue
            character = chr(code)
            if self._tables and (table := self._table_at(index)):
                if table not in shown:
                    yield from self._line()
                    yield table
                    shown.append(table)
                table.add(character, *self._center(index))
                continue
            if self._box is None and not character.isspace():
                self._box = self._box_of(index)
            self._characters.append(character)
        yield from self._line()

    def _line(self) -> Iterator[Line]:
        text = "".join(self._characters).strip()
        if text and self._box:
            yield Line(text, top=self._box[3], bottom=self._box[1])
        self._characters.clear()
        self._box = None

    def _table_at(self, index: int) -> Table | None:
        x, y = self._center(index)
        return next((table for table in self._tables if _inside(table.box, x, y)), None)

    def _center(self, index: int) -> tuple[float, float]:
        left, bottom, right, top = self._box_of(index)
        return (left + right) / 2, (bottom + top) / 2

    def _box_of(self, index: int) -> Box:
        FPDFText_GetLooseCharBox(self._textpage, index, ctypes.byref(self._rect))
        rect = self._rect
        return rect.left, rect.bottom, rect.right, rect.top
