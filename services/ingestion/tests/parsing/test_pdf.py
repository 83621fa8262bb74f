"""PDF: text, headings, ruled tables, and files that are broken or closed."""

import io
import time
from itertools import pairwise

import pytest
from loremesh_ingestion.errors import DocumentCorrupt, DocumentEmpty, PasswordProtected
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

pytestmark = pytest.mark.unit

STYLES = getSampleStyleSheet()
BODY = "The quick brown fox jumps over the lazy dog. " * 8


def pdf(*flowables, **options) -> bytes:
    file = io.BytesIO()
    SimpleDocTemplate(file, pagesize=A4, **options).build(list(flowables))
    return file.getvalue()


def text(words: str, style: str = "BodyText") -> Paragraph:
    return Paragraph(words, STYLES[style])


def ruled(rows: list[list[str]], **options) -> Table:
    table = Table(rows, **options)
    table.setStyle(TableStyle([("GRID", (0, 0), (-1, -1), 1, colors.black)]))
    return table


def test_headings_paragraphs_tables_and_pages_are_found(read, blocks_of):
    table = ruled([["part", "price"], ["front wing", "3"], ["a|b", ""]])
    data = pdf(
        text("Report", "Heading1"), text(BODY), text("Parts", "Heading2"), table, Spacer(1, 20), text(BODY),
        PageBreak(), text("Second page " + BODY), title="The report",
    )  # fmt: skip
    document = read(data, "lies.txt")
    assert (document.media_type, document.title) == ("application/pdf", "The report")
    blocks = blocks_of(document)
    assert [kind for kind, _ in blocks] == ["heading", "paragraph", "heading", "table", "paragraph", "paragraph"]
    assert [text for kind, text in blocks if kind == "heading"] == ["Report", "Parts"]
    assert blocks[3][1] == "| part | price |\n| --- | --- |\n| front wing | 3 |\n| a\\|b |  |"
    assert [block.level for block in document.blocks if block.level] == [1, 2]
    first, second = document.pages
    assert document.text[second.start : second.end].strip().startswith("Second page")
    assert (first.start, first.end, second.end) == (0, second.start, len(document.text))


def test_a_title_nobody_wrote_is_replaced_by_the_first_heading(read):
    assert read(pdf(text("Report", "Heading1"), text(BODY))).title == "Report"


def test_a_table_over_a_hundred_pages_repeats_its_header(read, blocks_of):
    rows = [["number", "square", "name"], *([str(n), str(n * n), f"row {n}"] for n in range(600))]
    document = read(pdf(ruled(rows, rowHeights=115)))
    tables = [content for kind, content in blocks_of(document) if kind == "table"]
    assert len(tables) == len(document.pages) > 100
    assert all(table.startswith("| number | square | name |\n| --- | --- | --- |\n| ") for table in tables)
    written = [line for table in tables for line in table.split("\n")[2:]]
    assert written == [f"| {number} | {square} | {name} |" for number, square, name in rows[1:]]


def test_a_frame_around_text_is_no_table(read, blocks_of):
    document = read(pdf(ruled([["Only a framed remark"]]), text(BODY)))
    assert {kind for kind, _ in blocks_of(document)} == {"paragraph"}
    assert "Only a framed remark" in document.text


def test_a_drawing_is_not_searched_for_tables(read):
    file = io.BytesIO()
    canvas = Canvas(file)
    canvas.drawString(50, 50, "A drawing of many lines")
    for number in range(5000):
        canvas.line(number % 500, 100, 500 - number % 500, 700)
    canvas.save()
    started = time.process_time()
    assert read(file.getvalue()).text == "A drawing of many lines"
    assert time.process_time() - started < 5


def handwritten(content: bytes, to_unicode: bytes) -> bytes:
    """Return a PDF whose font says by itself which characters its codes stand for, as fonts for Thai do."""
    streams = [b"<</Length %d>>stream\n%s\nendstream" % (len(data), data) for data in (content, to_unicode)]
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 400 400]/Contents 5 0 R/Resources<</Font<</F 4 0 R>>>>>>",
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/ToUnicode 6 0 R>>",
        *streams,
    ]
    data, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    end = b"trailer<</Size 7/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % len(data)
    return data + b"xref\n0 7\n0000000000 65535 f \n" + table + end


def test_thai_and_emoji_are_exact_and_divided_words_whole(read):
    mapping = b"""begincmap 1 begincodespacerange <00> <ff> endcodespacerange
        4 beginbfchar <41> <0E2A> <42> <0E27> <43> <D83DDE00> <44> <0E31> endbfchar endcmap"""
    content = b"BT /F 12 Tf 50 300 Td (ABD C aero-) Tj 0 -14 Td (dynamics) Tj ET"
    assert read(handwritten(content, mapping)).text == "สวั 😀 aerodynamics"


def test_a_password_is_asked_for(read):
    with pytest.raises(PasswordProtected):
        read(pdf(text(BODY), encrypt=StandardEncryption("secret", ownerPassword="other")))


def test_a_pdf_only_its_owner_may_change_is_read(read):
    assert "quick brown fox" in read(pdf(text(BODY), encrypt=StandardEncryption("", ownerPassword="other"))).text


def test_a_truncated_pdf_is_corrupt(read):
    data = pdf(*[text(BODY), PageBreak()] * 20)
    for kept in (0.1, 0.5, 0.9, 0.99):
        with pytest.raises(DocumentCorrupt):
            read(data[: int(len(data) * kept)])


def test_a_pdf_whose_end_alone_is_missing_is_corrupt(read):
    data = handwritten(b"BT /F 12 Tf 50 300 Td (all is here) Tj ET", b"")
    assert read(data).text == "all is here"
    with pytest.raises(DocumentCorrupt, match="cut off"):
        read(data[: data.index(b"startxref")])


def test_a_pdf_of_nothing_but_its_marks_is_corrupt(read):
    with pytest.raises(DocumentCorrupt):
        read(b"%PDF-1.7\n" + bytes(1000) + b"\n%%EOF\n")


def test_a_scan_is_empty(read):
    file = io.BytesIO()
    canvas = Canvas(file)
    canvas.rect(50, 50, 100, 100, fill=1)
    canvas.save()
    with pytest.raises(DocumentEmpty, match="recognition"):
        read(file.getvalue())


def test_pages_follow_one_another(read):
    document = read(pdf(*(part for number in range(1, 6) for part in (text(f"Page {number}. {BODY}"), PageBreak()))))
    assert [page.number for page in document.pages] == [1, 2, 3, 4, 5]
    assert all(before.end == after.start for before, after in pairwise(document.pages))
