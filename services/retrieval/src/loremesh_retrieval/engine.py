"""Searches and explains them: which call follows which.

A search is strict: what it returns was live at one instant after it was asked for, all of it in one generation. The
index may hold more, since what is published, superseded or deleted is decided elsewhere; so ingestion is asked about
the versions of what is about to be returned, and what it does not confirm gives way to the next in rank. A search that
is alone asks sooner: while its dense vector is made, about what the terms find, which nearly always is all it returns.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter

from loremesh_kit import identity
from loremesh_kit.errors import ServiceError

from loremesh_retrieval.directory import RememberedGenerations
from loremesh_retrieval.domain.chunks import Chunk, DocumentVersion
from loremesh_retrieval.domain.explanation import Explanation, Subject, explain
from loremesh_retrieval.domain.liveness import Generation, Live
from loremesh_retrieval.domain.ranking import Hit, Ranking, fuse, ranked
from loremesh_retrieval.domain.scope import Scope
from loremesh_retrieval.domain.search import (
    Ahead,
    Branch,
    Mode,
    QueryVectors,
    Rerank,
    Result,
    Search,
    Stage,
    Trace,
)
from loremesh_retrieval.errors import GenerationChanging, QueryEmpty
from loremesh_retrieval.ports import ChunkSearch, Embedder, Reranker

# How often a search begins anew because the live generation is another than the one it searched.
_SWITCHES = 3
# How often candidates are sought because those found were dead.
_ROUNDS = 3


class _SwitchedError(Exception):
    """Another generation is live than the one searched."""

    def __init__(self, generation: Generation) -> None:
        super().__init__(generation)
        self.generation = generation


class SearchEngine:
    """Finds passages: embed the query, rank by each branch, fuse, rerank, keep what is live, cut."""

    def __init__(
        self, *, index: ChunkSearch, embedder: Embedder, reranker: Reranker, liveness: RememberedGenerations
    ) -> None:
        self._index = index
        self._embedder = embedder
        self._reranker = reranker
        self._liveness = liveness
        self._searching = 0

    async def search(self, search: Search) -> list[Result]:
        """The best passages; raises QueryEmpty, VectorStoreNotFound, DimensionMismatch, EmbeddingModelUnavailable.

        Also raises GenerationNotFound and GenerationChanging.
        """
        return (await self.trace(search)).results()

    async def trace(self, search: Search) -> Trace:
        """The same with what led to it."""
        # What is done ahead is done for more than is returned: with other searches waiting it would cost them more.
        self._searching += 1
        try:
            return await self._settled(search, self._rank_at_once, ahead=self._searching == 1)
        finally:
            self._searching -= 1

    async def explain(self, search: Search, chunk_ids: Iterable[str]) -> tuple[Trace, list[Explanation]]:
        """What each stage did, and what became of the chunks returned and of those asked about; raises as `search`.

        The chunks of all candidates are in the trace.
        """
        trace = await self._settled(search, self._rank_one_by_one, ahead=False)
        returned = (result.chunk.chunk_id for result in trace.results())
        subjects = await self._subjects(trace, dict.fromkeys([*returned, *map(str.lower, chunk_ids)]))
        try:
            await self._resolve(trace, [subject.chunk.of for subject in subjects if subject.chunk])
        except _SwitchedError as switched:
            raise GenerationChanging from switched
        return trace, [explain(trace, subject) for subject in subjects]

    async def _settled(self, search: Search, rank: Callable[[Trace], Awaitable[None]], *, ahead: bool) -> Trace:
        """Search, anew if need be, until the generation searched is the live one when the results are."""
        if not search.query.strip():
            raise QueryEmpty
        try:
            generation = await self._generation(search)
            for _ in range(_SWITCHES):
                try:
                    trace = await self._begin(search, generation, ahead=ahead)
                    await self._run(trace, rank)
                except _SwitchedError as switched:
                    generation = switched.generation
                else:
                    return trace
        except ServiceError:
            self._liveness.forget(search.vector_store_id)
            raise
        raise GenerationChanging

    async def _generation(self, search: Search) -> Generation:
        if search.generation:
            live = await self._liveness.resolve(search.vector_store_id, generation=search.generation)
            return live.generation
        return await self._liveness.guess(search.vector_store_id)

    async def _begin(self, search: Search, generation: Generation, *, ahead: bool) -> Trace:
        """Embed the query, and look ahead where that is worth while; raises _SwitchedError."""
        scope = Scope(identity.current().tenant, search.vector_store_id, generation.number)
        if not ahead or search.mode is not Mode.HYBRID or search.rerank is not None:
            vectors = await self._embedder.embed(generation.model, search.query, branches=search.branches)
            return Trace(search=search, scope=scope, generation=generation, vectors=vectors)
        try:
            async with asyncio.TaskGroup() as group:
                embedding = group.create_task(
                    self._embedder.embed(generation.model, search.query, branches=(Branch.DENSE,))
                )
                looking = group.create_task(self._look_ahead(search, scope, generation))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        trace = looking.result()
        trace.vectors = replace(trace.vectors, dense=embedding.result().dense)
        return trace

    async def _look_ahead(self, search: Search, scope: Scope, generation: Generation) -> Trace:
        """Rank by terms alone, and resolve what that finds; raises _SwitchedError."""
        vectors = await self._embedder.embed(generation.model, search.query, branches=(Branch.SPARSE,))
        trace = Trace(search=search, scope=scope, generation=generation, vectors=vectors)
        if vectors.sparse is None:
            return trace
        found = await self._index.rank_terms(
            trace.model, scope, vectors.sparse, limit=search.candidates, filter_=search.filter_
        )
        if found:
            trace.ahead = Ahead(tuple(found), await self._ask(trace, found.values()))
        return trace

    async def _run(self, trace: Trace, rank: Callable[[Trace], Awaitable[None]]) -> None:
        """Run all stages; raises _SwitchedError."""
        search = trace.search
        best = await self._candidates(trace, rank)
        if search.rerank is not None:
            await self._rerank(trace, search.rerank, best)
            _apply_threshold(trace)
            best = await self._live(trace, search.top_k)
        trace.stages.append(best)

    async def _candidates(self, trace: Trace, rank: Callable[[Trace], Awaitable[None]]) -> Stage:
        """The best live candidates, as many as are to be returned or reranked."""
        search = trace.search
        wanted = search.top_k if search.rerank is None else search.reranked
        for _ in range(_ROUNDS):
            trace.stages.clear()
            known = len(trace.dead)
            await rank(trace)
            _fuse(trace)
            if search.rerank is None:
                _apply_threshold(trace)
            best = await self._live(trace, wanted)
            # With the dead out of the way there may be others, unless all there is was seen.
            if len(best.ranking) >= wanted or len(trace.dead) == known or not trace.is_cut:
                break
        return best

    async def _rank_at_once(self, trace: Trace) -> None:
        rankings: Mapping[Branch, Ranking]
        if trace.ahead is None or trace.dead:
            rankings = await self._rank(trace, trace.vectors)
        else:
            nearest = await self._rank(trace, _only(Branch.DENSE, trace.vectors))
            rankings = {**nearest, Branch.SPARSE: trace.ahead.ranking}
        trace.stages.extend(Stage(branch.value, 0.0, rankings.get(branch, ())) for branch in trace.search.branches)

    async def _rank_one_by_one(self, trace: Trace) -> None:
        for branch in trace.search.branches:
            started = perf_counter()
            rankings = await self._rank(trace, _only(branch, trace.vectors))
            trace.stages.append(Stage(branch.value, perf_counter() - started, rankings.get(branch, ())))

    async def _rank(self, trace: Trace, vectors: QueryVectors) -> Mapping[Branch, list[Hit]]:
        if vectors.dense is None and vectors.sparse is None:
            return {}
        search = trace.search
        return await self._index.rank(
            trace.model,
            trace.scope,
            vectors,
            limit=search.candidates,
            filter_=search.filter_,
            excluded=trace.dead,
        )

    async def _live(self, trace: Trace, wanted: int) -> Stage:
        """The best of the last stage that are live, all at the same instant.

        No question where all were live when the search looked ahead, else one, or two when some are not.
        """
        started = perf_counter()
        ranking = trace.ranking
        for considered in (ranking[:wanted], ranking):
            await self._read(trace, considered)
            chunks = {hit: chunk.of for hit in considered if (chunk := trace.chunks.get(hit.point_id))}
            live = set(chunks.values())
            if trace.ahead is None or not all(map(trace.ahead.live.shows, live)):
                live = await self._resolve(trace, live)
            kept = [hit for hit, of in chunks.items() if of in live]
            if len(kept) >= wanted or len(considered) == len(ranking):
                break
        return Stage("top_k", perf_counter() - started, kept[:wanted])

    async def _resolve(self, trace: Trace, versions: Iterable[DocumentVersion]) -> set[DocumentVersion]:
        """Those of the versions that may be shown at this instant; the others are dead. Raises _SwitchedError."""
        asked = set(versions)
        live = await self._ask(trace, asked)
        shown = {each for each in asked if live.shows(each)}
        trace.dead.difference_update(shown)
        trace.dead.update(asked - shown)
        return shown

    async def _ask(self, trace: Trace, versions: Iterable[DocumentVersion]) -> Live:
        """What is live of these versions' documents at this instant; raises _SwitchedError."""
        live = await self._liveness.resolve(
            trace.search.vector_store_id,
            generation=trace.search.generation,
            document_ids=sorted({each.document_id for each in versions}),
        )
        if live.generation != trace.generation:
            raise _SwitchedError(live.generation)
        return live

    async def _rerank(self, trace: Trace, rerank: Rerank, candidates: Stage) -> None:
        started = perf_counter()
        known = [hit.point_id for hit in candidates.ranking]
        passages = [_passage(trace.chunks[point_id]) for point_id in known]
        scores = await self._reranker.rerank(rerank.model, trace.search.query, passages) if known else ()
        hits = ranked(map(Hit, known, scores))
        trace.stages.append(Stage("rerank", candidates.seconds + perf_counter() - started, hits))

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


def _fuse(trace: Trace) -> None:
    if len(trace.stages) > 1:
        started = perf_counter()
        fused = fuse([stage.ranking for stage in trace.stages], trace.search.fusion)
        trace.stages.append(Stage("fusion", perf_counter() - started, fused))


def _apply_threshold(trace: Trace) -> None:
    if (least := trace.search.score_threshold) is not None:
        kept = [hit for hit in trace.ranking if hit.score >= least]
        trace.stages.append(Stage("threshold", 0.0, kept))


def _only(branch: Branch, vectors: QueryVectors) -> QueryVectors:
    return replace(vectors, sparse=None) if branch is Branch.DENSE else replace(vectors, dense=None)


def _passage(chunk: Chunk) -> str:
    """What a reranker reads: a passage seldom repeats what its document is about."""
    return f"{chunk.title}\n{chunk.content}" if chunk.title else chunk.content
