"""What a server may say of its tools."""

from typing import Any

import pytest
from loremesh_agent.domain.tool_servers import (
    Described,
    Kind,
    ToolServer,
    check_schema,
    described,
    differences,
    is_described,
    server_of,
    specs,
)
from loremesh_agent.domain.tools import Effect
from loremesh_agent.errors import SchemaInvalid

pytestmark = pytest.mark.unit

TREE = {"type": "object", "properties": {"left": {"$ref": "#"}}}
LAUGHS = {
    "type": "object",
    "allOf": [{"$ref": "#/$defs/0"}],
    "$defs": {
        **{str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(40)},
        "40": {"type": "object"},
    },
}


def a_tool(schema: Any = None, **fields: Any) -> Described:
    schema = {"type": "object"} if schema is None else schema
    return Described(**{"name": "echo", "description": "", "input_schema": schema, "effect": Effect.READ_ONLY} | fields)


def shown(schema: Any) -> Any:
    server = ToolServer(id="web", kind=Kind.GRPC, tools=(a_tool(schema),), healthy=True)
    return specs(server)[0].input_schema


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "array"},
        {"type": ["object", "null"]},
        {"type": "object", "properties": 7},
        {"type": "object", "minProperties": float("nan")},
        {"type": "object", "$ref": "#/nowhere"},
        {"type": "object", "$ref": "other.json"},
        {"type": "object", "$ref": "http://127.0.0.1/schema"},
        {"type": "object", "$ref": "#anchor"},
        {"type": "object", "description": "x" * 33_000},
        {"type": "object", "properties": {str(n): {"$ref": f"#/properties/{(n + 1) % 9}"} for n in range(9)}},
        TREE,
        LAUGHS,
    ],
)
def test_no_usable_schema(schema: Any) -> None:
    with pytest.raises(SchemaInvalid):
        check_schema(schema, field="input_schema")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "string"}}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "definitions": {}},
        {"type": "object", "properties": {"$ref": {"type": "string"}, "pattern": {"type": "string"}}},
    ],
)
def test_a_usable_schema(schema: Any) -> None:
    check_schema(schema, field="input_schema")


def test_regular_expressions_of_strangers_are_not_for_us_to_evaluate() -> None:
    evil = {"type": "string", "pattern": "(a+)+$"}
    schema = {
        "type": "object",
        "properties": {"pattern": evil, "list": {"items": evil}},
        "patternProperties": {"(a+)+$": {}},
        "additionalProperties": False,
        "anyOf": [{"required": ["pattern"]}, {"const": {"pattern": "x"}}],
    }
    assert shown(schema) == {
        "type": "object",
        "properties": {"pattern": {"type": "string"}, "list": {"items": {"type": "string"}}},
        "anyOf": [{"required": ["pattern"]}, {"const": {"pattern": "x"}}],
    }


def test_what_cannot_be_stored_is_dropped_and_makes_no_difference() -> None:
    said = a_tool({"type": "object", "title": "a\x00b", "maxProperties": 3.0}, description="x\ud800" + "y" * 3000)
    (kept,) = described([said], server_id="web")
    assert (kept.input_schema, len(kept.description)) == (
        {"type": "object", "title": "ab", "maxProperties": 3},
        2000,
    )
    assert is_described(kept, [said])
    assert not is_described(kept, [])
    assert not is_described(kept, [said, said])
    assert not is_described(kept, [a_tool(effect=Effect.IDEMPOTENT)])


def test_differences_are_of_what_was_kept() -> None:
    one, two = a_tool(name="one"), a_tool(name="two")
    assert differences([one, two], [two, one, a_tool(name="new")]) == frozenset()
    assert differences([one, two], [one]) == {"two"}
    assert differences([one], [a_tool(name="one", effect=Effect.SIDE_EFFECTING)]) == {"one"}


def test_the_server_is_what_stands_before_the_first_two_underscores() -> None:
    assert server_of("web__echo") == server_of("web___x") == server_of("web__a__b") == "web"
    assert server_of("search") == server_of("document_reader") == ""
