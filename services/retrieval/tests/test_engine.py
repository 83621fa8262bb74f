import asyncio

import pytest
from loremesh_kit.filters import Comparison
from loremesh_retrieval.adapters.memory import MemoryIndex
from loremesh_retrieval.adapters.memory_peers import FixedLiveness, FixedStore, HashingEmbedder
from loremesh_retrieval.directory import RememberedGenerations
from loremesh_retrieval.domain.explanation import Outcome
from loremesh_retrieval.domain.ranking import Fusion
from loremesh_retrieval.domain.scope import Scope
from loremesh_retrieval.domain.search import CANDIDATES, Mode, Rerank, Search
from loremesh_retrieval.engine import SearchEngine
from loremesh_retrieval.errors import GenerationChanging, GenerationNotFound, QueryEmpty, VectorStoreNotFound

pytestmark = pytest.mark.unit

SCOPE = Scope("acme", "default")
MODEL = "hashing"
TEXTS = {
    "wing": "the wing of an aircraft gives lift",
    "tail": "the tail of an aircraft keeps it stable",
    "soup": "soup of pumpkin and ginger",
    "bread": "bread of rye",
}


@pytest.fixture
def index():
    return MemoryIndex()


@pytest.fixture
def embedder():
    return HashingEmbedder()


@pytest.fixture
def store():
    return FixedStore(models={1: MODEL}, versions={1: dict.fromkeys(TEXTS, 1)})


@pytest.fixture
def liveness(store):
    return FixedLiveness({("acme", "default"): store})


@pytest.fixture
def engine(index, embedder, liveness, caller):
    return SearchEngine(
        index=index, embedder=embedder, reranker=embedder, liveness=RememberedGenerations(behind=liveness)
    )


@pytest.fixture
async def ids(index, embedder, make_chunk):
    """The texts are indexed; chunk ids by name."""
    chunks = {
        name: make_chunk(
            name,
            dense=embedder.dense(text),
            terms=dict(zip(embedder.sparse(text).indices, embedder.sparse(text).values, strict=True)),
            content=text,
            title="",
            document_id=name,
            attributes={"kind": "food" if name in ("soup", "bread") else "part"},
        )
        for name, text in TEXTS.items()
    }
    await index.upsert(MODEL, embedder.dimension, SCOPE, list(chunks.values()))
    return {name: indexed.chunk.chunk_id for name, indexed in chunks.items()}


def found(results):
    return [result.chunk.document_id for result in results]


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("fusion", Fusion)
async def test_every_mode_finds_the_passage_that_shares_the_words(engine, ids, mode, fusion):
    results = await engine.search(Search(query="aircraft wing lift", mode=mode, fusion=fusion))
    assert found(results)[:2] == ["wing", "tail"]
    assert results[0].chunk.content == TEXTS["wing"]
    assert results[0].score > results[1].score


@pytest.mark.parametrize("mode", Mode)
async def test_a_search_knows_how_near_the_nearest_passage_is_unless_only_words_were_compared(engine, ids, mode):
    trace = await engine.trace(Search(query="aircraft wing lift", mode=mode))
    if mode is Mode.SPARSE:
        assert trace.nearest_similarity is None
    else:
        dense = await engine.search(Search(query="aircraft wing lift", mode=Mode.DENSE))
        assert trace.nearest_similarity == dense[0].score


async def test_sparse_search_returns_only_what_shares_a_word(engine, ids):
    assert found(await engine.search(Search(query="ginger", mode=Mode.SPARSE))) == ["soup"]
    assert await engine.search(Search(query="zebra", mode=Mode.SPARSE)) == []


async def test_top_k_bounds_the_results(engine, ids):
    assert len(await engine.search(Search(query="of", top_k=3))) == 3


async def test_the_filter_is_true_for_every_result(engine, ids):
    results = await engine.search(Search(query="of an aircraft", filter_=Comparison("eq", "kind", "food")))
    assert sorted(found(results)) == ["bread", "soup"]


async def test_the_threshold_is_on_the_score_that_is_returned(engine, ids):
    everything = await engine.search(Search(query="aircraft wing"))
    second = everything[1].score
    assert found(await engine.search(Search(query="aircraft wing", score_threshold=second))) == found(everything[:2])


async def test_reranking_orders_anew_and_gives_its_own_scores(engine, ids):
    plain = await engine.search(Search(query="stable aircraft"))
    reranked = await engine.search(Search(query="stable aircraft", rerank=Rerank(), top_k=2))
    assert found(plain)[0] == found(reranked)[0] == "tail"
    assert [result.score for result in reranked] == [1.0, 0.5]


