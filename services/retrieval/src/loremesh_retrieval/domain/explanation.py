"""Why a chunk was or was not among the results, in words and numbers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from loremesh_kit.filters import matches

from loremesh_retrieval.domain.attributes import comparable
from loremesh_retrieval.domain.chunks import Chunk
from loremesh_retrieval.domain.ranking import Ranking
from loremesh_retrieval.domain.search import Branch, Stage, Trace


class Outcome(Enum):
    """What became of a chunk."""

    RETURNED = "returned"
    NOT_INDEXED = "not indexed"
    FILTERED_OUT = "filtered out"
    NOT_A_CANDIDATE = "not a candidate"
    BELOW_TOP_K = "below top_k"
    BELOW_THRESHOLD = "below threshold"
    NOT_LIVE = "not live"


@dataclass(frozen=True, slots=True)
class Standing:
    """A chunk's place in a stage, from 1, and its score; place 0 when it was scored but not ranked."""

    stage: str
    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """What became of a chunk, why, and where it stood."""

    chunk_id: str
    outcome: Outcome
    reason: str
    standings: Sequence[Standing] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """A chunk to explain: None in the place of one that is not indexed, and its score in each branch that has one."""

    chunk_id: str
    point_id: str
    chunk: Chunk | None
    scores: Mapping[Branch, float]


def explain(trace: Trace, subject: Subject) -> Explanation:
    """What the search made of the subject."""
    outcome, reason = _verdict(trace, subject)
    return Explanation(subject.chunk_id, outcome, reason, tuple(_standings(trace, subject)))


def _standings(trace: Trace, subject: Subject) -> Iterator[Standing]:
    for stage in trace.stages:
        if standing := _standing(stage, subject.point_id):
            yield standing
        elif (score := _direct_score(stage, subject)) is not None:
            yield Standing(stage.name, 0, score)


def _standing(stage: Stage, point_id: str) -> Standing | None:
    for rank, hit in enumerate(stage.ranking, start=1):
        if hit.point_id == point_id:
            return Standing(stage.name, rank, hit.score)
    return None


def _direct_score(stage: Stage, subject: Subject) -> float | None:
    return next((score for branch, score in subject.scores.items() if branch.value == stage.name), None)


def _verdict(trace: Trace, subject: Subject) -> tuple[Outcome, str]:
    if subject.chunk is None:
        return Outcome.NOT_INDEXED, f"No chunk of this id is in vector store {trace.scope.vector_store_id!r}."
    if subject.chunk.of in trace.dead and _standing(trace.stages[-1], subject.point_id) is None:
        version, document_id = subject.chunk.document_version, subject.chunk.document_id
        return Outcome.NOT_LIVE, f"Not live: searches may not show version {version} of document {document_id!r} now."
    filter_ = trace.search.filter_
    if filter_ is not None and not matches(filter_, comparable(subject.chunk.attributes)):
        return Outcome.FILTERED_OUT, "The filter is false for its document's attributes."
    branches = len(trace.search.branches)
    standing, merged = None, trace.stages[branches if branches > 1 else 0]
    for stage in trace.stages[trace.stages.index(merged) :]:
        before, standing = standing, _standing(stage, subject.point_id)
        if standing is None:
            return _lost(trace, subject, stage, before)
    if standing is None:
        raise ValueError("a search has at least one stage")
    last = len(trace.ranking)
    return Outcome.RETURNED, f"Place {standing.rank} of the {last} returned, with {_number(standing.score)}."


def _lost(trace: Trace, subject: Subject, stage: Stage, before: Standing | None) -> tuple[Outcome, str]:
    """Why the subject, which stood at `before`, is not in `stage`."""
    if before is None:
        reasons = [_missed(trace, subject, branch) for branch in trace.search.branches]
        return Outcome.NOT_A_CANDIDATE, f"{'; '.join(reasons)}."
    place = f"Place {before.rank} of {before.stage} with {_number(before.score)}"
    match stage.name:
        case "threshold":
            return Outcome.BELOW_THRESHOLD, f"{place}; score_threshold is {_number(trace.search.score_threshold or 0)}."
        case "rerank":
            return Outcome.BELOW_TOP_K, f"{place}; only the best {trace.search.reranked} are reranked."
    limit = trace.search.top_k
    return Outcome.BELOW_TOP_K, f"{place}; top_k is {limit}, and place {limit} has {_number(stage.ranking[-1].score)}."


def _missed(trace: Trace, subject: Subject, branch: Branch) -> str:
    ranking: Ranking = next(stage.ranking for stage in trace.stages if stage.name == branch.value)
    score = subject.scores.get(branch)
    if score is None:
        return f"{branch.value}: it shares no term with the query"
    if not ranking:
        return f"{branch.value}: {_number(score)}, but there was no candidate when the search ran"
    last = f"the last of {len(ranking)} candidates has {_number(ranking[-1].score)}"
    return f"{branch.value}: {_number(score)}, while {last}"


def _number(score: float) -> str:
    return f"{score:.4g}"
