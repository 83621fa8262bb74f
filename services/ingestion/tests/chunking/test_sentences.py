"""Where sentences end."""

import time

import pytest
from loremesh_ingestion.domain.chunking.sentences import sentences

pytestmark = pytest.mark.unit


def split(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One ends. Two ends! Three? Four", ["One ends.", "Two ends!", "Three?", "Four"]),
        ("Dr. Smith met Mr. J. R. Jones. They spoke.", ["Dr. Smith met Mr. J. R. Jones.", "They spoke."]),
        ("Costs 3.50 a kilo, e.g. apples. See Fig. 4 there.", ["Costs 3.50 a kilo, e.g. apples.", "See Fig. 4 there."]),
        ('He said "Stop!" and left. (Really.) Then', ['He said "Stop!" and left.', "(Really.)", "Then"]),
        ("the end . the next begins small . so", ["the end .", "the next begins small .", "so"]),
        ("Wait... what? no", ["Wait... what? no"]),
        ("Title without stop\n\nBody text.", ["Title without stop", "Body text."]),
        ("1. Install it\n2. Run it.", ["1. Install it\n2. Run it."]),
        ("これは一つ。これは二つ！三つ", ["これは一つ。", "これは二つ！", "三つ"]),
        ("यह एक है। यह दो है।", ["यह एक है।", "यह दो है।"]),
        ("สวัสดีครับ วันนี้อากาศดี", ["สวัสดีครับ วันนี้อากาศดี"]),
        ("Ça va? Oui. Élan!", ["Ça va?", "Oui.", "Élan!"]),
        ("  \n ", []),
    ],
)
def test_sentences_end_where_a_reader_would_say(text: str, expected: list[str]) -> None:
    assert split(text) == expected


def test_a_part_of_a_text_is_divided_in_its_own_offsets() -> None:
    text = "Skip this. Take this. And this. Not that."
    assert list(sentences(text, 11, 31)) == [(11, 21), (22, 31)]


@pytest.mark.parametrize("hostile", ["." * 200_000, "\n " * 100_000, '."' * 100_000, "a." * 100_000 + " x"])
def test_hostile_punctuation_takes_no_quadratic_time(hostile: str) -> None:
    started = time.process_time()
    list(sentences(hostile))
    assert time.process_time() - started < 2
