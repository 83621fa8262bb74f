"""The shapes in which a document may come, and those in which it may not."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.system

MEBIBYTE = 1024 * 1024
Settled = Callable[[str], dict[str, Any]]


def test_json_a_form_and_the_file_itself_make_the_same_document(http: httpx.Client, settled: Settled) -> None:
    text, title, attributes = "Fjords are drowned valleys.", "Fjords", {"lang": "en"}
    path = "/api/v1/documents"
    as_json = http.post(path, json={"content": text, "title": title, "attributes": attributes})
    form = {"title": title, "attributes": json.dumps(attributes)}
    as_form = http.post(path, files={"file": ("fjords.txt", text.encode(), "text/plain")}, data=form)
    headers = {"content-type": "text/plain"}
    as_file = http.post(path, content=text.encode(), params={"title": title}, headers=headers)
    documents = [settled(each.raise_for_status().json()["id"]) for each in (as_json, as_form, as_file)]
    assert {each["state"] for each in documents} == {"DOCUMENT_STATE_READY"}
    assert {(each["title"], each["sha256"], each["size_bytes"]) for each in documents} == {
        (title, documents[0]["sha256"], str(len(text)))
    }
    assert [each.get("attributes", {}) for each in documents] == [attributes, attributes, {}]
    assert documents[1]["filename"] == "fjords.txt"


def test_what_happens_to_a_document_can_be_watched_until_its_end_and_again(http: httpx.Client) -> None:
    document = http.post("/api/v1/documents", json={"content": "Geysers erupt."}).raise_for_status().json()
    path = f"/api/v1/documents/{document['id']}/events"
    events = list(watched(http, path))
    assert [each["seq"] for each in events] == [str(number) for number in range(1, len(events) + 1)]
    assert events[-1]["ready"]["version"] == "1"
    assert not any("ready" in each or "failed" in each for each in events[:-1])
    assert list(watched(http, f"{path}?after_seq=2")) == events[2:]
    assert list(watched(http, path, last_event_id="2")) == events[2:]
    asked = http.get(f"/api/v1/documents/{document['id']}/history", params={"after_seq": 1}).raise_for_status().json()
    assert (asked["events"], asked["last_seq"]) == (events[1:], str(len(events)))


def watched(http: httpx.Client, path: str, *, last_event_id: str = "") -> Iterator[dict[str, Any]]:
    headers = {"last-event-id": last_event_id} if last_event_id else {}
    with http.stream("GET", path, headers=headers, timeout=60) as response:
        assert response.headers["content-type"] == "text/event-stream"
        for line in response.iter_lines():
            if line.startswith("data: ") and "heartbeat" not in (event := json.loads(line.removeprefix("data: "))):
                yield event


def test_content_decides_what_a_document_is_not_its_name(http: httpx.Client, settled: Settled) -> None:
    response = http.post(
        "/api/v1/documents",
        content=b"<html><head><title>Dunes</title></head><body><p>Dunes wander with the wind.</p></body></html>",
        params={"filename": "dunes.pdf"},
        headers={"content-type": "application/pdf"},
    )
    document = settled(response.raise_for_status().json()["id"])
    assert document["state"] == "DOCUMENT_STATE_READY", document.get("failure")
    assert document["media_type"] == "text/html"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (os.urandom(5000), "UNSUPPORTED_MEDIA_TYPE"),
        (b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog", "DOCUMENT_CORRUPT"),
        (b" \n\t\n", "DOCUMENT_EMPTY"),
    ],
)
def test_a_document_which_cannot_be_read_says_why(
    http: httpx.Client, settled: Settled, content: bytes, reason: str
) -> None:
    document = settled(http.post("/api/v1/documents", content=content).raise_for_status().json()["id"])
    assert document["state"] == "DOCUMENT_STATE_FAILED"
    assert document["failure"]["reason"] == reason
    assert document["failure"]["message"]


def pieces(count: int) -> Iterator[bytes]:
    piece = os.urandom(MEBIBYTE)
    for _ in range(count):
        yield piece


def test_a_hundred_mebibytes_are_taken_and_one_more_is_not(http: httpx.Client, mesh: Any) -> None:
    process = mesh.state().parts["ingestion"].process
    status = Path(f"/proc/{process.pid}/statm")
    before = int(status.read_text().split()[1]) * 4096
    taken = http.post("/api/v1/documents", content=pieces(100)).raise_for_status().json()
    assert taken["size_bytes"] == str(100 * MEBIBYTE)
    assert int(status.read_text().split()[1]) * 4096 - before < 100 * MEBIBYTE
    refused = http.post("/api/v1/documents", content=pieces(101))
    detail = refused.json()["details"][0]
    assert (refused.status_code, detail["reason"]) == (400, "DOCUMENT_TOO_LARGE")
    assert detail["metadata"] == {"limit_bytes": str(100 * MEBIBYTE)}
    http.delete(f"/api/v1/documents/{taken['id']}").raise_for_status()
