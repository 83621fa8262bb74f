"""DOCX: paragraphs, lists and tables in reading order, headings by their styles."""

import re
from pathlib import Path

import docx
from docx.table import Table
from docx.text.paragraph import Paragraph

from loremesh_ingestion.domain.parsed import BlockKind, ParsedDocument
from loremesh_ingestion.parsing.builder import DocumentBuilder
from loremesh_ingestion.parsing.media_types import DOCX
from loremesh_ingestion.parsing.tables import markdown_table

_HEADING_STYLE = re.compile(r"heading\s*(?P<level>[1-9])\b", re.IGNORECASE)


def read(path: Path) -> ParsedDocument:
    """Return the body of a document; its title is the one in its properties or a paragraph of style Title."""
    document = docx.Document(str(path))
    builder = DocumentBuilder()
    title = (document.core_properties.title or "").strip()
    for item in document.iter_inner_content():
        if isinstance(item, Table):
            builder.add(BlockKind.TABLE, markdown_table(_rows(item)))
            continue
        level = _level(item)
        if level == 1 and not title and _style(item) == "Title":
            title = item.text.strip()
        _add(builder, item, level)
    return builder.build(media_type=DOCX, title=title)


def _add(builder: DocumentBuilder, paragraph: Paragraph, level: int) -> None:
    if level:
        builder.heading(paragraph.text, level=level)
    elif _is_item(paragraph) and paragraph.text.strip():
        builder.add(BlockKind.LIST, f"- {paragraph.text}")
    else:
        builder.add(BlockKind.PARAGRAPH, paragraph.text)


def _style(paragraph: Paragraph) -> str:
    style = paragraph.style
    return (style.name or "") if style is not None else ""


def _level(paragraph: Paragraph) -> int:
    """Return 1 for titles and first headings, 0 for what is no heading."""
    style = _style(paragraph)
    found = _HEADING_STYLE.match(style)
    return int(found["level"]) if found else int(style == "Title")


def _is_item(paragraph: Paragraph) -> bool:
    properties = paragraph._p.pPr  # noqa: SLF001 - python-docx shows list membership nowhere else
    return _style(paragraph).startswith("List") or (properties is not None and properties.numPr is not None)


def _rows(table: Table) -> list[list[str]]:
    """Return the cells' text; a merged cell stands once, where it begins."""
    rows = []
    seen: set[object] = set()  # the elements themselves: lxml makes new ones, at old addresses, for those let go
    for row in table.rows:
        texts = []
        for cell in row.cells:
            element = cell._tc  # noqa: SLF001 - the one thing the parts of a merged cell share
            texts.append("" if element in seen else cell.text)
            seen.add(element)
        rows.append(texts)
    return rows
