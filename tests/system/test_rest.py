"""The main job and all around it, over REST."""

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.system

Settled = Callable[[str], dict[str, Any]]


def test_the_mesh_is_healthy_and_ready_and_names_its_parts(http: httpx.Client) -> None:
    assert http.get("/health").json() == {"status": "ok"}
    answer = http.get("/ready").raise_for_status().json()
    assert answer["status"] == "ready"
    parts = {each["name"]: {part["name"] for part in each["dependencies"]} for each in answer["components"]}
    assert parts.keys() == {"ingestion", "embedding", "retrieval", "agent", "crew"}
    assert "postgres" in parts["ingestion"] & parts["agent"]


def test_the_openapi_document_is_served_under_both_paths(http: httpx.Client) -> None:
    one, other = http.get("/openapi.json"), http.get("/api/v1/openapi.json")
    assert one.headers["content-type"] == "application/json"
    assert one.json() == other.json()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_search_finds_the_passage_and_where_it_stands(http: httpx.Client, library: Any, method: str) -> None:
    query: dict[str, Any] = {
        "query": "How high is the Lanterna in Genoa?",
        "vector_store_id": library.store,
        "top_k": 2,
    }
    sent = {"params": query} if method == "GET" else {"json": query}
    first, *rest = http.request(method, "/api/v1/documents/search", **sent).raise_for_status().json()["results"]
    assert len(rest) <= 1
    assert (first["document_id"], first["title"]) == (library["Lighthouses"], "Lighthouses")
    assert "77 metres" in first["content"]
    span = {"start_char": first["start_char"], "end_char": first["end_char"]}
    text = http.get(f"/api/v1/documents/{first['document_id']}/text", params=span).raise_for_status().json()
    assert text["text"] == first["content"]


def test_offsets_count_code_points_whatever_the_script(http: httpx.Client, library: Any) -> None:
    path = f"/api/v1/documents/{library['ไทย']}"
    whole = http.get(f"{path}/text").raise_for_status().json()["text"]
    for chunk in http.get(f"{path}/chunks").raise_for_status().json()["chunks"]:
        assert whole[int(chunk["start_char"]) : int(chunk["end_char"])] == chunk["content"]


def test_a_filter_leaves_out_what_does_not_fulfil_it(http: httpx.Client, library: Any) -> None:
    body = {"query": "bees", "vector_store_id": library.store, "filter": {"gte": {"key": "number", "value": 2}}}
    found = http.post("/api/v1/documents/search", json=body).raise_for_status().json()["results"]
    assert {each["document_id"] for each in found} == {library["ไทย"]}
    body["filter"] = {"eq": {"key": "nobody has this", "value": 1}}
    assert http.post("/api/v1/documents/search", json=body).raise_for_status().json()["results"] == []


def test_a_search_can_be_explained(http: httpx.Client, library: Any) -> None:
    search = {"query": "honey bee workers", "vector_store_id": library.store, "top_k": 1}
    answer = http.post("/api/v1/documents/search/explain", json={"search": search}).raise_for_status().json()
    assert [each["document_id"] for each in answer["results"]] == [library["Bees"]]
    assert {"dense", "sparse", "fusion"} <= {stage["name"] for stage in answer["stages"]}
    assert answer["chunks"][0]["outcome"] == "CHUNK_OUTCOME_RETURNED"


def test_documents_are_listed_page_by_page_and_by_filter(http: httpx.Client, library: Any) -> None:
    query: dict[str, Any] = {"vector_store_id": library.store, "page_size": 2}
    one = http.get("/api/v1/documents", params=query).raise_for_status().json()
    two = (
        http.get("/api/v1/documents", params={**query, "page_token": one["next_page_token"]}).raise_for_status().json()
    )
    assert two["next_page_token"] == ""
    assert [each["title"] for each in one["documents"] + two["documents"]] == ["ไทย", "Bees", "Lighthouses"]
    body = {"vector_store_id": library.store, "filter": {"eq": {"key": "number", "value": 1}}}
    (only,) = http.post("/api/v1/documents/list", json=body).raise_for_status().json()["documents"]
    assert only["id"] == library["Bees"]


def found_by(http: httpx.Client, search: dict[str, Any]) -> list[str]:
    results = http.post("/api/v1/documents/search", json=search).raise_for_status().json()["results"]
    return [str(each["document_id"]) for each in results]


def test_changed_attributes_are_seen_by_searches_without_a_new_index(http: httpx.Client, settled: Settled) -> None:
    body = {"content": "Tides follow the moon.", "attributes": {"level": 1}}
    document = settled(http.post("/api/v1/documents", json=body).raise_for_status().json()["id"])
    path = f"/api/v1/documents/{document['id']}"
    changed = http.patch(path, json={"attributes": {"level": 2}, "etag": document["etag"]}).raise_for_status().json()
    assert changed["attributes"] == {"level": 2}
    search = {"query": "tides and the moon", "filter": {"eq": {"key": "level", "value": 2}}}
    end = time.monotonic() + 10
    while document["id"] not in found_by(http, search):
        assert time.monotonic() < end
        time.sleep(0.1)
    stale = http.patch(path, json={"title": "t", "etag": document["etag"]})
    assert (stale.status_code, stale.json()["details"][0]["reason"]) == (409, "ETAG_MISMATCH")


