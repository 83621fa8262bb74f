"""RetrievalService: messages in, searches out."""

from collections.abc import Iterable
from statistics import fmean
from typing import Any

from grpc import aio
from loremesh.retrieval.v1 import retrieval_pb2 as pb
from loremesh.retrieval.v1.retrieval_pb2_grpc import RetrievalServiceServicer
from loremesh_kit import filters
from loremesh_kit.text import clean

from loremesh_retrieval.comparing import Comparing
from loremesh_retrieval.domain.explanation import Explanation, Outcome
from loremesh_retrieval.domain.ranking import Fusion
from loremesh_retrieval.domain.search import (
    DEFAULT_TOP_K,
    DEFAULT_VECTOR_STORE,
    Mode,
    Rerank,
    Result,
    Search,
    Stage,
    Trace,
)
from loremesh_retrieval.engine import SearchEngine

Context = aio.ServicerContext[Any, Any]

_SHOWN_CANDIDATES = 200
_MODES = {pb.SEARCH_MODE_DENSE: Mode.DENSE, pb.SEARCH_MODE_SPARSE: Mode.SPARSE}
_OUTCOMES = {
    Outcome.RETURNED: pb.CHUNK_OUTCOME_RETURNED,
    Outcome.NOT_INDEXED: pb.CHUNK_OUTCOME_NOT_INDEXED,
    Outcome.FILTERED_OUT: pb.CHUNK_OUTCOME_FILTERED_OUT,
    Outcome.NOT_A_CANDIDATE: pb.CHUNK_OUTCOME_NOT_A_CANDIDATE,
    Outcome.BELOW_TOP_K: pb.CHUNK_OUTCOME_BELOW_TOP_K,
    Outcome.BELOW_THRESHOLD: pb.CHUNK_OUTCOME_BELOW_THRESHOLD,
    Outcome.NOT_LIVE: pb.CHUNK_OUTCOME_NOT_LIVE,
}


class RetrievalServicer(RetrievalServiceServicer):
    """Answers searches."""

    def __init__(self, *, engine: SearchEngine) -> None:
        self._engine = engine
        self._comparing = Comparing(engine=engine)

    async def Search(self, request: pb.SearchRequest, context: Context) -> pb.SearchResponse:  # noqa: N802
        """Find the best passages."""
        del context
        search = _search(request)
        trace = await self._engine.trace(search)
        results = _results(trace.results(), search.vector_store_id)
        return pb.SearchResponse(
            results=results,
            nearest_similarity=trace.nearest_similarity,
            vector_store_id=search.vector_store_id,
            generation=trace.generation.number,
        )

    async def ExplainSearch(  # noqa: N802
        self, request: pb.ExplainSearchRequest, context: Context
    ) -> pb.ExplainSearchResponse:
        """Find the best passages and say how."""
        del context
        search = _search(request.search, field="search.filter")
        trace, explanations = await self._engine.explain(search, request.chunk_ids)
        return pb.ExplainSearchResponse(
            results=_results(trace.results(), search.vector_store_id),
            stages=[_stage(stage, trace) for stage in trace.stages],
            chunks=[_explanation(each) for each in explanations],
        )

    async def CompareGenerations(  # noqa: N802
        self, request: pb.CompareGenerationsRequest, context: Context
    ) -> pb.CompareGenerationsResponse:
        """Search twice with each query."""
        del context
        store = request.vector_store_id
        found = await self._comparing.compare(
            [clean(query) for query in request.queries],
            vector_store_id=store,
            generation=request.generation,
            top_k=request.top_k if request.HasField("top_k") else DEFAULT_TOP_K,
        )
        comparisons = [
            pb.Comparison(live=_results(each.live, store), other=_results(each.other, store), overlap=each.overlap)
            for each in found
        ]
        return pb.CompareGenerationsResponse(
            comparisons=comparisons, mean_overlap=fmean(each.overlap for each in comparisons)
        )


def _search(request: pb.SearchRequest, *, field: str = "filter") -> Search:
    options = request.ranking_options
    candidates = options.rerank_candidates if options.HasField("rerank_candidates") else None
    return Search(
        query=clean(request.query),
        vector_store_id=request.vector_store_id or DEFAULT_VECTOR_STORE,
        top_k=request.top_k if request.HasField("top_k") else DEFAULT_TOP_K,
        score_threshold=request.score_threshold if request.HasField("score_threshold") else None,
        filter_=filters.from_proto(request.filter, field=field) if request.HasField("filter") else None,
        mode=_MODES.get(request.mode, Mode.HYBRID),
        fusion=Fusion.RRF if options.fusion == pb.FUSION_RRF else Fusion.DBSF,
        rerank=Rerank(options.rerank_model, candidates) if options.rerank else None,
        generation=request.generation,
    )


def _results(results: Iterable[Result], vector_store_id: str) -> list[pb.SearchResult]:
    return [_result(result, vector_store_id) for result in results]


def _result(result: Result, vector_store_id: str) -> pb.SearchResult:
    chunk = result.chunk
    message = pb.SearchResult(
        document_id=chunk.document_id,
        chunk_id=chunk.chunk_id,
        title=chunk.title,
        content=chunk.content,
        score=result.score,
        page=chunk.page,
        start_char=chunk.start_char,
        end_char=chunk.end_char,
        heading_path=chunk.heading_path,
        document_version=chunk.document_version,
        vector_store_id=vector_store_id,
    )
    message.attributes.update(chunk.attributes)
    return message


def _stage(stage: Stage, trace: Trace) -> pb.SearchStage:
    return pb.SearchStage(
        name=stage.name,
        duration_ms=stage.seconds * 1000,
        candidates=[
            pb.StageCandidate(chunk_id=trace.chunks[hit.point_id].chunk_id, rank=rank, score=hit.score)
            for rank, hit in enumerate(stage.ranking[:_SHOWN_CANDIDATES], start=1)
            if hit.point_id in trace.chunks
        ],
    )


def _explanation(explanation: Explanation) -> pb.ChunkExplanation:
    return pb.ChunkExplanation(
        chunk_id=explanation.chunk_id,
        outcome=_OUTCOMES[explanation.outcome],
        reason=explanation.reason,
        scores=[pb.StageScore(stage=each.stage, rank=each.rank, score=each.score) for each in explanation.standings],
    )
