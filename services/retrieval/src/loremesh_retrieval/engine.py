"""Searches and explains them: which call follows which."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter

from loremesh_kit import identity

from loremesh_retrieval.domain.chunks import Chunk
from loremesh_retrieval.domain.explanation import Explanation, Subject, explain
from loremesh_retrieval.domain.ranking import Hit, Ranking, fuse, ranked
from loremesh_retrieval.domain.scope import Scope
from loremesh_retrieval.domain.search import Branch, QueryVectors, Rerank, Result, Search, Stage, Trace
from loremesh_retrieval.errors import QueryEmpty
from loremesh_retrieval.ports import ChunkSearch, Embedder, Reranker, VectorStoreDirectory


class SearchEngine:
    """Finds passages: embed the query, rank by each branch, fuse, rerank, cut."""

    def __init__(
        self, *, index: ChunkSearch, embedder: Embedder, reranker: Reranker, vector_stores: VectorStoreDirectory
    ) -> None:
        self._index = index
        self._embedder = embedder
        self._reranker = reranker
        self._vector_stores = vector_stores

    async def search(self, search: Search) -> list[Result]:
        """The best passages; raises QueryEmpty, VectorStoreNotFound, DimensionMismatch, EmbeddingModelUnavailable."""
        trace = await self._begin(search)
        rankings = await self._rank(trace, trace.vectors)
        trace.stages.extend(Stage(branch.value, 0.0, rankings.get(branch, ())) for branch in search.branches)
        return (await self._finish(trace)).results()

    async def explain(self, search: Search, chunk_ids: Iterable[str]) -> tuple[Trace, list[Explanation]]:
        """What each stage did, and what became of the chunks returned and of those asked about; raises as `search`.

        The chunks of all candidates are in the trace.
        """
        trace = await self._begin(search)
        for branch in search.branches:
            started = perf_counter()
            rankings = await self._rank(trace, _only(branch, trace.vectors))
            trace.stages.append(Stage(branch.value, perf_counter() - started, rankings.get(branch, ())))
        await self._finish(trace)
        returned = (result.chunk.chunk_id for result in trace.results())
        subjects = await self._subjects(trace, dict.fromkeys([*returned, *map(str.lower, chunk_ids)]))
        return trace, [explain(trace, subject) for subject in subjects]

    async def _begin(self, search: Search) -> Trace:
        if not search.query.strip():
            raise QueryEmpty
        scope = Scope(tenant=identity.current().tenant, vector_store_id=search.vector_store_id)
        model = await self._vector_stores.embedding_model(scope)
        vectors = await self._embedder.embed(model, search.query, branches=search.branches)
        return Trace(search=search, scope=scope, model=model, vectors=vectors)

    async def _rank(self, trace: Trace, vectors: QueryVectors) -> Mapping[Branch, list[Hit]]:
        if vectors.dense is None and vectors.sparse is None:
            return {}
        search = trace.search
        return await self._index.rank(
            trace.model, trace.scope, vectors, limit=search.candidates, filter_=search.filter_
        )

    async def _finish(self, trace: Trace) -> Trace:
        """Run the stages after the branches, and read the chunks of the last."""
        search = trace.search
        if len(search.branches) > 1:
            started = perf_counter()
            fused = fuse([stage.ranking for stage in trace.stages], search.fusion)
            trace.stages.append(Stage("fusion", perf_counter() - started, fused))
        if search.rerank is not None:
            await self._rerank(trace, search.rerank)
        if search.score_threshold is not None:
            kept = [hit for hit in trace.ranking if hit.score >= search.score_threshold]
            trace.stages.append(Stage("threshold", 0.0, kept))
        started = perf_counter()
        best = trace.ranking[: search.top_k]
        await self._read(trace, best)
        trace.stages.append(Stage("top_k", perf_counter() - started, best))
        return trace

    async def _rerank(self, trace: Trace, rerank: Rerank) -> None:
        started = perf_counter()
        candidates = trace.ranking[: trace.search.reranked]
        await self._read(trace, candidates)
        known = [hit.point_id for hit in candidates if hit.point_id in trace.chunks]
        passages = [_passage(trace.chunks[point_id]) for point_id in known]
        scores = await self._reranker.rerank(rerank.model, trace.search.query, passages) if known else ()
        hits = ranked(map(Hit, known, scores))
        trace.stages.append(Stage("rerank", perf_counter() - started, hits))

    async def _read(self, trace: Trace, ranking: Ranking) -> None:
        if missing := [hit.point_id for hit in ranking if hit.point_id not in trace.chunks]:
            trace.chunks.update(await self._index.fetch(trace.model, trace.scope, missing))

    async def _subjects(self, trace: Trace, chunk_ids: Iterable[str]) -> Sequence[Subject]:
        point_ids = {chunk_id: trace.scope.point_id(chunk_id) for chunk_id in chunk_ids}
        candidates = (hit.point_id for stage in trace.stages for hit in stage.ranking)
        await self._read(trace, [Hit(each, 0.0) for each in dict.fromkeys([*candidates, *point_ids.values()])])
        scores: dict[str, dict[Branch, float]] = {point_id: {} for point_id in point_ids.values()}
        if scores:
            limit, wanted = len(scores), tuple(scores)
            rankings = await self._index.rank(trace.model, trace.scope, trace.vectors, limit=limit, point_ids=wanted)
            for branch, ranking in rankings.items():
                for hit in ranking:
                    scores[hit.point_id][branch] = hit.score
        return [
            Subject(chunk_id, point_id, trace.chunks.get(point_id), scores[point_id])
            for chunk_id, point_id in point_ids.items()
        ]


def _only(branch: Branch, vectors: QueryVectors) -> QueryVectors:
    return replace(vectors, sparse=None) if branch is Branch.DENSE else replace(vectors, dense=None)


def _passage(chunk: Chunk) -> str:
    """What a reranker reads: a passage seldom repeats what its document is about."""
    return f"{chunk.title}\n{chunk.content}" if chunk.title else chunk.content
