"""JSON Schemas of strangers: what is refused, what values break, and that neither takes long."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loremesh_agent.domain.patterns import Pattern, PatternRefused
from loremesh_agent.domain.schemas import check_schema, problem
from loremesh_agent.errors import SchemaInvalid

pytestmark = pytest.mark.unit

TREE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#"}}},
    "required": ["name"],
    "additionalProperties": False,
}


def nested(depth: int) -> dict:
    schema: dict = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def doubling(steps: int) -> dict:
    defs = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(steps)}
    return {"$ref": "#/$defs/a0", "$defs": {**defs, f"a{steps}": {"type": "integer"}}}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        TREE,
        nested(20),
        {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"},
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/a", "type": "object"},
        {"$defs": {"a/b": {"type": "string"}}, "properties": {"x": {"$ref": "#/$defs/a~1b"}}},
        {"properties": {"$id": {"type": "string"}, "pattern": {"type": "string"}, "$ref": {"type": "string"}}},
        {"enum": [{"$ref": "http://example.com"}]},
        {"type": "string", "pattern": "^[a-z]+(-[a-z0-9]+)*$"},
        {"type": "string", "format": "date-time"},
    ],
)
def test_usable_schemas_are_taken(schema):
    check_schema(schema)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ([], "object"),
        (True, "object"),
        ("{}", "object"),
        ({"type": "text"}, "broken"),
        ({"type": 7}, "broken"),
        ({"properties": []}, "broken"),
        ({"required": "name"}, "broken"),
        ({"minimum": "1"}, "broken"),
        ({"items": [{"type": "string"}]}, "broken"),
        ({"default": object()}, "no JSON"),
        ({"minimum": float("nan")}, "no JSON"),
        ({"description": "x" * 70_000}, "larger"),
        ({"properties": {str(n): {} for n in range(5000)}}, "parts"),
        (nested(40), "deep"),
        (nested(3000), "deep|no JSON"),
        ({"$schema": "http://example.com/mine"}, "dialect"),
        ({"$ref": "http://169.254.169.254/schema"}, "point into"),
        ({"$ref": "file:///etc/passwd"}, "point into"),
        ({"$ref": "other.json"}, "point into"),
        ({"$ref": "#name"}, "point into"),
        ({"$ref": "#/$defs/nowhere"}, "leads nowhere"),
        ({"properties": {"x": {"$id": "http://example.com/", "$ref": "#/x"}}}, "root only"),
        ({"$dynamicRef": "#x"}, "not supported"),
        ({"$anchor": "x"}, "not supported"),
        ({"$ref": "#"}, "back to itself"),
        ({"allOf": [{"anyOf": [{"$ref": "#"}]}]}, "back to itself"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"not": {"$ref": "#/$defs/a"}}}}, "back to itself"),
        ({"pattern": "(a"}, "parenthesis"),
        ({"pattern": r"(a)\1"}, "not supported"),
        ({"pattern": "(?=a)b"}, "not supported"),
        ({"pattern": "a{1,9999}b"}, "too far"),
        ({"pattern": "((a{100}){100}){100}"}, "too far"),
        ({"pattern": "x" * 501}, "characters"),
        ({"patternProperties": {"(?<=a)b": {}}}, "not supported"),
    ],
)
def test_unusable_schemas_are_refused_with_a_reason(schema, why):
    begin = time.process_time()
    with pytest.raises(SchemaInvalid, match=why) as caught:
        check_schema(schema, field="tool")
    assert caught.value.violations[0].field == "tool"
    assert time.process_time() - begin < 2


@pytest.mark.parametrize(
    ("schema", "value", "told"),
    [
        (TREE, {"name": "a", "children": [{"name": "b", "children": []}]}, None),
        (TREE, {"name": "a", "children": [{}]}, "children.0: 'name' is missing."),
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
def test_what_is_wrong_with_a_value_is_said_in_words_for_a_model(schema, value, told):
    check_schema(schema)
    found = problem(schema, value)
    assert found == told or (told == "..." and found and told in found and len(found) < 420)


def deep(depth: int) -> dict:
    value: dict = {"name": "a"}
    for _ in range(depth):
        value = {"name": "a", "children": [value]}
    return value


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (doubling(25), 1),
        ({"anyOf": [{"items": {"$ref": "#"}, "type": "array"}] * 3 + [{"const": 7}]}, [[[[[[[[[[[[[[8]]]]]]]]]]]]]]),
        (TREE, deep(2000)),
        ({"items": {"pattern": "^(a+)+$"}}, ["a" * 3000 + "!"] * 20),
        ({"uniqueItems": True, "items": {"type": "integer"}}, list(range(30_000))),
    ],
)
def test_a_value_that_takes_too_long_is_refused(schema, value):
    check_schema(schema)
    begin = time.process_time()
    assert "too long" in str(problem(schema, value))
    assert time.process_time() - begin < 3


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|a)*$", "(.*a){12}x", "^(([a-z])+.)+[A-Z]([a-z])+$", "a*a*a*a*a*b"])
def test_patterns_that_explode_elsewhere_do_not(pattern):
    begin = time.process_time()
    assert not Pattern(pattern).found_in("a" * 2000 + "!")
    assert time.process_time() - begin < 3


_PIECES = st.sampled_from(
    [
        "a",
        "b",
        ".",
        "[ab]",
        "[^a]",
        "[a-c-]",
        "\\d",
        "\\w",
        "\\s",
        "\\.",
        "\\-",
        "^",
        "$",
        "(a|b)",
        "(?:ab|c)",
        "\\u0061",
        "\\x62",
        "{",
        "-",
    ]
)
_COUNTS = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,}", "{0,2}", "*?", "{0}"])


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(_PIECES, _COUNTS), max_size=6), st.booleans(), st.text(alphabet="abc1 .-\n", max_size=8))
def test_patterns_mean_what_they_mean_elsewhere(pieces, grouped, text):
    pattern = "".join(piece + (count if piece not in ("^", "$") else "") for piece, count in pieces)
    pattern = f"({pattern})*b|{pattern}" if grouped else pattern
    # Python's `$` also passes before a last line break, and `.` takes all but that one; ECMA-262's do not.
    same = re.compile(pattern.replace("$", r"\Z"), re.ASCII)
    assert Pattern(pattern).found_in(text) == bool(same.search(text))


@given(st.text(alphabet="ab()[]{}|*+?^$\\.-,:=!<1dwsbBpk0", max_size=20))
def test_any_pattern_is_understood_or_refused(source):
    try:
        Pattern(source).found_in("ab1")
    except PatternRefused:
        return
