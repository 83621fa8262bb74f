"""Rankings, and how several become one."""

from collections.abc import Iterable, Sequence
from enum import Enum
from statistics import fmean
from typing import NamedTuple

RRF_CONSTANT = 60


class Hit(NamedTuple):
    """A point and its score, the higher the better."""

    point_id: str
    score: float


Ranking = Sequence[Hit]


class Fusion(Enum):
    """How the rankings of a hybrid search become one."""

    DBSF = "distribution-based score fusion"
    RRF = "reciprocal rank fusion"


def ranked(hits: Iterable[Hit]) -> list[Hit]:
    """Best first; equal scores by id, so that every engine gives the same order."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.point_id))


def fuse(rankings: Sequence[Ranking], fusion: Fusion) -> list[Hit]:
    """One ranking with scores from 0 to 1, 1 being the best that any point could reach in all of them.

    A ranking that is empty has no say, so a query no word of which is known is not scored half.
    """
    found = [ranking for ranking in rankings if ranking]
    score = _distribution_based if fusion is Fusion.DBSF else _reciprocal_rank
    sums: dict[str, float] = {}
    for ranking in found:
        for point_id, share in score(ranking):
            sums[point_id] = sums.get(point_id, 0.0) + share
    # Bounded only once in order: an outlier above three deviations still beats the next.
    return [
        Hit(point_id, min(1.0, max(0.0, total / len(found))))
        for point_id, total in ranked(map(Hit._make, sums.items()))
    ]


def _distribution_based(ranking: Ranking) -> Iterable[Hit]:
    """Scores over mean ± 3 standard deviations (Mazzeschi, 2023); 0.5 each where they do not differ."""
    scores = [hit.score for hit in ranking]
    mean = fmean(scores)
    variance = sum((score - mean) ** 2 for score in scores) / max(1, len(scores) - 1)
    if variance == 0:
        return [Hit(hit.point_id, 0.5) for hit in ranking]
    width = 6 * variance**0.5
    return [Hit(hit.point_id, 0.5 + (hit.score - mean) / width) for hit in ranking]


def _reciprocal_rank(ranking: Ranking) -> Iterable[Hit]:
    """1 / (60 + rank) (Cormack et al., 2009), as a share of what the first place gets."""
    return [Hit(hit.point_id, (RRF_CONSTANT + 1) / (RRF_CONSTANT + rank)) for rank, hit in enumerate(ranking, start=1)]
