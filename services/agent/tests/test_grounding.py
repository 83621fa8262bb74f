"""What an answer rests on."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loremesh_agent.domain.excerpts import best_sentence
from loremesh_agent.domain.grounding import Support, is_refusal, support
from loremesh_agent.domain.passages import Passage
from loremesh_agent.domain.repetition import repeats_itself

pytestmark = pytest.mark.unit

QUESTION = "How high is the lighthouse of Genoa?"
REFUSAL = "The documents do not hold an answer to this question."
SOUP = "Pumpkin soup is made of pumpkin, ginger and coconut milk."


@pytest.fixture
def passages(make_passage: Callable[..., Passage]) -> list[Passage]:
    return [make_passage(SOUP, name="soup"), make_passage()]


def test_the_passage_which_holds_what_the_answer_adds_supports_it(passages: list[Passage]) -> None:
    found = support("The lighthouse of Genoa is 77 metres high.", question=QUESTION, passages=passages)
    assert found == Support(numbers=(2,), claims=True)


def test_a_wrong_number_is_not_supported(passages: list[Passage]) -> None:
    found = support("The lighthouse of Genoa is 76 metres high.", question=QUESTION, passages=passages)
    assert found == Support(numbers=(), claims=True)


def test_what_only_repeats_the_question_is_no_claim(passages: list[Passage]) -> None:
    found = support("It is how high the lighthouse of Genoa is.", question=QUESTION, passages=passages)
    assert found == Support(numbers=(), claims=False)


def test_a_fabrication_is_not_supported(passages: list[Passage]) -> None:
    answer = "The lighthouse was painted green by sailors who loved opera."
    assert support(answer, question=QUESTION, passages=passages) == Support(numbers=(), claims=True)


def test_sentences_may_rest_on_different_passages(passages: list[Passage]) -> None:
    answer = "It was built in 1128 and rebuilt in 1543 after a war. The soup is made of ginger and coconut milk."
    assert set(support(answer, question=QUESTION, passages=passages).numbers) == {1, 2}


def test_the_question_alone_does_not_make_a_citation(passages: list[Passage]) -> None:
    answer = "The high lighthouse of Genoa is a lighthouse."
    assert support(answer, question=QUESTION, passages=passages).numbers == ()


@given(st.text(max_size=300))
def test_any_text_can_be_judged(answer: str) -> None:
    assert support(answer, question=QUESTION, passages=()).numbers == ()
    assert isinstance(is_refusal(answer, refusal=REFUSAL), bool)


@pytest.mark.parametrize(
    "answer",
    [
        REFUSAL,
        REFUSAL.rstrip("."),
        "The provided documents do not contain any information about that.",
        "The passages don't mention the CEO.",
        "I don't know.",
        "There is no answer: the text does not say how high it is.",
    ],
)
def test_a_refusal_is_recognised(answer: str) -> None:
    assert is_refusal(answer, refusal=REFUSAL)


@pytest.mark.parametrize(
    "answer",
    [
        "The lighthouse is 77 metres high.",
        "It is 77 metres high. The documents do not mention its weight.",
        "The document describes a method without any loss.",
        "",
    ],
)
def test_an_answer_is_no_refusal(answer: str) -> None:
    assert not is_refusal(answer, refusal=REFUSAL)


def test_the_sentence_that_speaks_of_the_question_is_found(passages: list[Passage]) -> None:
    assert best_sentence(QUESTION, passages) == (2, "The lighthouse of Genoa is 77 metres high.")
    assert best_sentence("Who is president?", passages) is None
    assert best_sentence(QUESTION, ()) is None


def test_a_heading_tells_nothing(make_passage: Callable[..., Passage]) -> None:
    passage = make_passage("The high lighthouse of Genoa.\nThe lighthouse is 77 metres.")
    assert best_sentence(QUESTION, [passage]) == (1, "The lighthouse is 77 metres.")


@pytest.mark.parametrize(
    "text",
    [
        "It serves many clients at once. It is fast. It serves many clients at once.",
        "a model built on top of a model built on top of a model built on top of a model bui",
    ],
)
def test_going_round_in_circles_is_noticed(text: str) -> None:
    assert repeats_itself(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Yes. Yes.",
        "It serves many clients at once. It serves many clients",
        "The lamp is seen from afar, and the lamp is seen from the port, and the lamp is seen",
        " ".join(f"Item {number} is number {number}." for number in range(9)),
    ],
)
def test_going_on_is_no_circle(text: str) -> None:
    assert not repeats_itself(text)


@given(st.text(max_size=300))
def test_any_text_can_be_watched(text: str) -> None:
    assert isinstance(repeats_itself(text), bool)
