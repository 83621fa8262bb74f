"""BM25's weights, against the formula and against what it is for."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loremesh_embedding.domain.bm25 import Bm25, term_id

pytestmark = pytest.mark.unit


def test_a_documents_weight_is_the_formulas():
    vector = Bm25(k1=1.2, b=0.75, average_length=4).document("engine engine wing flap")
    frequency, length = 2, 4
    expected = frequency * 2.2 / (frequency + 1.2 * (0.25 + 0.75 * length / 4))
    assert vector.values[list(vector.indices).index(term_id("engin"))] == pytest.approx(expected)


def test_a_longer_document_weighs_each_term_less():
    bm25 = Bm25()
    short, long = bm25.document("wing"), bm25.document("wing " + "flap " * 300)
    assert long.values[list(long.indices).index(term_id("wing"))] < short.values[0]


def test_a_query_weighs_each_distinct_term_one():
    vector = Bm25().query("What wings, and which wing, has the engine?")
    assert list(vector.indices) == sorted([term_id("wing"), term_id("engin")])
    assert list(vector.values) == [1.0, 1.0]


def test_ids_never_change():
    assert [term_id("wing"), term_id("แม")] == [210902434, 3492881895]


def test_words_of_one_stem_are_one_term():
    bm25 = Bm25()
    assert bm25.query("connected") == bm25.query("connections connecting")


def test_another_language_has_its_own_stems_and_keeps_english_stop_words():
    german = Bm25(language="german")
    assert german.query("Häuser") == german.query("Häusern")
    assert german.query("the").indices


def test_an_unknown_language_is_refused():
    with pytest.raises(ValueError, match="klingon"):
        Bm25(language="klingon")


@pytest.mark.parametrize("text", ["the of and", "?!…", "🙂"])
def test_a_text_without_terms_has_a_vector_without_entries(text: str):
    assert not Bm25().document(text).indices
    assert not Bm25().query(text).indices


@given(st.text(max_size=200))
def test_any_text_has_increasing_32_bit_ids_and_finite_positive_weights(text: str):
    vector = Bm25().document(text)
    assert list(vector.indices) == sorted(set(vector.indices))
    assert all(0 <= index < 2**32 for index in vector.indices)
    assert all(math.isfinite(value) and 0 < value < 2.2 for value in vector.values)
    assert list(Bm25().query(text).indices) == list(vector.indices)
