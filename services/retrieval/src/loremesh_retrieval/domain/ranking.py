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
    return sorted(hits, key=lambda hit: (-hit[1], hit[0]))


def fuse(rankings: Sequence[Ranking], fusion: Fusion) -> list[Hit]:
    """One ranking with scores from 0 to 1, 1 being the best that any point could reach in all of them.

    A ranking that is empty has no say, so a query no word of which is known is not scored half.
    """
    found = [ranking for ranking in rankings if ranking]
    shares = _distribution_shares if fusion is Fusion.DBSF else _rank_shares
    sums: dict[str, float] = {}
    for ranking in found:
        for (point_id, _), share in zip(ranking, shares(ranking), strict=True):
            sums[point_id] = sums.get(point_id, 0.0) + share
    ordered = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
    # Bounded only once in order: an outlier above three deviations still beats the next.
    return [Hit(point_id, min(1.0, max(0.0, total / len(found)))) for point_id, total in ordered]


def _distribution_shares(ranking: Ranking) -> Sequence[float]:
    """Scores over mean ± 3 standard deviations (Mazzeschi, 2023); 0.5 each where they do not differ."""
    scores = [score for _, score in ranking]
    mean = fmean(scores)
    variance = sum((score - mean) ** 2 for score in scores) / max(1, len(scores) - 1)
    if variance == 0:
        return [0.5] * len(scores)
    width = 6 * variance**0.5
    return [0.5 + (score - mean) / width for score in scores]


def _rank_shares(ranking: Ranking) -> Sequence[float]:
    """1 / (60 + rank) (Cormack et al., 2009), as a share of what the first place gets."""
    return [(RRF_CONSTANT + 1) / (RRF_CONSTANT + rank) for rank in range(1, len(ranking) + 1)]