async def test_only_the_best_candidates_are_reranked(engine, ids):
    results = await engine.search(Search(query="stable aircraft", rerank=Rerank(candidates=1)))
    assert found(results) == ["tail"]


async def test_reranking_nothing_is_nothing(engine, ids):
    assert await engine.search(Search(query="zebra", mode=Mode.SPARSE, rerank=Rerank())) == []


@pytest.mark.parametrize("query", ["", " \n", "\u3000"])
async def test_an_empty_query_is_refused(engine, ids, query):
    with pytest.raises(QueryEmpty):
        await engine.search(Search(query=query))


async def test_an_unknown_vector_store_is_refused(engine, ids):
    with pytest.raises(VectorStoreNotFound):
        await engine.search(Search(query="x", vector_store_id="nowhere"))


async def test_a_store_nothing_was_written_to_gives_nothing(engine):
    assert await engine.search(Search(query="wing")) == []
    trace, explanations = await engine.explain(Search(query="wing"), ["a"])
    assert [stage.name for stage in trace.stages] == ["dense", "sparse", "fusion", "top_k"]
    assert [each.outcome for each in explanations] == [Outcome.NOT_INDEXED]


async def test_a_chunk_deleted_during_the_search_gives_way_to_the_next(engine, index, ids):
    class Deleting(MemoryIndex):
        async def rank(self, *args, **kwargs):
            rankings = await index.rank(*args, **kwargs)
            await index.delete(MODEL, SCOPE, document_id="wing")
            return rankings

        async def fetch(self, *args):
            return await index.fetch(*args)

    engine._index = Deleting()
    assert found(await engine.search(Search(query="aircraft wing", top_k=2))) == ["tail", "soup"]


async def test_searches_at_once_do_not_meet(engine, ids):
    queries = {"wing lift": "wing", "tail stable": "tail", "ginger soup": "soup", "rye bread": "bread"}
    async with asyncio.TaskGroup() as group:
        tasks = {name: group.create_task(engine.search(Search(query=query))) for query, name in queries.items()}
    assert {name: found(task.result())[0] for name, task in tasks.items()} == {name: name for name in tasks}


async def explained(engine, search, *chunk_ids):
    trace, explanations = await engine.explain(search, chunk_ids)
    return trace, {each.chunk_id: each for each in explanations}


async def test_explaining_gives_the_same_results_as_searching(engine, ids):
    search = Search(query="aircraft wing", top_k=2, score_threshold=0.1, rerank=Rerank())
    trace, _ = await explained(engine, search)
    assert trace.results() == await engine.search(search)
    assert [stage.name for stage in trace.stages] == ["dense", "sparse", "fusion", "rerank", "threshold", "top_k"]
    assert all(stage.seconds >= 0 for stage in trace.stages)


async def test_a_returned_chunk_is_explained_unasked(engine, ids):
    _, chunks = await explained(engine, Search(query="wing lift", top_k=1))
    (wing,) = chunks.values()
    assert (wing.chunk_id, wing.outcome) == (ids["wing"], Outcome.RETURNED)
    assert wing.reason.startswith("Place 1 of the 1 returned, with ")
    assert {each.stage: each.rank for each in wing.standings} == {"dense": 1, "sparse": 1, "fusion": 1, "top_k": 1}


async def test_a_chunk_below_top_k_is_told_its_place_and_the_score_to_beat(engine, ids):
    trace, chunks = await explained(engine, Search(query="aircraft wing", top_k=1), ids["tail"])
    tail, fusion = chunks[ids["tail"]], trace.stages[2].ranking
    assert tail.outcome is Outcome.BELOW_TOP_K
    assert tail.reason == (
        f"Place 2 of fusion with {fusion[1].score:.4g}; top_k is 1, and place 1 has {fusion[0].score:.4g}."
    )


async def test_a_chunk_below_the_threshold_is_told_so(engine, ids):
    _, chunks = await explained(engine, Search(query="ginger", mode=Mode.DENSE, score_threshold=0.2), ids["bread"])
    assert chunks[ids["bread"]].outcome is Outcome.BELOW_THRESHOLD
    assert chunks[ids["bread"]].reason.endswith("score_threshold is 0.2.")


