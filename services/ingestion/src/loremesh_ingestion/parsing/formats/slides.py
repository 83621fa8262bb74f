"""PPTX: every slide a page, with its title as heading, its texts and tables, and the speaker's notes."""

from collections.abc import Iterator
from pathlib import Path

from pptx import Presentation
from pptx.shapes.autoshape import Shape
from pptx.shapes.base import BaseShape
from pptx.shapes.graphfrm import GraphicFrame
from pptx.shapes.group import GroupShape
from pptx.slide import Slide

from loremesh_ingestion.domain.parsed import BlockKind, ParsedDocument
from loremesh_ingestion.errors import ParseLimit
from loremesh_ingestion.parsing.builder import DocumentBuilder
from loremesh_ingestion.parsing.media_types import PPTX
from loremesh_ingestion.parsing.tables import markdown_table

_DEPTH = 20  # groups within groups


def read(path: Path) -> ParsedDocument:
    """Return the slides in order; the title is the one in the properties, else the first slide's."""
    presentation = Presentation(str(path))
    builder = DocumentBuilder()
    title = (presentation.core_properties.title or "").strip()
    for number, slide in enumerate(presentation.slides, start=1):
        builder.page(number)
        heading = _title(slide)
        title = title or heading
        builder.heading(heading, level=1)
        for shape in _shapes(slide.shapes, depth=0):
            if shape.shape_id != _title_id(slide):
                _add(builder, shape)
        if slide.has_notes_slide and (notes := slide.notes_slide.notes_text_frame) is not None:
            builder.add(BlockKind.PARAGRAPH, notes.text)
    return builder.build(media_type=PPTX, title=title)


def _title(slide: Slide) -> str:
    shape = slide.shapes.title
    return " ".join(shape.text_frame.text.split()) if shape is not None else ""


def _title_id(slide: Slide) -> int:
    shape = slide.shapes.title
    return shape.shape_id if shape is not None else -1


def _shapes(shapes: Iterator[BaseShape], *, depth: int) -> Iterator[BaseShape]:
    if depth > _DEPTH:
        limit = "depth"
        raise ParseLimit(limit)
    for shape in shapes:
        if isinstance(shape, GroupShape):
            yield from _shapes(iter(shape.shapes), depth=depth + 1)
        else:
            yield shape


def _add(builder: DocumentBuilder, shape: BaseShape) -> None:
    if isinstance(shape, GraphicFrame) and shape.has_table:
        rows = ([cell.text for cell in row.cells] for row in shape.table.rows)
        builder.add(BlockKind.TABLE, markdown_table(rows))
    elif isinstance(shape, Shape):
        lines = [paragraph.text for paragraph in shape.text_frame.paragraphs if paragraph.text.strip()]
        if len(lines) > 1:
            builder.add(BlockKind.LIST, "\n".join(f"- {line}" for line in lines))
        else:
            builder.add(BlockKind.PARAGRAPH, "".join(lines))