def test_a_document_can_be_indexed_again_in_other_chunks(http: httpx.Client, settled: Settled) -> None:
    body = {"content": "One sentence here. " * 60}
    before = settled(http.post("/api/v1/documents", json=body).raise_for_status().json()["id"])
    path = f"/api/v1/documents/{before['id']}"
    strategy = {"type": "CHUNKING_STRATEGY_TYPE_SENTENCES", "max_tokens": 32}
    assert http.post(f"{path}/index", json={"chunking_strategy": strategy}).raise_for_status().json()["job_id"]
    end = time.monotonic() + 60
    while (after := http.get(path).json())["version"] == before["version"] or "READY" not in after["state"]:
        assert time.monotonic() < end, after
        time.sleep(0.1)
    assert after["chunk_count"] > before["chunk_count"]


def test_a_deleted_document_is_gone_for_every_reader(http: httpx.Client, settled: Settled) -> None:
    body = {"content": "The axolotl regrows its limbs."}
    document = settled(http.post("/api/v1/documents", json=body).raise_for_status().json()["id"])
    path = f"/api/v1/documents/{document['id']}"
    assert http.delete(path).raise_for_status().json()["receipt_id"]
    assert http.get(path).status_code == 404
    assert http.get(f"{path}/content").status_code == 404
    assert document["id"] not in found_by(http, {"query": "axolotl limbs"})


def test_a_document_comes_back_as_it_was_uploaded(http: httpx.Client, settled: Settled) -> None:
    data = "# Moss\n\nMoss has no roots. 🌿\n".encode()
    document = http.post(
        "/api/v1/documents", content=data, params={"filename": "moss.md"}, headers={"content-type": "text/markdown"}
    )
    path = f"/api/v1/documents/{settled(document.raise_for_status().json()['id'])['id']}"
    response = http.get(f"{path}/content").raise_for_status()
    assert response.content == data
    assert response.headers["content-type"].startswith("text/markdown")
    link = http.post(f"{path}/download_url").raise_for_status().json()
    assert httpx.get(link["url"]).raise_for_status().content == data


def test_a_vector_store_is_kept(http: httpx.Client) -> None:
    made = http.post("/api/v1/vector_stores", json={"display_name": "Mine", "attributes": {"a": [1, "b"]}})
    store = made.raise_for_status().json()
    path = f"/api/v1/vector_stores/{store['id']}"
    assert http.get(path).raise_for_status().json() == store
    assert http.patch(path, json={"description": "d"}).raise_for_status().json()["display_name"] == "Mine"
    cleared = http.patch(path, json={}, params={"update_mask": "display_name"}).raise_for_status().json()
    assert (cleared["display_name"], cleared["description"]) == ("", "d")
    listed = http.get("/api/v1/vector_stores", params={"page_size": 1000}).raise_for_status().json()["vector_stores"]
    assert {store["id"], "default"} <= {each["id"] for each in listed}
    http.delete(path).raise_for_status()
    assert http.get(path).status_code == 404


def test_texts_are_embedded_and_ranked(http: httpx.Client) -> None:
    models = http.get("/api/v1/embeddings/models").raise_for_status().json()["models"]
    dense = next(each for each in models if each["task"] == "MODEL_TASK_DENSE" and each["default"])
    body = {"texts": ["bee", "honey"], "sparse_model": "bm25"}
    answer = http.post("/api/v1/embeddings", json=body).raise_for_status().json()
    assert [len(each["dense"]) for each in answer["embeddings"]] == [dense["dimension"]] * 2
    assert answer["embeddings"][0]["sparse"]["indices"]
    ranked = {"query": "how do bees make honey", "documents": ["Ships sail.", "Bees turn nectar into honey."]}
    results = http.post("/api/v1/rerank", json=ranked).raise_for_status().json()["results"]
    assert [each["index"] for each in results] == [1, 0]


def test_a_conversation_is_kept(http: httpx.Client) -> None:
    made = http.post("/api/v1/conversations", json={"title": "t"}).raise_for_status().json()
    path = f"/api/v1/conversations/{made['id']}"
    assert made["agent_id"] == "default"
    assert http.patch(path, json={"title": "u"}).raise_for_status().json()["title"] == "u"
    assert http.get(f"{path}/messages").raise_for_status().json() == {"messages": [], "next_page_token": ""}
    listed = http.get("/api/v1/conversations").raise_for_status().json()["conversations"]
    assert made["id"] in {each["id"] for each in listed}
    http.delete(path).raise_for_status()
    assert http.get(path).status_code == 404
