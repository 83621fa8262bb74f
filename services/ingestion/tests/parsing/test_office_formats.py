"""DOCX, PPTX and XLSX, and archives that are none or mean harm."""

import datetime as dt
import io
import zipfile

import docx
import pptx
import pytest
import xlsxwriter
from docx.oxml.ns import qn
from loremesh_ingestion.errors import (
    DocumentCorrupt,
    DocumentEmpty,
    ParseLimit,
    PasswordProtected,
    UnsupportedMediaType,
)
from loremesh_ingestion.parsing import media_types
from pptx.util import Inches

pytestmark = pytest.mark.unit

THAI = "สวัสดีครับ วันนี้อากาศดี 😀"


def saved(document) -> bytes:
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def word() -> bytes:
    document = docx.Document()
    document.core_properties.title = "The report"
    document.add_heading("Results", 1)
    document.add_paragraph(f"We found {THAI}.")
    document.add_heading("Numbers", 2)
    document.add_paragraph("first", style="List Bullet")
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip(
        (cell for row in table.rows for cell in row.cells), ["part", "price", "ปีก | wing", "3"], strict=True
    ):
        cell.text = text
    document.add_paragraph("After the table.")
    return saved(document)


def test_word_gives_headings_lists_and_tables_in_order(read, blocks_of):
    document = read(word(), "report.bin")
    assert (document.media_type, document.title) == (media_types.DOCX, "The report")
    assert blocks_of(document) == [
        ("heading", "# Results"),
        ("paragraph", f"We found {THAI}."),
        ("heading", "## Numbers"),
        ("list", "- first"),
        ("table", "| part | price |\n| --- | --- |\n| ปีก \\| wing | 3 |"),
        ("paragraph", "After the table."),
    ]


def test_a_merged_cell_in_word_stands_once(read):
    document = docx.Document()
    table = document.add_table(rows=2, cols=2)
    table.cell(0, 0).merge(table.cell(0, 1)).text = "wide"
    table.cell(1, 0).text, table.cell(1, 1).text = "a", "b"
    assert read(saved(document)).text == "| wide |  |\n| --- | --- |\n| a | b |"


def test_slides_are_pages_with_titles_texts_tables_groups_and_notes(read, blocks_of):
    show = pptx.Presentation()
    for number in (1, 2):
        slide = show.slides.add_slide(show.slide_layouts[1])
        slide.shapes.title.text = f"Slide {number} {THAI}"
        slide.placeholders[1].text = "point one\npoint two"
    group = slide.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, Inches(1), Inches(1)).text_frame.text = "grouped"
    table = slide.shapes.add_table(2, 1, 0, 0, Inches(2), Inches(1)).table
    table.cell(0, 0).text, table.cell(1, 0).text = "head", "cell"
    slide.notes_slide.notes_text_frame.text = "say this"
    document = read(saved(show))
    assert (document.media_type, document.title) == (media_types.PPTX, f"Slide 1 {THAI}")
    assert blocks_of(document)[:2] == [("heading", f"# Slide 1 {THAI}"), ("list", "- point one\n- point two")]
    assert {("paragraph", "grouped"), ("table", "| head |\n| --- |\n| cell |"), ("paragraph", "say this")} <= set(
        blocks_of(document)
    )
    first, second = document.pages
    assert document.text[second.start : second.end].strip().startswith("# Slide 2")
    assert (first.number, first.start, second.end) == (1, 0, len(document.text))


def workbook(**options: object) -> bytes:
    file = io.BytesIO()
    book = xlsxwriter.Workbook(file, {"in_memory": True, **options})
    stock = book.add_worksheet("คลัง Stock")
    date = book.add_format({"num_format": "yyyy-mm-dd"})
    stock.write_row(0, 0, ["part", "price", "sold", "since"])
    stock.write_row(1, 0, [THAI, 3, True])
    stock.write_datetime(1, 3, dt.date(2026, 11, 2), date)
    book.add_worksheet("Empty")
    book.add_worksheet("More").write(5, 3, 1.5)
    book.close()
    return file.getvalue()