async def test_a_chunk_not_among_the_reranked_is_told_so(engine, ids):
    search = Search(query="stable aircraft", rerank=Rerank(candidates=1))
    _, chunks = await explained(engine, search, ids["wing"])
    assert chunks[ids["wing"]].outcome is Outcome.BELOW_TOP_K
    assert chunks[ids["wing"]].reason.endswith("only the best 1 are reranked.")


async def test_a_filtered_chunk_is_told_so_with_the_score_it_would_have(engine, ids):
    search = Search(query="aircraft wing", filter_=Comparison("eq", "kind", "food"))
    _, chunks = await explained(engine, search, ids["wing"])
    wing = chunks[ids["wing"]]
    assert wing.outcome is Outcome.FILTERED_OUT
    assert {each.stage: each.rank for each in wing.standings} == {"dense": 0, "sparse": 0}
    assert all(each.score > 0 for each in wing.standings)


async def test_a_chunk_that_was_no_candidate_is_told_what_it_lacked(engine, index, embedder, ids, make_chunk, store):
    store.versions[1]["c"] = 1
    crowd = [
        make_chunk(f"c{n}", dense=embedder.dense("wing lift"), terms={}, document_id="c") for n in range(CANDIDATES)
    ]
    await index.upsert(MODEL, embedder.dimension, SCOPE, crowd)
    _, chunks = await explained(engine, Search(query="wing lift", mode=Mode.DENSE), ids["soup"])
    soup = chunks[ids["soup"]]
    assert soup.outcome is Outcome.NOT_A_CANDIDATE
    assert soup.reason == f"dense: 0, while the last of {CANDIDATES} candidates has 1."
    assert [(each.stage, each.rank) for each in soup.standings] == [("dense", 0)]
    _, chunks = await explained(engine, Search(query="wing lift", mode=Mode.SPARSE), ids["soup"])
    assert chunks[ids["soup"]].reason == "sparse: it shares no term with the query."


async def test_a_chunk_asked_about_twice_or_returned_is_explained_once(engine, ids):
    _, explanations = await engine.explain(Search(query="wing lift"), [ids["wing"], ids["wing"].upper(), "x"])
    assert len(explanations) == len(TEXTS) + 1
    assert [each.chunk_id for each in explanations if each.outcome is Outcome.NOT_INDEXED] == ["x"]


async def fill(index, embedder, make_chunk, text, *, name, scope=SCOPE, version=1, chunks=1, model=MODEL):
    """Chunks of one version of the document `name`, all alike."""
    sparse = embedder.sparse(text)
    terms = dict(zip(sparse.indices, sparse.values, strict=True))
    written = [
        make_chunk(
            f"{name}/{version}/{number}",
            dense=embedder.dense(text),
            terms=terms,
            title="",
            content=text,
            document_id=name,
            version=version,
        )
        for number in range(chunks)
    ]
    await index.upsert(model, embedder.dimension, scope, written)
    return [each.chunk.chunk_id for each in written]


async def test_a_deleted_document_is_not_found_though_the_index_holds_it(engine, ids, store):
    del store.versions[1]["wing"]
    assert found(await engine.search(Search(query="aircraft wing", top_k=2)))[0] == "tail"
    _, chunks = await explained(engine, Search(query="aircraft wing", top_k=2), ids["wing"])
    assert chunks[ids["wing"]].outcome is Outcome.NOT_LIVE
    assert chunks[ids["wing"]].reason == "Not live: searches may not show version 1 of document 'wing' now."


async def test_of_two_versions_in_the_index_only_the_live_one_is_found(engine, index, embedder, ids, store, make_chunk):
    await fill(index, embedder, make_chunk, "an aircraft wing, improved", name="wing", version=2)
    for live in (1, 2):
        store.versions[1]["wing"] = live
        results = await engine.search(Search(query="aircraft wing"))
        assert {each.chunk.document_version for each in results if each.chunk.document_id == "wing"} == {live}


async def test_a_version_that_is_not_published_yet_is_not_found(engine, index, embedder, ids, make_chunk):
    await fill(index, embedder, make_chunk, "aircraft wing", name="draft")
    assert "draft" not in found(await engine.search(Search(query="aircraft wing")))


@pytest.mark.parametrize("rerank", [None, Rerank(), Rerank(candidates=2)])
async def test_the_next_in_rank_take_the_place_of_the_dead(engine, index, embedder, ids, make_chunk, rerank):
    await fill(index, embedder, make_chunk, "aircraft wing lift", name="dead", chunks=10)
    results = await engine.search(Search(query="aircraft wing lift", top_k=2, rerank=rerank))
    assert found(results) == ["wing", "tail"]


