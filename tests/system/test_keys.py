"""Every mutating call takes an Idempotency-Key: a repeated request is the same request."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from google.api import annotations_pb2
from loremesh.agent.v1 import chat_job_pb2, chat_pb2, conversation_pb2
from loremesh.embedding.v1 import embedding_pb2
from loremesh.ingestion.v1 import deletion_pb2, document_pb2, generation_pb2, job_pb2, vector_store_pb2
from loremesh.retrieval.v1 import retrieval_pb2

pytestmark = pytest.mark.system

CONTRACTS = (
    chat_job_pb2, chat_pb2, conversation_pb2, embedding_pb2, deletion_pb2, document_pb2, generation_pb2, job_pb2,
    vector_store_pb2, retrieval_pb2,
)  # fmt: skip

MESSAGE = {"message": "hello"}
MUTATING: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "vector_stores"): {"display_name": "x"},
    ("PATCH", "vector_stores/default"): {"display_name": "x"},
    ("DELETE", "vector_stores/nobodys"): {},
    ("POST", "vector_stores/default/generations"): {},
    ("POST", "vector_stores/default/generations/1/activate"): {},
    ("DELETE", "vector_stores/default/generations/9"): {},
    ("POST", "vector_stores/default/reconcile"): {},
    ("POST", "documents"): {"content": "x"},
    ("PATCH", "documents/nobodys"): {"title": "x"},
    ("DELETE", "documents/nobodys"): {},
    ("POST", "documents/nobodys/index"): {},
    ("POST", "documents/nobodys/retry"): {},
    ("POST", "dead_letters/replay"): {},
    ("POST", "conversations"): {},
    ("PATCH", "conversations/nobodys"): {"title": "x"},
    ("DELETE", "conversations/nobodys"): {},
    ("POST", "messages/nobodys/feedback"): {"rating": "RATING_GOOD"},
    ("POST", "chat"): MESSAGE,
    ("POST", "chat/stream"): MESSAGE,
    ("POST", "chat/async"): MESSAGE,
}
# They change nothing, or doing them twice is doing them once.
OTHERS = {
    ("POST", "chat/jobs/nobodys/cancel"),
    ("POST", "documents/list"),
    ("POST", "documents/search"),
    ("POST", "documents/search/explain"),
    ("POST", "documents/nobodys/download_url"),
    ("POST", "embeddings"),
    ("POST", "rerank"),
    ("POST", "vector_stores/default/generations/1/compare"),
}


def rules() -> Iterator[tuple[str, str]]:
    """Verb and path template of every rpc that could change something."""
    for contract in CONTRACTS:
        for service in contract.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                rule = method.GetOptions().Extensions[annotations_pb2.http]
                for each in (rule, *rule.additional_bindings):
                    verb = each.WhichOneof("pattern")
                    if verb in ("post", "patch", "delete", "put"):
                        yield verb.upper(), getattr(each, verb)


def test_no_call_that_changes_something_is_left_out() -> None:
    known = [*MUTATING, *OTHERS]
    for verb, template in rules():
        pattern = re.sub(r"\{[^}]+\}", "[^/]+", template)
        assert any(verb == each and re.fullmatch(pattern, f"/api/v1/{path}") for each, path in known), (verb, template)


@pytest.mark.parametrize(("verb", "path"), MUTATING)
def test_a_key_is_read_wherever_something_changes(http: httpx.Client, verb: str, path: str) -> None:
    body = {} if verb == "DELETE" else {"json": MUTATING[verb, path]}
    response = http.request(verb, f"/api/v1/{path}", headers={"idempotency-key": "k" * 201}, **body)
    assert response.status_code == 400
    assert response.json()["details"][0]["reason"] == "IDEMPOTENCY_KEY_INVALID"


def test_a_store_made_twice_under_one_key_is_made_once(http: httpx.Client) -> None:
    headers, body = {"idempotency-key": f"keys-{uuid4()}"}, {"display_name": "Once"}
    made = [http.post("/api/v1/vector_stores", json=body, headers=headers).raise_for_status().json() for _ in range(3)]
    assert made[0] == made[1] == made[2]
    refused = http.post("/api/v1/vector_stores", json={"display_name": "Twice"}, headers=headers)
    assert (refused.status_code, refused.json()["details"][0]["reason"]) == (409, "IDEMPOTENCY_CONFLICT")
