"""JSON Schemas of strangers: what is refused, what values break, and that neither takes long."""

import re
import time
from typing import Any

import pytest
from loremesh_kit.schemas import depth, problem, problem_of_text, schema_problem

pytestmark = pytest.mark.unit

TREE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#"}}},
    "required": ["name"],
    "additionalProperties": False,
}
EVIL = "^(a+)+$"
EXPLODING = "a" * 5000 + "!"


def an_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def refers(reference: str, **keywords: Any) -> dict[str, Any]:
    return {**an_object(a={"$ref": reference}), **keywords}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = an_object(a=schema)
    return schema


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"name": "a"}
    for _ in range(levels):
        value = {"name": "a", "children": [value]}
    return value


def doubling(steps: int) -> dict[str, Any]:
    defs = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(steps)}
    return {"type": "object", "$ref": "#/$defs/a0", "$defs": {**defs, f"a{steps}": {"minProperties": 0}}}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        TREE,
        nested(11),
        {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"},
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/a", "type": "object"},
        refers("#/$defs/a~1b", **{"$defs": {"a/b": {"type": "string"}}}),
        refers("#/$defs/a%20b", **{"$defs": {"a b": {"type": "string"}}}),
        refers("#/anyOf/1", anyOf=[{}, {}]),
        refers("#/$defs/any", **{"$defs": {"any": True}}),
        an_object(**{name: {"type": "string"} for name in ("$id", "$ref", "$anchor", "$schema", "pattern", "default")}),
        {"type": "object", "enum": [{"$ref": "http://example.com"}]},
        an_object(a={"type": "string", "pattern": "^[a-z]+(-[a-z0-9]+)*$"}),
        an_object(a={"type": "string", "format": "date-time"}),
        doubling(25),
        doubling(40),
    ],
)
def test_usable_schemas_are_taken(schema: Any) -> None:
    assert schema_problem(schema) is None


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ([], "be an object"),
        (True, "be an object"),
        ("{}", "be an object"),
        ({}, "type must be object"),
        ({"type": "array"}, "type must be object"),
        ({"type": ["object", "null"]}, "type must be object"),
        (an_object(a={"type": "text"}), "at properties.a.type, .* broken"),
        (an_object(a={"type": 7}), "broken"),
        ({"type": "object", "properties": []}, "broken"),
        ({"type": "object", "required": "name"}, "broken"),
        ({"type": "object", "minProperties": -1}, "at minProperties"),
        (an_object(a={"items": [{"type": "string"}]}), "broken"),
        ({"type": "object", "default": object()}, "no JSON"),
        ({"type": "object", "minimum": float("nan")}, "not finite"),
        ({"type": "object", "maximum": float("inf")}, "not finite"),
        ({"type": "object", "description": "x" * 40_000}, "bytes, more than 32768"),
        ({"type": "object", "allOf": [{}] * 5000}, "4000 parts"),
        (nested(12), "deeper than 24"),
        (nested(3000), "deeper|no JSON"),
        ({"$schema": "http://example.com/mine", "type": "object"}, "dialect"),
        (refers("http://169.254.169.254/schema"), "point into"),
        (refers("file:///etc/passwd"), "point into"),
        (refers("other.json"), "point into"),
        (refers("#name"), "point into"),
        (refers("#/$defs/nowhere"), "leads nowhere"),
        (refers("#/anyOf/2", anyOf=[{}, {}]), "leads nowhere"),
        (refers("#/anyOf/x", anyOf=[{}, {}]), "leads nowhere"),
        (refers("#/title/0", title="x"), "leads nowhere"),
        (refers("#/anyOf", anyOf=[{}, {}]), "no schema"),
        (refers("#/properties"), "no schema"),
        (refers("#/default", default={"$ref": "http://example.com"}), "no schema"),
        (refers("#/%64efault", default={"pattern": EVIL}, **{"%64efault": {}}), "no schema"),
        (an_object(default={"$ref": "http://example.com"}), "point into"),
        (an_object(const={"pattern": "(a"}), "regular expression"),
        (an_object(x={"$id": "http://example.com/", "$ref": "#/x"}), "root only"),
        (an_object(x={"$schema": "http://json-schema.org/draft-07/schema#", "pattern": EVIL}), "root only"),
        ({"type": "object", "$dynamicRef": "#x"}, "not supported"),
        (an_object(a={"$anchor": "x"}), "not supported"),
        ({"unevaluatedProperties": False, **doubling(25)}, "not supported"),
        ({"type": "object", "$ref": "#"}, "back to itself"),
        ({"type": "object", "allOf": [{"anyOf": [{"$ref": "#"}]}]}, "back to itself"),
        ({"type": "object", "dependentSchemas": {"a": {"$ref": "#"}}}, "back to itself"),
        (refers("#/$defs/a", **{"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"not": {"$ref": "#/$defs/a"}}}}), "itself"),
        (an_object(a={"pattern": "(a"}), "regular expression"),
        (an_object(a={"pattern": r"(a)\1"}), "regular expression"),
        (an_object(a={"pattern": "(?=a)b"}), "regular expression"),
        (an_object(a={"pattern": "((a{100}){100}){100}"}), "regular expression"),
        (an_object(a={"pattern": "x" * 1001}), "characters"),
        ({"type": "object", "patternProperties": {"(?<=a)b": {}}}, "regular expression"),
    ],
)
def test_unusable_schemas_are_refused_with_a_reason(schema: Any, why: str) -> None:
    begin = time.process_time()
    found = schema_problem(schema)
    assert found is not None
    assert re.search(why, found), found
    assert time.process_time() - begin < 2


@pytest.mark.parametrize(
    ("schema", "value", "told"),
    [
        (TREE, {"name": "a", "children": [{"name": "b", "children": []}]}, None),
        (TREE, {"name": "a", "children": [{}]}, "children.0: 'name' is missing."),
        (TREE, deep(31), None),
        (TREE, {"name": 1}, "name: must be of type string."),
        (TREE, {"name": "a", "nmae": 1}, "'nmae' is not known; there is 'name', 'children'."),
        (TREE, [], "must be of type object."),
        ({"type": ["integer", "null"]}, "1", "must be of type integer or null."),
        ({"minimum": 1}, 0, "must be at least 1."),
        ({"maximum": 1}, 2, "must be at most 1."),
        ({"enum": ["a", "b"]}, "c", 'must be one of ["a", "b"].'),
        ({"const": 1}, 2, "must be 1."),
        ({"maxLength": 2}, "abc", "must have at most 2 characters."),
        ({"minItems": 2}, [], "must have at least 2 items."),
        ({"pattern": "^a+$"}, "b", 'does not fulfil pattern "^a+$".'),
        ({"pattern": "^a+$"}, "aaa", None),
        ({"pattern": "^a+$"}, 7, None),
        ({"pattern": r"^\u0061\\u0061$"}, r"a\u0061", None),
        ({"patternProperties": {"^n_": {"type": "integer"}}}, {"n_a": "x"}, "n_a: must be of type integer."),
        ({"patternProperties": {"^n_": {}}, "additionalProperties": False}, {"n_a": 1}, None),
        ({"patternProperties": {"^n_": {}}, "additionalProperties": False}, {"x": 1}, "'x' is not known."),
        ({"additionalProperties": {"type": "integer"}}, {"x": "y"}, "x: must be of type integer."),
        ({"multipleOf": 5}, 7, "does not fulfil multipleOf 5."),
        (
            {"$defs": {"a": {"minimum": 3}}, "$id": "https://example.com/a", "$ref": "#/$defs/a"},
            1,
            "must be at least 3.",
        ),
        ({"enum": ["x" * 1000]}, "y", "..."),
    ],
)
def test_what_is_wrong_with_a_value_is_said_in_words_for_a_model(schema: Any, value: Any, told: str | None) -> None:
    found = problem(schema, value)
    assert found == told or (told == "..." and found and told in found and len(found) < 420)


def test_a_recursive_schema_is_followed_into_the_value() -> None:
    tree = {"type": "object", "properties": {"left": {"$ref": "#"}}, "additionalProperties": False}
    assert problem(tree, {"left": {"left": {}}}) is None
    assert problem(tree, {"left": {"left": {"x": 1}}}) == "left.left: 'x' is not known; there is 'left'."


def test_a_text_that_is_no_json_is_no_value() -> None:
    assert problem_of_text({"type": "object"}, "{") == problem_of_text({}, "[" * 100_000) == "It is not JSON."
    assert problem_of_text({"type": "object"}, "7") == "must be of type object."
    assert not problem_of_text({"type": "object"}, "{}")


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (doubling(25), {}),
        (doubling(40), {}),
        ({"anyOf": [{"items": {"$ref": "#"}, "type": "array"}] * 3 + [{"const": 7}]}, [[[[[[[[[[[[[[8]]]]]]]]]]]]]]),
        (TREE, deep(400)),
        (TREE, deep(60)),
        ({"items": {"pattern": "a.{0,999}b.{0,900}Q"}}, ["abxy" * 1000] * 100),
        ({"items": {"pattern": "a.{0,999}b.{0,900}Q"}}, ["abxy" * 50_000]),
        ({"uniqueItems": True, "items": {"type": "integer"}}, list(range(60_000))),
        ({"uniqueItems": True}, [{"n": n} for n in range(5000)]),
    ],
)
def test_a_value_that_takes_too_long_is_refused(schema: Any, value: Any) -> None:
    begin = time.process_time()
    assert "to be checked" in str(problem(schema, value))
    assert time.process_time() - begin < 3


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"items": {"pattern": EVIL}}, [EXPLODING] * 20),
        # With a dialect named, the library's own validators would be asked from the first reference on.
        (
            {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                **an_object(x={"$ref": "#"}),
                "patternProperties": {EVIL: {}},
                "additionalProperties": False,
            },
            {"x": {EXPLODING: 1}},
        ),
    ],
)
def test_patterns_that_explode_elsewhere_do_not(schema: Any, value: Any) -> None:
    begin = time.process_time()
    assert problem(schema, value)
    assert time.process_time() - begin < 3


def test_a_level_is_an_object_or_a_list_and_what_it_holds() -> None:
    assert [depth(each) for each in (7, {}, [[]], {"a": [{"b": 1}]})] == [1, 1, 2, 4]
