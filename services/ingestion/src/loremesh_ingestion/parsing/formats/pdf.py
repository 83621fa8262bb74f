"""PDF: the text of every page in its own order, ruled tables as Markdown, headings by the size of their letters."""

import re
from collections.abc import Iterator
from pathlib import Path

from pypdfium2 import PdfDocument, PdfiumError  # type: ignore[import-untyped]
from pypdfium2.raw import FPDF_ERR_PASSWORD  # type: ignore[import-untyped]

from loremesh_ingestion.domain.parsed import BlockKind, ParsedDocument
from loremesh_ingestion.errors import DocumentCorrupt, DocumentEmpty, ParseLimit, PasswordProtected
from loremesh_ingestion.parsing.builder import DocumentBuilder
from loremesh_ingestion.parsing.formats.pdf_page import Line, Table, page_items
from loremesh_ingestion.parsing.formats.pdf_styles import Styles
from loremesh_ingestion.parsing.formats.pdf_tables import RuledTables
from loremesh_ingestion.parsing.media_types import PDF
from loremesh_ingestion.parsing.tables import markdown_table

_PAGES = 5000
_TAIL = 4096  # bytes within which the end mark stands, whatever a mail gateway has appended
_NO_TITLE = re.compile(
    r"untitled|\(.*\)|microsoft word - .*|.*\.(?:docx?|pptx?|xlsx?|pdf|tex|dvi|indd|qxd)", re.IGNORECASE
)
_PARAGRAPH_GAP = 0.5  # of a line's height; lines of one paragraph stand closer


def read(path: Path) -> ParsedDocument:
    """Return a PDF's text; raises PasswordProtected, DocumentCorrupt when it is cut off, DocumentEmpty for scans."""
    _check_end(path)
    try:
        document = PdfDocument(path)
    except PdfiumError as error:
        if error.err_code == FPDF_ERR_PASSWORD:
            raise PasswordProtected from error
        raise
    try:
        return _read(document, path)
    finally:
        document.close()


def _check_end(path: Path) -> None:
    """Refuse a file without its end: PDFium would rebuild what it can and lose pages without a word."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        if b"%%EOF" not in file.read():
            message = "The PDF is cut off: its end is missing."
            raise DocumentCorrupt(message)


def _read(document: PdfDocument, path: Path) -> ParsedDocument:
    if len(document) > _PAGES:
        limit = "pages"
        raise ParseLimit(limit)
    with RuledTables(path) as tables:
        pages = [list(page_items(page, tables.on(number, page))) for number, page in enumerate(document)]
    styles = Styles(item for items in pages for item in items if isinstance(item, Line))
    builder = DocumentBuilder()
    header: list[str] | None = None
    for number, items in enumerate(pages, start=1):
        builder.page(number)
        header = _add_page(builder, items, styles, header)
    parsed = builder.build(media_type=PDF, title=_title(document) or styles.title(pages[0] if pages else []))
    if not parsed.text:
        message = "The PDF holds no text; a scan must go through text recognition first."
        raise DocumentEmpty(message)
    return parsed


def _add_page(
    builder: DocumentBuilder, items: list[Line | Table], styles: Styles, header: list[str] | None
) -> list[str] | None:
    """Add a page's items; `header` is that of the table the page before ended in, the result that of this page's."""
    for at, group in enumerate(_groups(items, styles)):
        first = group[0]
        if isinstance(first, Table):
            continued = at == 0 and header is not None and len(header) == first.width
            header = header if continued and header else first.rows[0]
            body = first.rows[1:] if first.rows[0] == header else first.rows
            builder.add(BlockKind.TABLE, markdown_table([header, *body]))
            continue
        header = None
        text = "\n".join(line.text for line in group if isinstance(line, Line))
        level = styles.level(first)
        builder.add(BlockKind.HEADING if level else BlockKind.PARAGRAPH, text, level=level)
    return header


def _groups(items: list[Line | Table], styles: Styles) -> Iterator[list[Line | Table]]:
    """Yield tables one by one, and lines that make one paragraph or one heading together."""
    group: list[Line | Table] = []
    for item in items:
        if group and not _continues(group[-1], item, styles):
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def _continues(above: Line | Table, below: Line | Table, styles: Styles) -> bool:
    if isinstance(above, Table) or isinstance(below, Table):
        return False
    same_level = styles.level(above) == styles.level(below)
    return same_level and above.bottom - below.top < _PARAGRAPH_GAP * min(above.size, below.size)


def _title(document: PdfDocument) -> str:
    title = str(document.get_metadata_value("Title")).strip()
    return "" if _NO_TITLE.fullmatch(title) else title
