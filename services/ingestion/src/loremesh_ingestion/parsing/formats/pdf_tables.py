"""Where the ruled tables of a PDF are; pdfplumber finds them by their lines, and is only asked where there are some."""

from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pypdfium2 import PdfPage  # type: ignore[import-untyped]
from pypdfium2.raw import FPDF_PAGEOBJ_PATH  # type: ignore[import-untyped]

from loremesh_ingestion.parsing.formats.pdf_page import Box, Table

if TYPE_CHECKING:
    from pdfplumber.pdf import PDF
    from pdfplumber.table import Table as FoundTable

_FEWEST_LINES, _MOST_LINES = 4, 3000  # a frame has four sides; beyond three thousand strokes it is a drawing
_FEWEST_COLUMNS = 2  # one column is a frame around text; one row may be the last of the page before


class RuledTables:
    """Opens the file a second time when the first page with rules on it comes along."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pdf: PDF | None = None

    def on(self, index: int, page: PdfPage) -> list[Table]:
        """Return the tables on page `index` (from 0), without text as yet; none on rotated pages."""
        strokes = sum(1 for _ in islice(page.get_objects(filter=[FPDF_PAGEOBJ_PATH]), _MOST_LINES + 1))
        if not _FEWEST_LINES <= strokes <= _MOST_LINES or page.get_rotation():
            return []
        found = self._open().pages[index]
        try:
            origin = page.get_mediabox()[1] + found.height + found.mediabox[1]
            tables = [_table(table, origin) for table in found.find_tables()]
        finally:
            found.close()
        return [table for table in tables if table]

    def _open(self) -> "PDF":
        if self._pdf is None:
            import pdfplumber  # half a second

            self._pdf = pdfplumber.open(self._path)
        return self._pdf

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pdf is not None:
            self._pdf.close()


def _table(found: "FoundTable", origin: float) -> Table | None:
    rows = [[_box(cell, origin) for cell in row.cells] for row in found.rows]
    width = max((len(row) for row in rows), default=0)
    if width < _FEWEST_COLUMNS:
        return None
    box = _box(found.bbox, origin)
    return Table(box=box, cells=rows) if box else None


def _box(box: Box | None, origin: float) -> Box | None:
    """Return pdfplumber's box, which counts downwards from `origin`, as PDFium counts: upwards."""
    if box is None:
        return None
    left, top, right, bottom = box
    return left, origin - bottom, right, origin - top
