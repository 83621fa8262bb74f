"""Bad requests over REST: each has its status, its reason and the field at fault."""

import json
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.system

ANYONE = "0198c0de-0000-7000-8000-000000000000"
SEARCH, CHAT, DOCUMENTS, STORES = (
    "/api/v1/documents/search",
    "/api/v1/chat",
    "/api/v1/documents",
    "/api/v1/vector_stores",
)
DEEP: dict[str, Any] = {"exists": {"key": "a"}}
for _ in range(9):
    DEEP = {"not": DEEP}
JSON = {"content-type": "application/json"}

# What is sent; status, reason and field of the answer.
REFUSALS: list[tuple[str, str, Any, int, str, str]] = [
    # the door's own
    ("GET", "/api/v1/nothing", None, 404, "ROUTE_NOT_FOUND", ""),
    ("PUT", CHAT, {}, 405, "METHOD_NOT_ALLOWED", ""),
    ("GET", f"{DOCUMENTS}?nope=1", None, 400, "PARAMETER_INVALID", ""),
    ("GET", f"{DOCUMENTS}?page_size=many", None, 400, "PARAMETER_INVALID", ""),
    ("GET", f"{DOCUMENTS}?state=GONE", None, 400, "PARAMETER_INVALID", ""),
    ("GET", f"{DOCUMENTS}/a%2Fb", None, 400, "REQUEST_INVALID", ""),
    ("POST", SEARCH, b'{"query":', 400, "BODY_INVALID", ""),
    ("POST", SEARCH, b'{"query":"\\ud800"}', 400, "BODY_INVALID", ""),
    ("POST", SEARCH, b'{"query":"\xff"}', 400, "BODY_INVALID", ""),
    ("POST", SEARCH, [], 400, "BODY_INVALID", ""),
    ("POST", SEARCH, {"query": 5}, 400, "BODY_INVALID", ""),
    ("POST", SEARCH, {"query": "a", "top_k": "many"}, 400, "BODY_INVALID", ""),
    ("POST", SEARCH, {"query": "a", "top_k": 2**40}, 400, "BODY_INVALID", ""),
    ("POST", SEARCH, {"query": "a", "mode": "SEARCH_MODE_BEST"}, 400, "BODY_INVALID", ""),
    # search
    ("POST", SEARCH, {"query": ""}, 400, "QUERY_EMPTY", "query"),
    ("POST", SEARCH, {"query": " \n"}, 400, "QUERY_EMPTY", "query"),
    ("POST", SEARCH, {"query": "a" * 8001}, 400, "INVALID_FIELD", "query"),
    ("POST", SEARCH, {"query": "a", "top_k": 0}, 400, "TOP_K_OUT_OF_RANGE", "top_k"),
    ("POST", SEARCH, {"query": "a", "top_k": 1_000_000}, 400, "TOP_K_OUT_OF_RANGE", "top_k"),
    ("GET", f"{SEARCH}?query=a&top_k=0", None, 400, "TOP_K_OUT_OF_RANGE", "top_k"),
    ("POST", SEARCH, {"query": "a", "score_threshold": "NaN"}, 400, "SCORE_THRESHOLD_INVALID", "score_threshold"),
    ("POST", SEARCH, {"query": "a", "vector_store_id": "nowhere"}, 404, "VECTOR_STORE_NOT_FOUND", ""),
    ("POST", SEARCH, {"query": "a", "filter": {}}, 400, "INVALID_FIELD", "filter.condition"),
    ("POST", SEARCH, {"query": "a", "filter": DEEP}, 400, "FILTER_INVALID", "filter"),
    (
        "POST",
        SEARCH,
        {"query": "a", "filter": {"eq": {"key": "k", "value": [1]}}},
        400,
        "FILTER_INVALID",
        "filter.eq.value",
    ),
    ("POST", f"{SEARCH}/explain", {}, 400, "INVALID_FIELD", "search"),
    ("POST", f"{SEARCH}/explain", {"search": {"query": ""}}, 400, "QUERY_EMPTY", "search.query"),
    # chat
    ("POST", CHAT, {}, 400, "MESSAGE_EMPTY", "message"),
    ("POST", CHAT, {"message": "a", "agent_id": "nobody"}, 404, "AGENT_NOT_FOUND", ""),
    ("POST", CHAT, {"message": "a", "conversation_id": ANYONE}, 404, "CONVERSATION_NOT_FOUND", ""),
    ("POST", CHAT, {"message": "a", "vector_store_ids": ["nowhere"]}, 404, "VECTOR_STORE_NOT_FOUND", ""),
    ("POST", CHAT, {"message": "a", "top_k": 51}, 400, "TOP_K_OUT_OF_RANGE", "top_k"),
    ("POST", CHAT, {"message": "a", "temperature": 3}, 400, "INVALID_FIELD", "temperature"),
    ("POST", CHAT, {"message": "a", "vector_store_ids": ["a", "a"]}, 400, "INVALID_FIELD", "vector_store_ids"),
    ("GET", f"/api/v1/conversations/{ANYONE}", None, 404, "CONVERSATION_NOT_FOUND", ""),
    ("GET", f"/api/v1/conversations/{ANYONE}/messages", None, 404, "CONVERSATION_NOT_FOUND", ""),
    ("POST", "/api/v1/conversations", {"agent_id": "nobody"}, 404, "AGENT_NOT_FOUND", ""),
    ("POST", f"/api/v1/messages/{ANYONE}/feedback", {"rating": "RATING_BAD"}, 404, "MESSAGE_NOT_FOUND", ""),
    # documents
    ("GET", f"{DOCUMENTS}/{ANYONE}", None, 404, "DOCUMENT_NOT_FOUND", ""),
    ("GET", f"{DOCUMENTS}/{ANYONE}/content", None, 404, "DOCUMENT_NOT_FOUND", ""),
    ("GET", f"{DOCUMENTS}/{ANYONE}/text", None, 404, "DOCUMENT_NOT_FOUND", ""),
    ("GET", f"{DOCUMENTS}/{ANYONE}/chunks", None, 404, "DOCUMENT_NOT_FOUND", ""),
    ("GET", f"{DOCUMENTS}/{ANYONE}/events", None, 404, "DOCUMENT_NOT_FOUND", ""),
    ("POST", f"{DOCUMENTS}/{ANYONE}/index", {}, 404, "DOCUMENT_NOT_FOUND", ""),
    ("PATCH", f"{DOCUMENTS}/{ANYONE}", {"title": "t"}, 404, "DOCUMENT_NOT_FOUND", ""),
    ("PATCH", f"{DOCUMENTS}/{ANYONE}", {"title": "t" * 501}, 400, "INVALID_FIELD", "document.title"),
    ("DELETE", f"{DOCUMENTS}/{ANYONE}", None, 404, "DOCUMENT_NOT_FOUND", ""),
    ("GET", f"{DOCUMENTS}?page_size=-1", None, 400, "INVALID_FIELD", "page_size"),
    ("GET", f"{DOCUMENTS}?page_size=1001", None, 400, "INVALID_FIELD", "page_size"),
    ("GET", f"{DOCUMENTS}?page_token=nonsense", None, 400, "PAGE_TOKEN_INVALID", "page_token"),
    ("GET", f"{DOCUMENTS}?sha256=xyz", None, 400, "INVALID_FIELD", "sha256"),
    ("GET", f"{DOCUMENTS}?vector_store_id=nowhere", None, 404, "VECTOR_STORE_NOT_FOUND", ""),
    # uploads
    ("POST", DOCUMENTS, {"content": ""}, 400, "DOCUMENT_EMPTY", ""),
    ("POST", DOCUMENTS, b"", 400, "DOCUMENT_EMPTY", ""),
    ("POST", DOCUMENTS, {"content": 5}, 400, "INVALID_FIELD", "content"),
    ("POST", DOCUMENTS, {"content": "a", "vector_store_id": "nowhere"}, 404, "VECTOR_STORE_NOT_FOUND", ""),
    ("POST", DOCUMENTS, {"content": "a", "title": "t" * 501}, 400, "INVALID_FIELD", "title"),
    ("POST", DOCUMENTS, {"content": "a", "attributes": {"k": {"deep": 1}}}, 400, "ATTRIBUTES_INVALID", "attributes"),
    # vector stores
    ("GET", f"{STORES}/nowhere", None, 404, "VECTOR_STORE_NOT_FOUND", ""),
    ("POST", STORES, {"id": "default"}, 409, "VECTOR_STORE_ALREADY_EXISTS", ""),
    ("POST", STORES, {"id": "No Slug"}, 400, "INVALID_FIELD", "vector_store.id"),
    ("POST", STORES, {"embedding_model": "none-such"}, 400, "EMBEDDING_MODEL_UNKNOWN", "embedding_model"),
    ("DELETE", f"{STORES}/default", None, 400, "VECTOR_STORE_IN_USE", ""),
    (
        "POST",
        STORES,
        {"chunking_strategy": {"max_tokens": 20, "overlap_tokens": 15}},
        400,
        "CHUNKING_STRATEGY_INVALID",
        "vector_store.chunking_strategy",
    ),
    # embedding
    ("POST", "/api/v1/embeddings", {}, 400, "INVALID_FIELD", "texts"),
    ("POST", "/api/v1/embeddings", {"texts": ["a", " "]}, 400, "TEXT_EMPTY", "texts[1]"),
    ("POST", "/api/v1/embeddings", {"texts": ["a"], "model": "none-such"}, 404, "MODEL_NOT_FOUND", ""),
    ("POST", "/api/v1/embeddings", {"texts": ["a"], "model": "bm25"}, 400, "MODEL_TASK_UNSUPPORTED", ""),
    ("POST", "/api/v1/rerank", {"query": "a", "documents": ["b"], "top_k": 0}, 400, "TOP_K_OUT_OF_RANGE", "top_k"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "reason", "field"), REFUSALS)
