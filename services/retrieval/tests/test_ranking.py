import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loremesh_retrieval.domain.ranking import Fusion, Hit, fuse, ranked

pytestmark = pytest.mark.unit

rankings = st.dictionaries(st.sampled_from("abcdefghij"), st.floats(-10, 50), max_size=10).map(
    lambda scores: ranked(Hit(*item) for item in scores.items())
)


def test_equal_scores_are_ordered_by_id():
    assert [hit.point_id for hit in ranked([Hit("b", 1.0), Hit("c", 2.0), Hit("a", 1.0)])] == ["c", "a", "b"]


def test_dbsf_is_the_mean_of_scores_over_three_deviations_to_either_side():
    dense = [Hit("a", 0.9), Hit("b", 0.5), Hit("c", 0.1)]
    sparse = [Hit("c", 12.0), Hit("a", 3.0)]

    def share(score, scores):
        mean, deviation = np.mean(scores), np.std(scores, ddof=1)
        return (score - (mean - 3 * deviation)) / (6 * deviation)

    fused = dict(fuse([dense, sparse], Fusion.DBSF))
    d, s = [0.9, 0.5, 0.1], [12.0, 3.0]
    assert fused["a"] == pytest.approx((share(0.9, d) + share(3.0, s)) / 2)
    assert fused["b"] == pytest.approx(share(0.5, d) / 2)
    assert fused["c"] == pytest.approx((share(0.1, d) + share(12.0, s)) / 2)


def test_rrf_counts_ranks_only():
    fused = fuse([[Hit("a", 9.0), Hit("b", 1.0)], [Hit("a", 0.1)]], Fusion.RRF)
    assert fused == [Hit("a", 1.0), Hit("b", pytest.approx(61 / 62 / 2))]


def test_scores_which_do_not_differ_are_one_half():
    assert fuse([[Hit("a", 3.0), Hit("b", 3.0)], [Hit("a", 7.0)]], Fusion.DBSF) == [Hit("a", 0.5), Hit("b", 0.25)]


def test_an_empty_ranking_has_no_say():
    only = [Hit("a", 0.9), Hit("b", 0.2)]
    for fusion in Fusion:
        assert fuse([only, []], fusion) == fuse([only], fusion)
    assert fuse([[], []], Fusion.DBSF) == []


def test_outliers_stay_in_order_though_their_scores_are_cut_at_one():
    ranking = [Hit("best", 1000.0), *(Hit(f"x{i:02}", 1.0 + i / 100) for i in range(60))]
    fused = fuse([ranking, [*ranking[:1], Hit("second", 999.0), *ranking[1:]]], Fusion.DBSF)
    assert fused[0] == Hit("best", 1.0)
    assert fused[1].point_id == "second"


@given(rankings, rankings, st.sampled_from(Fusion))
def test_fused_scores_are_within_0_and_1_and_every_candidate_is_there_once(one, other, fusion):
    fused = fuse([one, other], fusion)
    assert all(0 <= hit.score <= 1 for hit in fused)
    assert sorted(hit.point_id for hit in fused) == sorted({hit.point_id for hit in [*one, *other]})
    assert [hit.score for hit in fused] == sorted((hit.score for hit in fused), reverse=True)
