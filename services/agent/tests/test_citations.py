"""Citations in text that comes in pieces."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loremesh_agent.domain.citations import CitationFilter

pytestmark = pytest.mark.unit

# Made of what matters, so that brackets, numbers and code meet each other often.
PARTS = ["[", "]", "1", "2", "9", ",", " ", "  ", "\n", "`", "```", "a", "[1]", "[2, 1]", " [7]", "ก", "[1984]"]
TEXTS = st.lists(st.sampled_from(PARTS), max_size=30).map("".join)


def passed(text: str, *, sources: int = 3, pieces: list[str] | None = None) -> tuple[str, set[int]]:
    citations = CitationFilter(sources=sources)
    said = "".join(citations.feed(piece) for piece in (pieces or [text])) + citations.finish()
    return said, citations.cited


@pytest.mark.parametrize(
    ("text", "said", "cited"),
    [
        ("It is red [1].", "It is red [1].", {1}),
        ("It is red [1, 3].", "It is red [1][3].", {1, 3}),
        ("It is red [ 2 ,2].", "It is red [2].", {2}),
        ("It is red [1][2].", "It is red [1][2].", {1, 2}),
        ("It is red [4].", "It is red.", set()),
        ("It is red [4, 1].", "It is red [1].", {1}),
        ("It is red [0].", "It is red.", set()),
        ("In [1984] and [a] and [].", "In [1984] and [a] and [].", set()),
        ("[[1]", "[[1]", {1}),
        ("open [1", "open [1", set()),
        ("`x[9]` is red [1]", "`x[9]` is red [1]", {1}),
        ("```\nx[9]\ny[1]\n```\nred [2]", "```\nx[9]\ny[1]\n```\nred [2]", {2}),
        ("a stray ` here\nred [9] [1]", "a stray ` here\nred [1]", {1}),
        ("แดง[1]ครับ 😀[9]", "แดง[1]ครับ 😀", {1}),
    ],
)
def test_citations_stay_where_there_is_a_source(text: str, said: str, cited: set[int]) -> None:
    assert passed(text) == (said, cited)


@given(TEXTS, st.data())
def test_where_the_text_is_cut_makes_no_difference(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert passed(text, pieces=pieces) == passed(text)


@given(TEXTS)
def test_one_character_at_a_time_makes_no_difference(text: str) -> None:
    assert passed(text, pieces=list(text) or [""]) == passed(text)


@given(TEXTS)
def test_only_citations_are_touched(text: str) -> None:
    said, cited = passed(text)
    assert re.sub(r"[\[\]0-9, ]", "", said) == re.sub(r"[\[\]0-9, ]", "", text)
    assert cited <= {1, 2, 3}
    assert all(f"[{number}]" in said for number in cited)


@given(TEXTS)
def test_little_is_held_back(text: str) -> None:
    citations = CitationFilter(sources=3)
    for character in text:
        citations.feed(character)
        held = citations._held
        assert held == "" or held[0] in " [`"


def test_a_word_is_passed_on_at_once() -> None:
    citations = CitationFilter(sources=1)
    assert citations.feed("lighthouse") == "lighthouse"
    assert citations.feed(" is") == " is"
