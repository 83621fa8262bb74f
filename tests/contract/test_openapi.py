import json
import re
from importlib.resources import files
from typing import Any

import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from openapi_spec_validator import validate

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    return json.loads(files("loremesh_edge").joinpath("openapi.json").read_text())


def operations(openapi: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(verb, path): each for path, verbs in openapi["paths"].items() for verb, each in verbs.items()}


def test_the_document_is_valid(openapi: dict[str, Any]) -> None:
    validate(openapi)


def test_every_http_rule_is_an_operation(openapi: dict[str, Any], descriptors: FileDescriptorSet) -> None:
    rules = [
        rule
        for file in descriptors.file
        for service in file.service
        for method in service.method
        if method.options.HasExtension(annotations_pb2.http)
        for first in [method.options.Extensions[annotations_pb2.http]]
        for rule in (first, *first.additional_bindings)
    ]
    paths = {(verb, getattr(rule, verb)) for rule in rules for verb in [str(rule.WhichOneof("pattern"))]}
    written = {(verb, re.sub(r"\{[^}]+\}", lambda m: m[0].replace(".", "_"), path)) for verb, path in paths}
    assert written | {("get", "/health")} == set(operations(openapi))


def test_every_operation_is_described_and_shows_what_a_refusal_looks_like(openapi: dict[str, Any]) -> None:
    for name, operation in operations(openapi).items():
        assert operation["summary"], name
        assert operation["description"], name
        if name != ("get", "/health"):
            assert operation["responses"]["default"] == {"$ref": "#/components/responses/Error"}, name


def test_operation_ids_differ(openapi: dict[str, Any]) -> None:
    ids = [each["operationId"] for each in operations(openapi).values()]
    assert len(ids) == len(set(ids))


def test_an_upload_takes_json_a_form_or_the_bytes(openapi: dict[str, Any]) -> None:
    content = openapi["paths"]["/api/v1/documents"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "multipart/form-data", "application/octet-stream"}
    assert content["multipart/form-data"]["schema"]["required"] == ["file"]
    assert content["application/json"]["schema"] == {
        "$ref": "#/components/schemas/loremesh.ingestion.v1.UploadDocumentBody"
    }


def test_rules_of_the_contract_are_in_the_document(openapi: dict[str, Any]) -> None:
    search = openapi["components"]["schemas"]["loremesh.retrieval.v1.SearchRequest"]
    assert search["required"] == ["query"]
    assert (search["properties"]["top_k"]["minimum"], search["properties"]["top_k"]["maximum"]) == (1, 100)
    assert search["properties"]["query"]["maxLength"] == 8000


def test_what_only_the_server_says_is_read_only(openapi: dict[str, Any]) -> None:
    properties = openapi["components"]["schemas"]["loremesh.ingestion.v1.Document"]["properties"]
    assert properties["sha256"]["readOnly"]
    assert "readOnly" not in properties["title"]
