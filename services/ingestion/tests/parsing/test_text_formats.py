"""Markdown, HTML, CSV, JSON, e-mail and source code."""

import email.message
import json
import time

import pytest
from loremesh_ingestion.errors import DocumentEmpty, ParseLimit
from loremesh_ingestion.parsing import media_types
from loremesh_ingestion.parsing.formats import markdown
from loremesh_ingestion.parsing.media_types import Format

pytestmark = pytest.mark.unit

PROSE = "The wing stalls at high angles of attack, and the pilot feels it in the stick before anything else happens.\n"
THAI = "สวัสดีครับ วันนี้อากาศดี 😀"


def test_markdown_keeps_its_text_and_knows_its_blocks(read, blocks_of):
    text = f"# Title\n\nWords {THAI}.\n\nSub\n---\n\n- one\n- two\n\n"
    text += "| a | b |\n|---|---|\n| 1 | 2 |\n\n```py\n# no heading\n```"
    document = read(text.encode(), "notes.md")
    assert (document.media_type, document.title, document.text) == ("text/markdown", "Title", text)
    assert blocks_of(document) == [
        ("heading", "# Title"),
        ("paragraph", f"Words {THAI}."),
        ("heading", "Sub\n---"),
        ("list", "- one\n- two"),
        ("table", "| a | b |\n|---|---|\n| 1 | 2 |"),
        ("code", "```py\n# no heading\n```"),
    ]


def test_front_matter_gives_the_title_and_is_no_heading(read, blocks_of):
    document = read(b'---\ntitle: "A guide"\ntags: [x]\n---\n\n# Other\n\nText.', "a.md")
    assert document.title == "A guide"
    assert blocks_of(document)[0][0] == "code"


def test_large_markdown_is_parsed_piece_by_piece_with_the_same_blocks():
    section = f"# Head {THAI}\n\n{PROSE}\n\n```sh\n\n# comment\n\nls\n```\n\n"
    text = section * 8_000
    document = markdown.read(text, Format(media_types.MARKDOWN))
    one = markdown.read(section, Format(media_types.MARKDOWN))
    assert len(text) > 1 << 20
    assert len(document.blocks) == 8_000 * len(one.blocks)
    last = document.blocks[-1]
    assert text[last.start : last.end] == "```sh\n\n# comment\n\nls\n```"


def test_large_markdown_is_never_parted_within_a_code_block():
    comments = "\n# comment\n\nls\n" * 80_000
    text = f"# A\n\n```sh\n{comments}```\n\n# B\n\nend"
    document = markdown.read(text, Format(media_types.MARKDOWN))
    assert [str(block.kind) for block in document.blocks] == ["heading", "code", "heading", "paragraph"]


BODY = " ".join(
    f"In flight {number} the wing stalled at {number} degrees and the pilot felt it." for number in range(20)
)
PAGE = f"""<!DOCTYPE html><html><head><title>The page</title><script>var x = 1;</script></head><body>
<nav><a href="/">Home</a> <a href="/about">About</a></nav>
<article><h1>Main heading</h1><p>{BODY} {THAI} uses max_tokens.</p><h2>Prices</h2>
<table><tr><th>Name</th><th>Qty</th></tr><tr><td>apple</td><td>3</td></tr></table>
<ul><li>first</li><li>second</li></ul><pre>x = 1
  y = 2</pre></article><footer>Imprint</footer></body></html>"""


def test_html_gives_its_main_content_with_structure(read, blocks_of):
    document = read(PAGE.encode(), "page.html")
    kinds = [kind for kind, _ in blocks_of(document)]
    assert (document.media_type, document.title) == ("text/html", "The page")
    assert THAI in document.text
    assert "max_tokens" in document.text
    assert "var x" not in document.text
    assert "Imprint" not in document.text
    assert {"heading", "paragraph", "table", "list", "code"} <= set(kinds)


def test_html_without_an_article_is_read_whole(read, blocks_of):
    page = "<html><body>Loose <b>bold</b><!-- no --> text<div>inner <i>part</i></div>tail<h3>Head</h3>"
    page += "<ul><li>item</ul><table><tr><td>1<td>2</table><pre>a\n b</pre>end &amp; &#3585;</body></html>"
    document = read(page.encode())
    for expected in ("Loose bold text", "inner part", "tail", "### Head", "- item", "| 1 | 2 |", "a\n b", "end & ก"):
        assert expected in document.text


