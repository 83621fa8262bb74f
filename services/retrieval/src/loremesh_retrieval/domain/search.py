"""A search: what is asked for, and what each of its stages left."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from loremesh_kit.filters import Filter

from loremesh_retrieval.domain.chunks import Chunk, DocumentVersion, SparseVector
from loremesh_retrieval.domain.liveness import Generation, Live
from loremesh_retrieval.domain.ranking import Fusion, Ranking
from loremesh_retrieval.domain.scope import Scope

DEFAULT_VECTOR_STORE = "default"
DEFAULT_TOP_K = 5

# A fused score depends on how the scores of its candidates are distributed: with few of them it is distorted, beyond
# 100 little changes (nDCG@10 on Cranfield: 0.546 with 30, 0.549 with 50, 0.552 with 100, 0.553 with 200).
CANDIDATES = 100
_RERANKED = 20


class Mode(Enum):
    """How candidates are found."""

    HYBRID = "hybrid"
    DENSE = "dense"
    SPARSE = "sparse"


class Branch(Enum):
    """One ranking among those a search may fuse; the value is its stage's name."""

    DENSE = "dense"
    SPARSE = "sparse"


_BRANCHES = frozenset(branch.value for branch in Branch)


@dataclass(frozen=True, slots=True)
class Rerank:
    """Have a model (empty: the default one) order this many of the best candidates anew."""

    model: str = ""
    candidates: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is asked for; the question itself stays out of logs and tracebacks."""

    query: str = field(repr=False)
    vector_store_id: str = DEFAULT_VECTOR_STORE
    top_k: int = DEFAULT_TOP_K
    score_threshold: float | None = None
    filter_: Filter | None = None
    mode: Mode = Mode.HYBRID
    fusion: Fusion = Fusion.DBSF
    rerank: Rerank | None = None
    # The generation to search; 0 is the one that is live.
    generation: int = 0

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The rankings it needs."""
        return tuple(Branch) if self.mode is Mode.HYBRID else (Branch(self.mode.value),)

    @property
    def reranked(self) -> int:
        """How many candidates are reranked."""
        asked = self.rerank.candidates if self.rerank else 0
        return max(_RERANKED, self.top_k) if asked is None else asked

    @property
    def candidates(self) -> int:
        """How many candidates each branch gives."""
        return max(CANDIDATES, 2 * self.top_k, self.reranked)


@dataclass(frozen=True, slots=True)
class QueryVectors:
    """The query as each branch is asked with it; None for a branch not needed, or by which nothing can be found."""

    dense: Sequence[float] | None
    sparse: SparseVector | None


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage's name, the seconds it took and the candidates it left, best first."""

    name: str
    seconds: float
    ranking: Ranking


@dataclass(frozen=True, slots=True)
class Result:
    """A chunk and its score."""

    chunk: Chunk
    score: float


@dataclass(frozen=True, slots=True)
class Ahead:
    """What the terms alone found, and what of it was live, before there was a dense vector."""

    ranking: Ranking
    live: Live


@dataclass(slots=True, kw_only=True)
class Trace:
    """What a search has done so far: its stages in order, and the chunks it has read by point id.

    `dead` are the versions it met that may not be shown.
    """

    search: Search
    scope: Scope
    generation: Generation
    vectors: QueryVectors
    stages: list[Stage] = field(default_factory=list)
    chunks: dict[str, Chunk] = field(default_factory=dict)
    dead: set[DocumentVersion] = field(default_factory=set)
    ahead: Ahead | None = None

    @property
    def model(self) -> str:
        """The model of the index it searches."""
        return self.generation.model

    @property
    def ranking(self) -> Ranking:
        """What the last stage left."""
        return self.stages[-1].ranking

    @property
    def nearest_similarity(self) -> float | None:
        """The highest cosine of a candidate; None without a dense branch, or where it found nothing."""
        dense = (stage.ranking for stage in self.stages if stage.name == Branch.DENSE.value)
        return next((ranking[0].score for ranking in dense if ranking), None)

    @property
    def is_cut(self) -> bool:
        """Whether there may be candidates beyond those that the branches gave."""
        rankings = (stage.ranking for stage in self.stages if stage.name in _BRANCHES)
        return any(len(ranking) >= self.search.candidates for ranking in rankings)

    def results(self) -> list[Result]:
        """The chunks of the last stage."""
        return [Result(self.chunks[hit.point_id], hit.score) for hit in self.ranking]