def test_a_bad_request_is_refused_with_status_reason_and_field(
    http: httpx.Client, method: str, path: str, body: Any, status: int, reason: str, field: str
) -> None:
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    headers = JSON if content else {}
    response = http.request(method, path, content=content, headers=headers)
    answer = response.json()
    assert (response.status_code, reason_of(answer)) == (status, reason), answer
    assert answer["message"]
    assert not field or any(each == field or each.startswith(f"{field}.") for each in fields_of(answer)), answer


def reason_of(answer: dict[str, Any]) -> str:
    assert answer["details"][0]["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert answer["details"][0]["domain"].endswith(".loremesh.dev")
    return str(answer["details"][0]["reason"])


def fields_of(answer: dict[str, Any]) -> list[str]:
    violations = (detail.get("field_violations", []) for detail in answer["details"])
    return [str(each["field"]) for some in violations for each in some]


def test_a_page_token_is_good_for_its_own_query_only(http: httpx.Client, library: Any) -> None:
    query: dict[str, Any] = {"vector_store_id": library.store, "page_size": 1}
    token = http.get(DOCUMENTS, params=query).raise_for_status().json()["next_page_token"]
    response = http.get(DOCUMENTS, params={"page_size": 1, "page_token": token})
    assert (response.status_code, reason_of(response.json())) == (400, "PAGE_TOKEN_INVALID")
    assert fields_of(response.json()) == ["page_token"]


def test_a_span_outside_the_text_is_refused(http: httpx.Client, library: dict[str, str]) -> None:
    response = http.get(f"{DOCUMENTS}/{library['Bees']}/text", params={"start_char": 100_000})
    assert (response.status_code, reason_of(response.json())) == (400, "SPAN_OUT_OF_RANGE")
    assert int(response.json()["details"][0]["metadata"]["text_chars"]) < 1000


def test_a_form_without_a_file_is_refused(http: httpx.Client) -> None:
    response = http.post(DOCUMENTS, files={"title": (None, "t")})
    assert (response.status_code, reason_of(response.json())) == (400, "UPLOAD_MALFORMED")
    assert fields_of(response.json()) == ["file"]


def test_a_nul_in_a_question_does_no_harm(http: httpx.Client) -> None:
    http.post(SEARCH, json={"query": "a\0b"}).raise_for_status()
