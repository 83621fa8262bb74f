"""What is searched for after something was said: dialogues, and the words that a search has to have."""

from collections.abc import Sequence

import pytest
from loremesh_agent.domain.conversations import Exchange
from loremesh_agent.domain.followups import search_text

pytestmark = pytest.mark.unit

GENOA = ("How high is the lighthouse of Genoa?", "It is 77 metres high [1].")
BUILDER = ("Who designed the first computer program?", "It was written by Ada Lovelace in 1843 [1].")
REVENUE = ("What was the revenue of Loremesh in 2020?", "It was 3 million euros [1].")
THAI = ("ประภาคารเจนัวสูงเท่าไร", "ประภาคารสูง 77 เมตร [1]")

DIALOGUES: list[tuple[Sequence[tuple[str, str]], str, set[str]]] = [
    ([GENOA], "When was it built and rebuilt after the war?", {"Genoa", "lighthouse", "built"}),
    ([GENOA], "Why?", {"Genoa", "high"}),
    ([GENOA], "And in 1543?", {"Genoa", "lighthouse", "1543"}),
    ([GENOA], "What about the lighthouse of Alexandria?", {"high", "Alexandria"}),
    ([GENOA], "How far away can its lamp be seen at night?", {"Genoa", "lighthouse", "lamp"}),
    ([GENOA], "Who built the tower there in medieval times?", {"Genoa", "tower"}),
    ([GENOA], "Tell me more about the harbour nearby", {"Genoa", "harbour"}),
    ([GENOA], "Are there other lighthouses of the same height?", {"Genoa", "height"}),
    ([REVENUE], "and in 2021?", {"revenue", "Loremesh", "2021"}),
    ([REVENUE], "But did the company make any profit after taxes?", {"Loremesh", "profit"}),
    ([REVENUE, ("and in 2021?", "4 million [1].")], "and in 2022?", {"revenue", "Loremesh", "2022"}),
    ([REVENUE, ("and in 2021?", "4 million [1]."), ("Why?", "More users [1].")], "Really?", {"revenue", "Loremesh"}),
    ([BUILDER], "Where did she go to school as a child?", {"Ada", "Lovelace", "school"}),
    ([BUILDER], "Was he or she married when writing this program?", {"Lovelace", "program", "married"}),
    ([GENOA], "Und wie alt ist der Turm?", {"Genoa", "Turm"}),
    ([THAI], "ทำไม", {"ประภาคาร", "เจนัว"}),
    ([THAI], "แล้วสร้างเมื่อปีไหน", {"ประภาคาร", "เจนัว", "สร้าง"}),
    ([THAI], "มันสร้างขึ้นในปีอะไรและใครเป็นคนสร้าง", {"ประภาคาร", "เจนัว", "สร้าง"}),
    ([THAI], "ที่เวนิสล่ะ", {"ประภาคาร", "เวนิส"}),
]
ALONE = [
    "How is pumpkin soup made at home?",
    "Which ginger and coconut milk does the soup recipe need?",
    "Explain the difference between a lighthouse and a lightship in terms of the crew that it needs at sea.",
    "ซุปฟักทองทำจากวัตถุดิบอะไรบ้าง",
]


@pytest.mark.parametrize(("said", "question", "words"), DIALOGUES)
def test_a_question_that_leans_on_others_is_searched_with_what_it_leans_on(
    said: Sequence[tuple[str, str]], question: str, words: set[str]
) -> None:
    query = search_text(question, [Exchange(question=asked, answer=told) for asked, told in said])
    assert query.endswith(question)
    assert {word for word in words if word not in query} == set()


@pytest.mark.parametrize("question", ALONE)
def test_a_question_of_its_own_is_searched_as_it_is(question: str) -> None:
    assert search_text(question, [Exchange(question=GENOA[0], answer=GENOA[1])]) == question


@pytest.mark.parametrize("question", ["Why?", "And in 1543?", "When was it built?"])
def test_the_first_question_is_searched_as_it_is(question: str) -> None:
    assert search_text(question, []) == question


def test_what_a_chain_leans_on_is_not_followed_for_ever() -> None:
    history = [Exchange(question=f"and in {year}?", answer="No.") for year in range(1900, 2000)]
    assert search_text("and in 2000?", history).split("\n")[0] == "and in 1996?"


def test_a_long_query_keeps_where_it_begins_and_where_it_ends() -> None:
    query = search_text("Why?", [Exchange(question=f"begin {'x ' * 8000}", answer="No.")])
    assert (len(query), query[:5], query[-4:]) == (8000, "begin", "Why?")
