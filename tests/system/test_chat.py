"""Questions and answers, over REST, at once and as a stream."""

import json
from typing import Any
from uuid import uuid4

import httpx
import pytest

pytestmark = pytest.mark.system

TERMINAL = ("completed", "incomplete", "failed", "cancelled")


@pytest.fixture
def question(library: Any) -> dict[str, Any]:
    """Answered shortly: what is tested is not how well the small model writes."""
    message = "How high is the lighthouse of Genoa?"
    return {"message": message, "vector_store_ids": [library.store], "max_output_tokens": 32}


def test_an_answer_has_sources_which_point_into_the_documents(
    http: httpx.Client, question: dict[str, Any], library: dict[str, str]
) -> None:
    answer = http.post("/api/v1/chat", json=question, timeout=120).raise_for_status().json()
    assert answer["response"]
    assert answer["run_id"]
    source = answer["sources"][0]
    assert source["document_id"] == library["Lighthouses"]
    span = {"start_char": source["start_char"], "end_char": source["end_char"]}
    text = http.get(f"/api/v1/documents/{source['document_id']}/text", params=span).raise_for_status().json()
    assert text["text"] == source["content"]


def test_a_stream_is_whole_and_says_so(http: httpx.Client, question: dict[str, Any]) -> None:
    with http.stream("POST", "/api/v1/chat/stream", json=question, timeout=120) as response:
        assert response.headers["content-type"] == "text/event-stream"
        assert "content-encoding" not in response.headers
        lines = list(response.iter_lines())
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    events = [each for each in events if "heartbeat" not in each]
    kinds = [kind(each) for each in events]
    assert [int(each["seq"]) for each in events] == list(range(1, len(events) + 1))
    assert kinds[:3] == ["run_started", "sources", "text_start"]
    assert [each for each in kinds if each in TERMINAL] == [kinds[-1]]
    assert [line for line in lines if line.startswith("id: ")] == [f"id: {each['seq']}" for each in events]
    assert len({each["run_id"] for each in events}) == 1
    text = "".join(each["text_delta"]["text"] for each in events if kind(each) == "text_delta")
    last = events[-1]["completed"] if kinds[-1] == "completed" else events[-1]["incomplete"]["partial"]
    assert text == last["response"]


def kind(event: dict[str, Any]) -> str:
    envelope = {"run_id", "seq", "time", "path", "attempt"}
    (payload,) = set(event) - envelope
    return payload


def test_what_was_said_is_kept_and_can_be_rated(http: httpx.Client, question: dict[str, Any]) -> None:
    first = http.post("/api/v1/chat", json=question, timeout=120).raise_for_status().json()
    more = {"message": "And when was it built?", "conversation_id": first["conversation_id"]}
    second = http.post("/api/v1/chat", json={**question, **more}, timeout=120).raise_for_status().json()
    assert second["conversation_id"] == first["conversation_id"]
    path = f"/api/v1/conversations/{first['conversation_id']}/messages"
    messages = http.get(path).raise_for_status().json()["messages"]
    assert [each["role"] for each in messages] == ["ROLE_USER", "ROLE_AGENT"] * 2
    assert [messages[1]["content"], messages[3]["content"]] == [first["response"], second["response"]]
    rated = http.post(f"/api/v1/messages/{messages[1]['id']}/feedback", json={"rating": "RATING_GOOD"})
    assert rated.raise_for_status().json()["feedback"]["rating"] == "RATING_GOOD"


def test_what_the_documents_do_not_hold_is_not_made_up(http: httpx.Client) -> None:
    empty = http.post("/api/v1/vector_stores", json={}).raise_for_status().json()["id"]
    body = {"message": "Who won the race?", "vector_store_ids": [empty]}
    answer = http.post("/api/v1/chat", json=body, timeout=120).raise_for_status().json()
    assert (answer["grounded"], answer["sources"], answer["model"]) == (False, [], "")


def test_a_stream_that_cannot_begin_is_a_refusal(http: httpx.Client) -> None:
    response = http.post("/api/v1/chat/stream", json={"message": "hi", "agent_id": "nobody"})
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/json"
    assert response.json()["details"][0]["reason"] == "AGENT_NOT_FOUND"


def test_a_message_can_be_answered_in_the_background(http: httpx.Client, question: dict[str, Any]) -> None:
    headers = {"idempotency-key": f"system-{uuid4()}"}
    made = http.post("/api/v1/chat/async", json=question, headers=headers).raise_for_status().json()
    again = http.post("/api/v1/chat/async", json=question, headers=headers).raise_for_status().json()
    assert again == made
    other = http.post("/api/v1/chat/async", json={**question, "message": "Another?"}, headers=headers)
    assert (other.status_code, other.json()["details"][0]["reason"]) == (409, "IDEMPOTENCY_CONFLICT")
    path = f"/api/v1/chat/jobs/{made['job_id']}"
    with http.stream("GET", f"{path}/events", timeout=120) as response:
        lines = [line for line in response.iter_lines() if line.startswith("data: ")]
    events = [each for line in lines if "heartbeat" not in (each := json.loads(line.removeprefix("data: ")))]
    assert [int(each["seq"]) for each in events] == list(range(1, len(events) + 1))
    last = events[-1].get("completed") or events[-1]["incomplete"]["partial"]
    assert [kind(each) for each in events if kind(each) in TERMINAL] == [kind(events[-1])]
    job = http.get(path).raise_for_status().json()
    assert job["status"] == f"CHAT_JOB_STATUS_{kind(events[-1]).upper()}"
    assert job["result"]["response"] == last["response"]
    assert job["record"]["index_generations"] == {question["vector_store_ids"][0]: "1"}
    assert http.get("/api/v1/chat/jobs/nobodys").json()["details"][0]["reason"] == "CHAT_JOB_NOT_FOUND"
