"""The local tokenizer and weights."""

import numpy as np
import pytest
from loremesh_embedding.adapters.minilm import DIMENSION, WINDOW, MiniLm
from loremesh_embedding.domain.pooling import mean_pool

pytestmark = pytest.mark.unit

CLS, SEP = 101, 102


def test_ids_are_berts(minilm: MiniLm):
    (tokenised,) = minilm.tokenise(["Hello, World!"])
    assert tokenised.ids == [CLS, 7592, 1010, 2088, 999, SEP]
    assert not tokenised.truncated


def test_a_text_of_exactly_the_window_is_whole_and_one_token_more_is_cut(minilm: MiniLm):
    whole, cut = minilm.tokenise(["wing " * (WINDOW - 2), "wing " * (WINDOW - 1)])
    assert (len(whole.ids), whole.truncated) == (WINDOW, False)
    assert (len(cut.ids), cut.truncated) == (WINDOW, True)
    assert cut.ids[-1] == SEP


@pytest.mark.parametrize(
    "text",
    [
        "the wing " * 10_000,
        "a" * 50_000,
        " " * 50_000 + "wing " * 300,
        ("x" * 90 + " ") * 1000,
        ("x" * 110 + " ") * 1000,
        "แมวกินปลา" * 5000,
        "wing" + " " * 90_000 + "tail",
    ],
    ids=["prose", "one word", "indented", "long words", "unknown words", "Thai", "gap"],
)
def test_reading_only_the_head_of_a_long_text_changes_nothing(minilm: MiniLm, text: str):
    (tokenised,) = minilm.tokenise([text])
    whole = minilm._tokenizer.encode(text).ids
    expected = whole if len(whole) <= WINDOW else [*whole[: WINDOW - 1], SEP]
    assert tokenised.ids == expected
    assert tokenised.truncated == (len(whole) > WINDOW)


def test_padding_leaves_no_trace(minilm: MiniLm):
    short, long = (each.ids for each in minilm.tokenise(["a wing", "the tail of an aircraft in flight"]))
    alone, (together, other) = minilm.forward([short])[0], minilm.forward([short, long])
    assert together.shape == (len(short), DIMENSION)
    assert other.shape == (len(long), DIMENSION)
    assert np.allclose(alone, together, atol=1e-4)


def test_vectors_are_what_these_weights_give_with_their_own_vocabulary(minilm: MiniLm):
    texts = ["That is a happy person", "That is a very happy person", "Today is a sunny day"]
    person, happier, day = (mean_pool(minilm.forward([each.ids])[0]) for each in minilm.tokenise(texts))
    assert person @ happier == pytest.approx(0.94, abs=0.01)
    assert person @ day == pytest.approx(0.26, abs=0.01)
