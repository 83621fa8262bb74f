"""Writes the document: `python -m loremesh_edge.openapi DESCRIPTOR_SET FILE`."""

import json
import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from loremesh_edge.openapi.index import Index
from loremesh_edge.openapi.paths import Paths
from loremesh_edge.openapi.rules import Schema
from loremesh_edge.openapi.schemas import Schemas

_STATUS: Schema = {
    "type": "object",
    "description": "Why a request was refused: google.rpc.Status.",
    "required": ["code", "message"],
    "properties": {
        "code": {"type": "integer", "description": "The gRPC status code.", "minimum": 1, "maximum": 16},
        "message": {"type": "string", "description": "For people."},
        "details": {
            "type": "array",
            "description": "google.rpc.ErrorInfo first: its `reason` is what programs go by. Then BadRequest with the "
            "offending fields, RetryInfo and others, where they fit.",
            "items": {
                "type": "object",
                "required": ["@type"],
                "properties": {
                    "@type": {"type": "string"},
                    "reason": {"type": "string"},
                    "domain": {"type": "string"},
                    "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
                },
            },
        },
    },
}
_HEALTH: Schema = {
    "summary": "Says that the front door is open",
    "description": "Answers without asking anything behind the door.",
    "operationId": "Health",
    "responses": {
        "200": {
            "description": "It is open.",
            "content": {"application/json": {"schema": {"type": "object", "properties": {"status": {"const": "ok"}}}}},
        }
    },
}


def document(files: FileDescriptorSet) -> Schema:
    """The OpenAPI 3.1 document of every HTTP rule in the descriptor set."""
    index = Index(files)
    schemas = Schemas(index)
    paths: dict[str, dict[str, Schema]] = {"/health": {"get": _HEALTH}}
    services = [service for service in index.services if service.package.startswith("loremesh.")]
    tags: list[Schema] = []
    for service in services:
        operations = list(Paths(index, schemas).of(service))
        for path, verb, operation in operations:
            paths.setdefault(path, {})[verb] = operation
        tags += [{"name": service.proto.name, "description": service.comment}] if operations else []
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/google.rpc.Status"}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Loremesh", "version": "v1", "description": "Documents in, sourced answers out."},
        "servers": [{"url": "/"}],
        "tags": tags,
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(schemas.components.items())) | {"google.rpc.Status": _STATUS},
            "responses": {"Error": {"description": "Refused.", "content": error}},
        },
    }


def main() -> None:
    """Read the one file and write the other."""
    files = FileDescriptorSet.FromString(Path(sys.argv[1]).read_bytes())
    Path(sys.argv[2]).write_text(json.dumps(document(files), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