def test_sheets_are_pages_with_their_cells_as_a_table(read, blocks_of):
    document = read(workbook(), "book.csv")
    assert document.media_type == media_types.XLSX
    assert blocks_of(document)[:2] == [
        ("heading", "# คลัง Stock"),
        ("table", f"| part | price | sold | since |\n| --- | --- | --- | --- |\n| {THAI} | 3 | TRUE | 2026-11-02 |"),
    ]
    assert [page.number for page in document.pages] == [1, 2, 3]
    assert "1.5" in document.text[document.pages[2].start : document.pages[2].end]


def test_documents_without_text_are_empty(read):
    for empty in (docx.Document(), pptx.Presentation()):
        with pytest.raises(DocumentEmpty):
            read(saved(empty))


def archive(entries: dict[str, bytes], level: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", level) as zipped:
        for name, data in entries.items():
            zipped.writestr(name, data)
    return file.getvalue()


def with_entry(data: bytes, name: str, content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        entries = {entry.filename: source.read(entry) for entry in source.infolist()}
    return archive({**entries, name: content})


def test_an_archive_that_is_no_document_is_unsupported(read):
    with pytest.raises(UnsupportedMediaType) as raised:
        read(archive({"a.txt": b"hello"}), "report.docx")
    assert raised.value.metadata == {"media_type": "application/zip"}


@pytest.mark.parametrize(
    ("bomb", "limit"),
    [
        (lambda: with_entry(word(), "word/media/image1.xml", bytes(64 << 20)), "ratio"),
        (lambda: with_entry(word(), "word/document.xml", b"<a>" + b" " * (8 << 20) + b"</a>"), "ratio"),
        (lambda: archive({"word/document.xml": b"x", **{f"x{number}": b"" for number in range(10_001)}}), "entries"),
        (lambda: archive({"word/document.xml": b"x", **{f"{number}.zip": b"" for number in range(101)}}), "depth"),
    ],
)
def test_bombs_are_refused_before_they_are_unpacked(read, bomb, limit):
    with pytest.raises(ParseLimit) as raised:
        read(bomb(), "report.docx")
    assert raised.value.metadata == {"limit": limit}


def test_entities_that_blow_up_are_refused(read):
    laughs = b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><w:document>&b;</w:document>'
    with pytest.raises(DocumentCorrupt, match="entities"):
        read(with_entry(word(), "word/document.xml", laughs))


@pytest.mark.parametrize("make", [word, workbook])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_a_truncated_document_is_corrupt(read, make, kept):
    data = make()
    with pytest.raises(DocumentCorrupt):
        read(data[: int(len(data) * kept)])


def test_damaged_parts_are_corrupt(read):
    with pytest.raises(DocumentCorrupt):
        read(with_entry(word(), "word/document.xml", b"<w:document>no end"))
    with pytest.raises(DocumentCorrupt):
        read(with_entry(workbook(), "xl/workbook.xml", b"not xml at all"))
    with pytest.raises(DocumentCorrupt):
        read(archive({"ppt/presentation.xml": b"<p/>"}))


def test_an_encrypted_document_asks_for_its_password(read):
    encrypted = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600) + "EncryptedPackage".encode("utf-16-le") + bytes(600)
    with pytest.raises(PasswordProtected):
        read(encrypted, "secret.docx")
    data = bytearray(archive({"word/document.xml": b"x"}))
    data[6] |= 1  # the local header's flag
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the directory's
    with pytest.raises(PasswordProtected):
        read(bytes(data))


def test_an_old_office_document_is_unsupported(read):
    with pytest.raises(UnsupportedMediaType):
        read(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2000), "old.doc")


def test_numbered_paragraphs_in_word_are_lists(read, blocks_of):
    document = docx.Document()
    paragraph = document.add_paragraph("numbered by hand")
    properties = paragraph._p.get_or_add_pPr()
    properties.append(properties.makeelement(qn("w:numPr"), {}))
    assert blocks_of(read(saved(document))) == [("list", "- numbered by hand")]