async def test_dead_chunks_that_fill_every_candidate_list_are_sought_past(engine, index, embedder, ids, make_chunk):
    for name in ("dead", "gone"):
        await fill(index, embedder, make_chunk, "aircraft wing lift", name=name, chunks=120)
    assert found(await engine.search(Search(query="aircraft wing lift", top_k=2))) == ["wing", "tail"]


async def test_a_document_deleted_while_the_best_are_reranked_is_not_returned(engine, embedder, ids, store):
    class Slow(HashingEmbedder):
        async def rerank(self, *args):
            del store.versions[1]["tail"]
            return await super().rerank(*args)

    engine._reranker = Slow()
    assert found(await engine.search(Search(query="stable aircraft", rerank=Rerank(), top_k=1))) == ["wing"]


async def test_what_the_terms_did_not_find_is_asked_about_together_with_what_they_did(engine, ids, store, liveness):
    resolve = liveness.resolve

    async def deleting(vector_store_id, **asked):
        live = await resolve(vector_store_id, **asked)
        if "soup" in asked["document_ids"]:
            store.versions[1].pop("soup", None)
        return live

    liveness.resolve = deleting
    assert sorted(found(await engine.search(Search(query="ginger", top_k=4)))) == ["bread", "tail", "wing"]


async def test_only_a_lone_search_looks_ahead(engine, ids, embedder):
    embed, asked = embedder.embed, []

    async def noting(model, query, *, branches):
        asked.append((query, len(branches)))
        await asyncio.sleep(0)
        return await embed(model, query, branches=branches)

    embedder.embed = noting
    async with asyncio.TaskGroup() as group:
        group.create_task(engine.search(Search(query="wing")))
        group.create_task(engine.search(Search(query="soup")))
    assert sorted(asked) == [("soup", 2), ("wing", 1), ("wing", 1)]


async def test_one_question_is_asked_for_a_search_that_meets_nothing_dead(engine, ids, liveness):
    asked = []
    resolve = liveness.resolve

    async def counting(vector_store_id, **what):
        asked.append(what)
        return await resolve(vector_store_id, **what)

    liveness.resolve = counting
    await engine.search(Search(query="aircraft wing", top_k=2))
    asked.clear()
    await engine.search(Search(query="aircraft wing", top_k=2))
    assert [list(each["document_ids"]) for each in asked] == [["tail", "wing"]]


@pytest.fixture
async def second(index, embedder, ids, store, make_chunk):
    """Another generation, by another model, of one document only."""
    store.models[2] = "newer"
    store.versions[2] = {"wing": 4}
    scope = Scope("acme", "default", 2)
    return await fill(index, embedder, make_chunk, "the new wing", name="wing", scope=scope, version=4, model="newer")


async def test_a_generation_can_be_searched_before_it_is_live(engine, second):
    results = await engine.search(Search(query="wing", generation=2))
    assert [result.chunk.chunk_id for result in results] == second
    assert len(await engine.search(Search(query="wing"))) == len(TEXTS)
    with pytest.raises(GenerationNotFound):
        await engine.search(Search(query="wing", generation=3))


async def test_a_switch_is_seen_by_the_next_search(engine, second, store):
    await engine.search(Search(query="wing"))
    store.live = 2
    assert [result.chunk.chunk_id for result in await engine.search(Search(query="wing"))] == second
    store.live = 1
    assert len(await engine.search(Search(query="wing"))) == len(TEXTS)


async def test_a_switch_during_a_search_begins_it_anew(engine, index, second, store):
    class Switching(MemoryIndex):
        async def rank(self, *args, **kwargs):
            rankings = await index.rank(*args, **kwargs)
            store.live = 2
            return rankings

        async def fetch(self, *args):
            return await index.fetch(*args)

    engine._index = Switching()
    assert [result.chunk.chunk_id for result in await engine.search(Search(query="wing"))] == second


async def test_a_search_gives_up_on_a_store_that_is_switched_without_end(engine, index, second, store):
    class Flapping(MemoryIndex):
        async def rank(self, *args, **kwargs):
            store.live = 3 - store.live
            return await index.rank(*args, **kwargs)

        async def fetch(self, *args):
            return await index.fetch(*args)

    engine._index = Flapping()
    with pytest.raises(GenerationChanging):
        await engine.search(Search(query="wing"))
