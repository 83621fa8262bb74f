"""Placeholders, and inputs held against what a crew needs."""

import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loremesh_crew.domain import placeholders
from loremesh_crew.domain.definitions import Crew, CrewAgent, CrewTask
from loremesh_crew.domain.inputs import check_inputs, needed
from loremesh_crew.errors import InputInvalid, InputMissing

pytestmark = pytest.mark.unit

NAMES = st.text(string.ascii_letters + "_", min_size=1, max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("About {topic}.", "About bees."),
        ("{topic}{topic}", "beesbees"),
        ("{ topic }", "{ topic }"),
        ("{{topic}}", "{topic}"),
        ("{{{topic}}}", "{bees}"),
        ('{"a": {"b": 1}}', '{"a": {"b": 1}}'),
        ('{"subject": {topic}}', '{"subject": bees}'),
        ('{"a": "{topic}"}', '{"a": "bees"}'),
        ("{strange}", "{strange}"),
        ("{{strange}}", "{strange}"),
        ("{1} {} {a b} {topic", "{1} {} {a b} {topic"),
        ("{number} {half} {yes} {none} {list} {object}", '3 0.5 true null [1,"é"] {"a":{"b":1}}'),
        ("{nested}", "{topic}"),
        ("{with-dash}", "dashed"),
    ],
)
def test_a_name_in_braces_is_its_value_and_all_else_stays(text: str, filled: str) -> None:
    values = {
        "topic": "bees",
        "number": 3.0,
        "half": 0.5,
        "yes": True,
        "none": None,
        "list": [1.0, "é"],
        "object": {"a": {"b": 1}},
        "nested": "{topic}",
        "with-dash": "dashed",
    }
    assert placeholders.fill(text, values) == filled


def test_names_come_once_in_their_order_and_without_those_escaped() -> None:
    assert placeholders.names("{b} {a} {b} {{c}} {{{d}}}") == ("b", "a", "d")


@given(st.text())
def test_without_values_and_escapes_a_text_stays_as_it_is(text: str) -> None:
    if "{{" not in text:
        assert placeholders.fill(text, {}) == text


@given(JSON)
def test_json_shown_as_an_example_stays_as_it_is(value: Any) -> None:
    text = json.dumps(value, indent=1)
    if not placeholders.names(text) and "{{" not in text:
        assert placeholders.fill(text, {"a": "x"}) == text


@given(st.lists(st.tuples(st.text(), NAMES), max_size=5), st.text())
def test_every_value_is_put_in_and_never_looked_at_again(parts: list[tuple[str, str]], value: str) -> None:
    text = "".join(f"{plain.replace('{', '').replace('}', '')}{{{name}}}" for plain, name in parts)
    names = placeholders.names(text)
    assert names == tuple(dict.fromkeys(name for _, name in parts))
    expected = "".join(plain.replace("{", "").replace("}", "") + value for plain, _ in parts)
    assert placeholders.fill(text, dict.fromkeys(names, value)) == expected


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["{" * 500_000, "{a" * 250_000, "{" + "a" * 500_000, "{" * 250_000 + "a" + "}" * 9])
def test_a_text_made_to_be_slow_is_not(text: str) -> None:
    placeholders.fill(text, {"a": ""})
    assert len(placeholders.names(text)) <= 1


def crew(description: str = "Write about {topic}.", **fields: Any) -> Crew:
    return Crew(
        id="crew",
        agents=(CrewAgent(name="writer", role="{kind} writer"), CrewAgent(name="kept", agent_id="x", role="{ignored}")),
        tasks=(CrewTask(name="write", description=description, agent="writer"),),
        **fields,
    )


SCHEMA = {
    "type": "object",
    "properties": {"topic": {"type": "string", "pattern": r"^\w+$"}, "kind": {"enum": ["poet", "critic"]}},
    "required": ["topic", "kind", "more"],
}


def test_what_a_crew_needs_is_named_in_its_texts_but_for_those_of_kept_agents() -> None:
    assert needed(crew()) == ("kind", "topic")


def test_inputs_are_taken_without_what_no_text_holds() -> None:
    assert check_inputs(crew(), {"topic": "b\0ees\ud800", "kind": ["a\0"], "more": 1}) == {
        "topic": "bees",
        "kind": ["a"],
        "more": 1,
    }


@pytest.mark.parametrize(("inputs", "name"), [({}, "kind"), ({"kind": "poet"}, "topic")])
def test_a_missing_input_is_named(inputs: dict[str, Any], name: str) -> None:
    with pytest.raises(InputMissing) as caught:
        check_inputs(crew(), inputs, field="inputs[3]")
    assert caught.value.metadata == {"input": name}
    assert caught.value.violations[0].field == "inputs[3]"


def test_what_only_the_schema_requires_is_missed_too() -> None:
    with pytest.raises(InputMissing) as caught:
        check_inputs(crew(inputs_schema=SCHEMA), {"topic": "bees", "kind": "poet"})
    assert caught.value.metadata == {"input": "more"}


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"topic": "two words"}, "topic"),
        ({"kind": "painter"}, "must be one of"),
        ({"more": float("nan")}, "finite"),
        ({"more": "x" * 300_000}, "more than 262144"),
        ({"more": nested(40)}, "deeper"),
        ({"more": nested(5000)}, "deeper"),
    ],
)
def test_inputs_that_break_a_rule_are_refused_with_it(inputs: dict[str, Any], words: str) -> None:
    given_ = {"topic": "bees", "kind": "poet", "more": 1, **inputs}
    with pytest.raises(InputInvalid) as caught:
        check_inputs(crew(inputs_schema=SCHEMA), given_)
    assert words in caught.value.metadata["problem"]
