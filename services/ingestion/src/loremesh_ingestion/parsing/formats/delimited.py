"""Comma- and tab-separated values, as one Markdown table."""

import csv
from collections.abc import Iterable, Iterator
from itertools import islice

from loremesh_ingestion.domain.parsed import BlockKind, ParsedDocument
from loremesh_ingestion.parsing.builder import DocumentBuilder
from loremesh_ingestion.parsing.media_types import Format
from loremesh_ingestion.parsing.tables import markdown_table

_DELIMITERS = ",;\t|"
_SAMPLE_ROWS = 20
_SAMPLE = 1 << 16  # characters
_FEWEST_ROWS = 2
_LARGEST_FIELD = 1 << 27  # characters; a quote that is never closed makes one field of all the rest


def delimiter_of(text: str) -> str | None:
    """Return what separates the columns, None when no delimiter gives the first rows one and the same width."""
    csv.field_size_limit(_LARGEST_FIELD)
    widths = {delimiter: _width(text, delimiter) for delimiter in _DELIMITERS}
    best = max(_DELIMITERS, key=lambda delimiter: widths[delimiter])
    return best if widths[best] > 1 else None


def _width(text: str, delimiter: str) -> int:
    rows = _rows(text[:_SAMPLE], delimiter)
    try:
        widths = [len(row) for row in islice(rows, _SAMPLE_ROWS)]
    except csv.Error:
        return 0
    if len(text) > _SAMPLE and len(widths) < _SAMPLE_ROWS:
        widths.pop()  # the sample ended within it
    return widths[0] if len(widths) >= _FEWEST_ROWS and len(set(widths)) == 1 else 0


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    lines: Iterable[str] = text.splitlines(keepends=True)
    return (row for row in csv.reader(lines, delimiter=delimiter) if row)


def read(text: str, kind: Format) -> ParsedDocument:
    """Return the rows as a table."""
    builder = DocumentBuilder()
    builder.add(BlockKind.TABLE, markdown_table(_rows(text, delimiter_of(text) or ",")))
    return builder.build(media_type=kind.media_type)