def test_html_with_an_encoding_declaration_is_read(read):
    page = '<?xml version="1.0" encoding="iso-8859-1"?><html><body><p>Café au lait.</p></body></html>'
    assert "Café" in read(page.encode("latin-1"), "a.xhtml").text


def test_html_that_shows_nothing_is_empty(read):
    with pytest.raises(DocumentEmpty):
        read(b"<html><head><title></title></head><body><script>x()</script></body></html>")


def test_deeply_nested_html_is_read(read):
    page = f"<html><body>{'<div>' * 1500}deep{'</div>' * 1500}</body></html>"
    assert "deep" in read(page.encode()).text


@pytest.mark.parametrize("before", ["", "<p>Read.", "<p>Read.</i>" * 500])
def test_html_nested_beyond_what_the_parser_reads_is_refused_and_not_cut_short(read, before):
    page = f"<html><body>{before}{'<div>' * 3000}deep{'</div>' * 3000}<p>After.</body></html>"
    with pytest.raises(ParseLimit) as raised:
        read(page.encode())
    assert raised.value.metadata == {"limit": "depth"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_becomes_a_table_whatever_its_delimiter(read, blocks_of, delimiter):
    rows = [["name", "note"], ["apple", '"a ""red"" one\nwith | pipe"'], ["ส้ม", "😀"]]
    data = "\n".join(delimiter.join(row) for row in rows).encode()
    document = read(data, "stock.csv")
    assert document.media_type == "text/csv"
    assert blocks_of(document) == [
        ("table", '| name | note |\n| --- | --- |\n| apple | a "red" one with \\| pipe |\n| ส้ม | 😀 |')
    ]


def test_prose_called_csv_stays_prose(read):
    assert read(f"{PROSE}It stalls.\nNo, really, it does.\n".encode(), "a.csv").media_type == "text/plain"


def test_json_is_laid_out_and_kept_in_members(read, blocks_of):
    document = read('{"name":"ส้ม","tags":["a",{"b":1}],"n":1.5}'.encode(), "a.json")
    assert document.media_type == "application/json"
    assert json.loads(document.text) == {"name": "ส้ม", "tags": ["a", {"b": 1}], "n": 1.5}
    members = [text.split(":")[0].strip() for _, text in blocks_of(document)]
    assert members == ['"name"', '"tags"', '"n"']


def test_json_lines_are_blocks(read, blocks_of):
    document = read(b'{"a": 1}\n{"a": 2}\n\n{"a": 3}\n', "a.jsonl")
    assert document.media_type == "application/x-ndjson"
    assert [text for _, text in blocks_of(document)] == ['{"a": 1}', '{"a": 2}', '{"a": 3}']


def test_large_json_stays_as_it_is_laid_out(read):
    text = f'{{"a": [{"1, " * 2_000_000}1]}}\n'
    document = read(text.encode())
    assert (document.media_type, document.text) == ("application/json", text)


def test_an_escaped_lone_surrogate_in_json_is_dropped(read):
    assert '"x"' in read(rb'{"a": "\ud800x"}').text


def test_broken_json_is_text(read):
    assert read(b'{"a": 1, ' + PROSE.encode(), "a.json").media_type != "application/json"


def test_json_nested_beyond_reason_raises_recursion_error_for_the_process_to_report(read):
    with pytest.raises(RecursionError):
        read(b"[" * 100_000 + b"]" * 100_000)


def message(**headers: str) -> email.message.EmailMessage:
    mail = email.message.EmailMessage()
    for name, value in {"From": "Ann <ann@example.com>", "To": "bob@example.com", **headers}.items():
        mail[name] = value
    return mail


def test_mail_gives_headers_body_and_attachments(read):
    mail = message(Subject=f"Report {THAI}", Date="Mon, 02 Nov 2026 10:00:00 +0000")
    mail.set_content(f"Hello,\n\nthe report is {THAI}.\n")
    mail.add_alternative("<p>Not this one</p>", subtype="html")
    mail.add_attachment(b"%PDF-1.4", maintype="application", subtype="pdf", filename="report.pdf")
    document = read(bytes(mail), "whatever.bin")
    assert (document.media_type, document.title) == ("message/rfc822", f"Report {THAI}")
    for expected in ("From: Ann <ann@example.com>", f"the report is {THAI}.", "Attachment: report.pdf"):
        assert expected in document.text
    assert "Not this one" not in document.text


def test_mail_in_html_and_legacy_encoding_is_read(read):
    mail = b"From: a@b.c\r\nSubject: =?iso-8859-1?q?Caf=E9?=\r\nMIME-Version: 1.0\r\n"
    html = (
        mail
        + b"Content-Type: text/html; charset=iso-8859-1\r\n\r\n<html><body><p>Cr\xe8me br\xfbl\xe9e</p></body></html>"
    )
    document = read(html)
    assert document.title == "Café"
    assert "Crème brûlée" in document.text


def test_forwarded_mail_is_read_and_endless_forwarding_is_refused(read):
    mail = message(Subject="innermost")
    mail.set_content("the secret of the inner mail")
    for level in range(3):
        outer = message(Subject=f"Fwd {level}")
        outer.set_content("see below")
        outer.add_attachment(mail)
        mail = outer
    assert "the secret of the inner mail" in read(bytes(mail)).text
    for level in range(10):
        outer = message(Subject=f"Fwd {level}")
        outer.set_content("see below")
        outer.add_attachment(mail)
        mail = outer
    with pytest.raises(ParseLimit) as raised:
        read(bytes(mail))
    assert raised.value.metadata == {"limit": "depth"}


def test_every_text_part_of_a_mail_is_read(read):
    parts = b"--x\n\nfirst part\n--x\nContent-Type: text/html\n\n<p>second part</p>\n--x--\n"
    head = b"From: a@b.c\nTo: d@e.f\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n"
    document = read(head + parts)
    assert "first part" in document.text
    assert "second part" in document.text


PYTHON = 'import os\n\n\ndef add(a, b):\n    """Add."""\n    return a + b\n\n\nclass Shop:\n    x = 1\n'
GO = 'package main\n\nimport "fmt"\n\nfunc main() {\n\tfmt.Println("hi")\n}\n'


@pytest.mark.parametrize(
    ("code", "name", "declared", "language"),
    [
        (PYTHON, "shop.py", "", "python"),
        (PYTHON, "", "", "python"),
        (PYTHON, "shop.txt", "text/plain", "python"),
        (GO, "main.go", "application/octet-stream", "go"),
        (GO, "", "", "go"),
        ("export const f = (a: number): number => a + 1;\n", "a.ts", "", "typescript"),
        ('fn main() {\n    println!("hi");\n}\n', "a.rs", "", "rust"),
    ],
)
def test_code_is_known_by_content_and_confirmed_by_its_grammar(read, code, name, declared, language):
    document = read(code.encode(), name, declared)
    assert (document.language, document.text) == (language, code)


@pytest.mark.parametrize(
    ("data", "name", "media_type"),
    [
        (PROSE * 3, "lies.py", "text/plain"),
        (PROSE * 3, "lies.pdf", "text/plain"),
        (PROSE * 3, "", "text/plain"),
        (PAGE, "lies.txt", "text/html"),
        ('{"a": [1, 2, 3]}', "lies.txt", "application/json"),
        ("# Title\n\n- a list\n- of things\n\nSee [here](x) for more.\n", "", "text/markdown"),
        (THAI * 20, "", "text/plain"),
        ("a: 1\nb:\n  - c\n  - d\n", "x.yaml", "application/x-yaml"),
    ],
)
def test_the_content_decides_and_not_the_name(read, data, name, media_type):
    assert read(data.encode(), name).media_type == media_type


@pytest.mark.parametrize(
    "hostile",
    [
        b"<!-- -->" * 20_000,
        b"# " + b"a " * 200_000,
        b"[" * 50_000 + b"x",
        b"> " * 20_000 + b"x",
        b"* " * 20_000 + b"x",
        b"`" * 100_000,
        b"|" * 100_000 + b"\n|-|\n",
        b"From: a\n" + b"x: y\n" * 20_000,
        b"From: a\nTo: " + b"a@b.c, " * 50_000 + b"\nSubject: " + b"x " * 200_000 + b"\n\nbody",
    ],
)
def test_hostile_text_is_read_in_linear_time(read, hostile):
    started = time.process_time()
    read(hostile, "a.md")
    assert time.process_time() - started < 5


def test_a_title_is_one_clean_line_of_bounded_length(read):
    title = read(
        f"<html><head><title>A\n \ud800\x00 {'long ' * 500}</title></head><body>x</body></html>".encode(
            "utf-8", "surrogatepass"
        )
    )
    assert title.title.startswith("A long long")
    assert len(title.title) == 500
