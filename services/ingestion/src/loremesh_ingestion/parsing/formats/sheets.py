"""XLSX: every sheet a page with its name as heading and its cells as one table."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

from python_calamine import CalamineWorkbook

from loremesh_ingestion.domain.parsed import BlockKind, ParsedDocument
from loremesh_ingestion.parsing.builder import DocumentBuilder
from loremesh_ingestion.parsing.media_types import XLSX
from loremesh_ingestion.parsing.tables import markdown_table


def read(path: Path) -> ParsedDocument:
    """Return the sheets in the workbook's order, hidden ones too; sheets without cells give no text."""
    builder = DocumentBuilder()
    with CalamineWorkbook.from_path(path) as workbook:
        for number, name in enumerate(workbook.sheet_names, start=1):
            table = markdown_table(_rows(workbook, name))
            builder.page(number)
            if table:
                builder.heading(name, level=1)
                builder.add(BlockKind.TABLE, table)
    return builder.build(media_type=XLSX)


def _rows(workbook: CalamineWorkbook, name: str) -> Iterator[list[str]]:
    for row in workbook.get_sheet_by_name(name).iter_rows():
        yield [_cell(value) for value in row]


def _cell(value: object) -> str:
    """Return the value as a reader of the sheet would say it: 3 and not 3.0, dates without a midnight."""
    match value:
        case bool():
            return str(value).upper()
        case float() if value.is_integer():
            return str(int(value))
        case dt.datetime() if value.time() == dt.time():
            return value.date().isoformat()
        case dt.datetime() | dt.date() | dt.time():
            return value.isoformat(" ") if isinstance(value, dt.datetime) else value.isoformat()
        case _:
            return str(value)
