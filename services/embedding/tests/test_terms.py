"""How texts become terms."""

import pytest
from loremesh_embedding.domain.terms import terms

pytestmark = pytest.mark.unit


def of(text: str) -> list[str]:
    return list(terms(text, stem=lambda word: word))


def test_words_are_folded_and_separated_by_what_is_no_word():
    assert of("Max_Input-Tokens: 42% of STRASSE, Straße!") == [
        *["max", "input", "tokens", "42", "of"],
        *["strasse", "strasse"],
    ]


def test_full_width_letters_equal_plain_ones():
    assert of("ＡＢＣ１２") == of("abc12")


def test_composed_and_decomposed_accents_equal():
    assert of("caf\u00e9") == of("cafe\u0301")


def test_vowel_signs_do_not_cut_words():
    assert of("हिन्दी भाषा") == ["हिन्दी", "भाषा"]


def test_soft_hyphens_and_joiners_vanish_inside_words():
    assert of("co\u00adoperate") == ["cooperate"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("東京都", ["東京", "京都"]),
        ("猫", ["猫"]),
        ("ネコ cafe", ["ネコ", "cafe"]),
        ("한국어", ["한국", "국어"]),
        ("แมว", ["แม", "มว"]),
        ("ที่นี่", ["ที่นี่"]),
        ("ภาษา\u200bไทย", ["ภา", "าษ", "ษา", "ไท", "ทย"]),
    ],
)
def test_scripts_without_spaces_become_pairs_of_characters_with_their_marks(text: str, expected: list[str]):
    assert of(text) == expected


def test_a_word_mixing_scripts_is_cut_between_them():
    assert of("東京タワー2024年abc") == ["東京", "京タ", "タワ", "ワー", "2024", "年", "abc"]


def test_emoji_and_lone_marks_do_no_harm():
    assert of("👩‍👩‍👧 ok \u0301x") == ["ok", "\u0301x"]


def test_a_word_without_end_is_cut():
    assert of("a" * 10_000) == ["a" * 128]


def test_stop_words_are_left_out_before_stemming():
    assert list(terms("the cats", stem=str.upper, stop_words={"the"})) == ["CATS"]
