"""Placeholders in flows' texts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loremesh_crew.domain.texts import Filler, TextTooLong, names, names_within, renamed, state_of

pytestmark = pytest.mark.unit

VALUES = {"topic": "bees", "count": 3, "rows": [1, "{topic}"], "output": "{topic}!", "output.write": "a draft"}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("About {topic}.", "About bees."),
        ("{output} and {output.write}", "{topic}! and a draft"),
        ("{rows}", '[1,"{topic}"]'),
        ("{{topic}} {{{topic}}} {{output.write}}", "{topic} {bees} {output.write}"),
        ('{"a": {"topic": 1}}', '{"a": {"topic": 1}}'),
        ("{strange} {output.strange}", "{strange} {output.strange}"),
        ("{topic.write}", "{topic.write}"),
    ],
)
def test_a_name_in_braces_is_its_value_and_what_is_put_in_stays(text: str, filled: str) -> None:
    assert Filler(VALUES).text(text) == filled


def test_a_text_that_is_only_a_placeholder_is_its_value_in_a_tools_arguments() -> None:
    given_ = {"n": "{count}", "rows": ["{rows}", "{{count}}", 5], "text": "{count} of {topic}", "{topic}": True}
    assert Filler(VALUES).value(given_) == {
        "n": 3,
        "rows": [[1, "{topic}"], "{count}", 5],
        "text": "3 of bees",
        "{topic}": True,
    }


def test_names_come_once_in_their_order_and_without_those_escaped() -> None:
    assert names("{b} {output.a-1} {b} {{c}} {{{output}}}") == ("b", "output.a-1", "output")
    assert names_within({"x": ["{a}", {"{k}": "{b}"}], "y": 3}) == ("a", "b")
    assert state_of("output.a-1") == "a-1"
    assert not state_of("output")


def test_renaming_changes_names_and_nothing_else() -> None:
    text = "{output.a} {{output.a}} {{{output.a}}} {topic}"
    assert renamed(text, {"output.a": "output-a"}) == "{output-a} {{output.a}} {{{output-a}}} {topic}"


def test_what_is_put_in_is_bounded_over_all_texts_together() -> None:
    filler = Filler({"x": "a" * 60}, limit=100)
    assert len(filler.text("{x}")) == 60
    with pytest.raises(TextTooLong):
        filler.value({"a": ["{x}"]})


@given(st.text("{}ab.output", max_size=80), st.dictionaries(st.sampled_from(["a", "b", "output"]), st.text(max_size=9)))
def test_names_that_are_renamed_are_filled_as_they_were(text: str, values: dict[str, Any]) -> None:
    given_ = {"a": "1", "b": "2", "output": "3", **values}
    found = dict.fromkeys(names(text))
    plain = {name: f"n{at}" for at, name in enumerate(found)}
    again = Filler({plain[name]: given_.get(name, f"{{{name}}}") for name in found}).text(renamed(text, plain))
    assert again == Filler(given_).text(text)
