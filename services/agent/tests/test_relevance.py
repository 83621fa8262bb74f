"""Whether what was found is about the question."""

from collections.abc import Callable

import pytest
from loremesh_agent.domain.conversations import Exchange
from loremesh_agent.domain.followups import search_text
from loremesh_agent.domain.passages import Found, Passage, merged, numbered, shown
from loremesh_agent.domain.relevance import Floors, coverage, is_relevant

pytestmark = pytest.mark.unit

QUESTION = "How high is the lighthouse of Genoa?"


@pytest.mark.parametrize(
    ("similarity", "question", "relevant"),
    [
        (0.45, "What is the meaning of life?", True),
        (0.35, QUESTION, True),
        (0.35, "What is the meaning of life?", False),
        (0.20, QUESTION, False),
        (None, QUESTION, True),
        (None, "What is the meaning of life?", False),
    ],
)
def test_near_is_enough_and_less_near_needs_the_words(
    make_passage: Callable[..., Passage], similarity: float | None, question: str, relevant: bool
) -> None:
    found = Found(passages=(make_passage(),), similarity=similarity)
    assert is_relevant(question, found, Floors()) is relevant


def test_nothing_found_is_never_relevant() -> None:
    assert not is_relevant(QUESTION, Found(similarity=0.9), Floors())


def test_coverage_is_of_one_passage_and_counts_words_not_their_forms(make_passage: Callable[..., Passage]) -> None:
    found = Found(passages=(make_passage("High lighthouses."), make_passage("The port of Genoa.", name="port")))
    assert coverage(QUESTION, found) == pytest.approx(2 / 3)
    assert coverage("What is it?", found) == 0


def test_scripts_without_spaces_are_covered_too(make_passage: Callable[..., Passage]) -> None:
    found = Found(passages=(make_passage("ประภาคารสูงเจ็ดสิบเจ็ดเมตร"),))
    assert coverage("ประภาคารสูงเท่าไร", found) > 0.5
    assert coverage("ซุปฟักทองทำอย่างไร", found) < 0.3


def test_searches_are_merged_by_score(make_passage: Callable[..., Passage]) -> None:
    low, middle, high = (make_passage(name=name, score=score) for name, score in [("a", 0.1), ("b", 0.5), ("c", 0.9)])
    one, other = Found(passages=(middle, low), similarity=0.3), Found(passages=(high,), similarity=0.6)
    assert merged([one, other], top_k=2) == Found(passages=(high, middle), similarity=0.6)
    assert merged([Found()], top_k=2) == Found()


def test_an_answer_shows_what_it_cites_or_else_what_it_was_given(make_passage: Callable[..., Passage]) -> None:
    passages = [make_passage(name=name) for name in "abc"]
    assert [source.number for source in shown(numbered(passages, cited={3, 1}))] == [1, 3]
    assert [source.number for source in shown(numbered(passages))] == [1, 2, 3]


def test_a_question_that_leans_on_the_one_before_is_searched_with_it() -> None:
    history = [Exchange(question=QUESTION, answer="77 metres")]
    assert search_text("And who built it?", history) == f"{QUESTION}\nAnd who built it?"
    assert search_text("Which pumpkin soup recipe needs ginger?", history) == "Which pumpkin soup recipe needs ginger?"
    assert search_text("And who built it?", []) == "And who built it?"


def test_a_long_message_is_searched_by_where_it_begins_and_ends() -> None:
    query = search_text("a" * 5000 + "b" * 27_000, [])
    assert len(query) == 8000
    assert (query[0], query[-1]) == ("a", "b")
