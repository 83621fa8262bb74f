from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loremesh_ingestion.errors import UploadMalformed
from loremesh_ingestion.servicers.form import Form

pytestmark = pytest.mark.unit

TYPE = "multipart/form-data; boundary=edge"


def part(name: str, value: bytes, *, filename: str = "", content_type: str = "") -> bytes:
    head = f'--edge\r\nContent-Disposition: form-data; name="{name}"'.encode()
    head += f'; filename="{filename}"'.encode() if filename else b""
    head += f"\r\nContent-Type: {content_type}".encode() if content_type else b""
    return head + b"\r\n\r\n" + value + b"\r\n"


END = b"--edge--\r\n"


def feed(body: bytes, cuts: list[int]) -> tuple[Form, bytes]:
    form = Form(TYPE)
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    pieces = [body[start:end] for start, end in pairwise(edges)]
    return form, b"".join(each for piece in pieces for each in form.feed(piece))


@given(
    content=st.binary(max_size=300) | st.sampled_from([b"\r\n--edge", b"--edge--", b"\r\n--edg", b"\r\n\r\n"]),
    cuts=st.lists(st.integers(0, 1000), max_size=12),
    file_first=st.booleans(),
)
def test_the_file_comes_out_as_it_was_however_the_body_is_cut(content, cuts, file_first):
    if b"\r\n--edge" in b"\r\n" + content:
        return
    file = part("file", content, filename="ปีก.txt", content_type="text/plain; charset=utf-8")
    field = part("title", "Wings ✈".encode())
    form, found = feed((file + field if file_first else field + file) + END, cuts)
    assert found == content
    assert form.finish() == {"title": "Wings ✈"}
    assert (form.filename, form.content_type) == ("ปีก.txt", "text/plain; charset=utf-8")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (part("title", b"x") + END, "file"),
        (part("file", b"x"), "file"),
        (part("file", b"x") + part("colour", b"red") + END, "colour"),
        (part("file", b"x") + part("file", b"y") + END, "file"),
        (part("title", b"a") + part("title", b"b") + part("file", b"x") + END, "title"),
        (part("file", b"x") + part("title", b"\xff") + END, "title"),
        (part("attributes", b"x" * 70_000) + part("file", b"x") + END, "attributes"),
        (b"no form at all", "file"),
        (b"--edge\r\nContent-Disposition form-data\r\n\r\nx\r\n" + END, "file"),
        (b"--edge\r\nX: " + b"y" * 100_000 + b"\r\n\r\n" + END, "file"),
    ],
)
def test_a_broken_form_names_the_part(body, field):
    with pytest.raises(UploadMalformed) as raised:
        feed(body, [])[0].finish()
    assert raised.value.violations[0].field == field


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=" + "x" * 300])
def test_a_form_needs_a_boundary(content_type):
    with pytest.raises(UploadMalformed):
        Form(content_type)
