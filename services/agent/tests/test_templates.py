"""Templates of prompts."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loremesh_agent.domain.templates import MAX_CHARS, render, variables
from loremesh_agent.errors import PromptInvalid

pytestmark = pytest.mark.unit


def test_variables_are_put_where_they_stand_and_nothing_else_happens() -> None:
    text = r"{{a}} and {{ b_2 }}, {a} $a ${a} %(a)s \{{a}} }} {{a}}"
    assert variables(text) == {"a", "b_2"}
    assert render(text, {"a": "1", "b_2": "2"}) == "1 and 2, {a} $a ${a} %(a)s {{a}} }} 1"


def test_braces_in_a_value_mean_nothing() -> None:
    assert render("{{a}}{{b}}", {"a": "{{b}}", "b": r"\{{a}} \1 \g<0>"}) == r"{{b}}\{{a}} \1 \g<0>"


@pytest.mark.parametrize(
    "text",
    [
        *("{{", "{{}}", "{{ }}", "{{a", "{{a}", "{{a.b}}", "{{a[0]}}", "{{a()}}", "{{1a}}", "{{{a}}}", "{{a|upper}}"),
        *("{{#if a}}", "{{a b}}", "{{ก}}", "{{" + "a" * 65 + "}}"),
    ],
)
def test_what_is_no_name_is_no_variable(text: str) -> None:
    with pytest.raises(PromptInvalid, match="At character 2"):
        variables(f"ok{text}")


def test_all_that_is_missing_and_superfluous_is_named() -> None:
    with pytest.raises(PromptInvalid) as refused:
        render("{{a}} {{b}} {{c}}", {"c": "", "x": "", "y": ""})
    assert refused.value.message == ("The variables do not fit the prompt; missing: 'a', 'b'; superfluous: 'x', 'y'.")


def test_neither_a_template_nor_what_it_becomes_is_too_long() -> None:
    assert len(render("x" * MAX_CHARS, {})) == MAX_CHARS
    with pytest.raises(PromptInvalid, match="longer"):
        variables("x" * (MAX_CHARS + 1))
    with pytest.raises(PromptInvalid, match="longer"):
        render("{{a}}" * 5, {"a": "x" * 8000})


@given(st.text(alphabet="{}\\ab _", max_size=40), st.text(max_size=20))
def test_whatever_is_a_template_takes_exactly_its_variables(text: str, value: str) -> None:
    try:
        names = variables(text)
    except PromptInvalid:
        return
    rendered = render(text, dict.fromkeys(names, value))
    assert names or rendered == text.replace(r"\{{", "{{")


def test_many_braces_take_no_time() -> None:
    began = time.monotonic()
    for text in ("{{" + " " * (MAX_CHARS - 2), "{" * MAX_CHARS, "{{a" + " " * (MAX_CHARS - 3)):
        with pytest.raises(PromptInvalid):
            variables(text)
    assert time.monotonic() - began < 5
