"""What searches and chats show of documents that are replaced, deleted or indexed by another generation."""

import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

pytestmark = pytest.mark.system

Settled = Callable[[str], dict[str, Any]]
SECONDS = 60


@pytest.fixture
def store(http: httpx.Client) -> str:
    """A vector store of its own."""
    made = http.post("/api/v1/vector_stores", json={"id": f"versions-{uuid4().hex[:8]}"}).raise_for_status().json()
    return str(made["id"])


def upload(http: httpx.Client, store: str, content: str, **given: Any) -> dict[str, Any]:
    body = {"content": content, "vector_store_id": store, **given}
    found: dict[str, Any] = http.post("/api/v1/documents", json=body).raise_for_status().json()
    return found


def found(http: httpx.Client, store: str, query: str) -> list[dict[str, Any]]:
    body = {"query": query, "vector_store_id": store}
    results: list[dict[str, Any]] = (
        http.post("/api/v1/documents/search", json=body).raise_for_status().json()["results"]
    )
    return results


def eventually(ask: Callable[[], dict[str, Any]], holds: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    until = time.monotonic() + SECONDS
    while not holds(answer := ask()):
        assert time.monotonic() < until, answer
        time.sleep(0.2)
    return answer


def test_new_content_is_seen_all_at_once_and_only_what_changed_is_embedded(
    http: httpx.Client, store: str, settled: Settled
) -> None:
    small = {"chunking_strategy": {"type": "CHUNKING_STRATEGY_TYPE_SENTENCES", "max_tokens": 16}}
    kept = "The harbour of Porto Vecchio was built by monks long ago."
    first = upload(http, store, f"{kept} Its lamp burned olive oil in every winter storm.", **small)
    assert (first["upload_outcome"], settled(first["id"])["version"]) == ("UPLOAD_OUTCOME_CREATED", "1")
    changed = f"{kept} Its lamp runs on electric power from the sea."
    second = upload(http, store, changed, document_id=first["id"])
    assert (second["id"], second["upload_outcome"]) == (first["id"], "UPLOAD_OUTCOME_REPLACED")
    now = eventually(
        lambda: http.get(f"/api/v1/documents/{first['id']}").json(),
        lambda each: (each["version"], each["state"]) == ("2", "DOCUMENT_STATE_READY"),
    )
    assert now["changes"]["kept"] > 0
    assert now["changes"]["embedded"] > 0
    assert {each["document_version"] for each in found(http, store, "lamp of the harbour")} == {"2"}
    again = upload(http, store, changed, document_id=first["id"])
    assert again["upload_outcome"] == "UPLOAD_OUTCOME_UNCHANGED"


def test_a_deleted_document_is_gone_at_once_and_its_receipt_counts_every_store(
    http: httpx.Client, store: str, settled: Settled
) -> None:
    document = upload(http, store, "The lighthouse of Capo Ferro is 42 metres high.", title="Capo Ferro")
    settled(document["id"])
    question = {"message": "How high is the lighthouse of Capo Ferro?", "vector_store_ids": [store]}
    answer = (
        http.post("/api/v1/chat", json={**question, "max_output_tokens": 24}, timeout=120).raise_for_status().json()
    )
    assert [each["document_id"] for each in answer["sources"]] == [document["id"]]
    deleted = http.delete(f"/api/v1/documents/{document['id']}").raise_for_status().json()
    assert found(http, store, "lighthouse of Capo Ferro") == []
    messages = http.get(f"/api/v1/conversations/{answer['conversation_id']}/messages").raise_for_status().json()
    (source,) = messages["messages"][-1]["sources"]
    assert (source["deleted"], source.get("content", "")) == (True, "")
    receipt = eventually(
        lambda: http.get(f"/api/v1/deletion_receipts/{deleted['receipt_id']}").raise_for_status().json(),
        lambda each: each.get("finish_time"),
    )
    counts = {each["store"]: int(each["removed_count"]) for each in receipt["purges"]}
    assert counts == {
        "CONTENT_STORE_SEARCH_INDEX": 1,
        "CONTENT_STORE_OBJECTS": 1,
        "CONTENT_STORE_DATABASE": 1,
        "CONTENT_STORE_CONVERSATIONS": 1,
    }
    assert http.delete(f"/api/v1/documents/{document['id']}").json() == deleted


def test_a_generation_is_built_compared_activated_and_switched_back(
    http: httpx.Client, store: str, settled: Settled
) -> None:
    sentence = "The ferry of line {} crosses the strait of Bonifacio every morning at dawn."
    document = upload(http, store, " ".join(sentence.format(number) for number in range(12)), title="Ferries")
    settled(document["id"])
    path = f"/api/v1/vector_stores/{store}/generations"
    strategy = {"type": "CHUNKING_STRATEGY_TYPE_SENTENCES", "max_tokens": 32}
    made = http.post(path, json={"chunking_strategy": strategy}).raise_for_status().json()
    assert made["generation"] == "2"
    eventually(
        lambda: http.get(f"{path}/2").raise_for_status().json(),
        lambda each: each["state"] == "INDEX_GENERATION_STATE_COMPLETE",
    )
    body = {"queries": ["ferry across the strait"], "top_k": 3}
    compared = http.post(f"{path}/2/compare", json=body).raise_for_status().json()
    assert compared["mean_overlap"] == 1
    before = found(http, store, "ferry across the strait")
    http.post(f"{path}/2/activate", json={}).raise_for_status()
    after = found(http, store, "ferry across the strait")
    assert {each["chunk_id"] for each in before}.isdisjoint(each["chunk_id"] for each in after)
    assert len(after[0]["content"]) < len(before[0]["content"])
    http.post(f"{path}/1/activate", json={}).raise_for_status()
    assert found(http, store, "ferry across the strait") == before
    refused = http.delete(f"{path}/1")
    assert (refused.status_code, refused.json()["details"][0]["reason"]) == (400, "GENERATION_STATE_UNSUITABLE")
    http.delete(f"{path}/2").raise_for_status()
    assert http.get(f"{path}/2").status_code == 404


def test_jobs_are_listed_and_what_is_not_dead_is_not_replayed(http: httpx.Client, store: str, settled: Settled) -> None:
    document = upload(http, store, "Tides turn twice a day.")
    settled(document["id"])
    jobs = http.get("/api/v1/jobs", params={"subject_id": document["id"]}).raise_for_status().json()["jobs"]
    assert [(each["kind"], each["state"]) for each in jobs] == [("index", "JOB_STATE_SUCCEEDED")]
    refused = http.post("/api/v1/dead_letters/replay", json={"job_ids": [jobs[0]["id"]]})
    assert refused.json()["details"][0]["reason"] == "JOB_NOT_DEAD"
    missing = http.post("/api/v1/dead_letters/replay", json={"job_ids": ["nobodys"]})
    assert (missing.status_code, missing.json()["details"][0]["reason"]) == (404, "JOB_NOT_FOUND")
