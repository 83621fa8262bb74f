"""From token vectors to vectors and scores."""

import numpy as np
import pytest
from loremesh_embedding.domain.pooling import max_sim, mean_pool
from loremesh_embedding.domain.vectors import normalise

pytestmark = pytest.mark.unit

EAST, NORTH = np.eye(2, dtype=np.float32)


def test_the_pooled_vector_is_the_means_direction():
    assert mean_pool(np.stack([EAST * 4, NORTH * 4])) == pytest.approx(np.sqrt([0.5, 0.5]))


def test_each_query_token_counts_by_its_best_match():
    assert max_sim(np.stack([EAST, NORTH]), np.stack([EAST, -NORTH, EAST])) == pytest.approx(0.5)


def test_a_document_that_covers_the_query_scores_one():
    assert max_sim(np.stack([EAST, NORTH]), np.stack([NORTH, EAST])) == pytest.approx(1)


def test_zeros_stay_zeros():
    assert normalise(np.zeros((1, 3), np.float32)).tolist() == [[0, 0, 0]]
