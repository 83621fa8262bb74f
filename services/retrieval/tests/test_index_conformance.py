"""What every engine must do; memory is the oracle."""

import os
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loremesh_kit.filters import And, Comparison, Exists, Membership, Not, Or, matches
from loremesh_retrieval.adapters.edge import EdgeIndex
from loremesh_retrieval.adapters.memory import MemoryIndex
from loremesh_retrieval.adapters.qdrant import QdrantIndex
from loremesh_retrieval.domain.attributes import comparable
from loremesh_retrieval.domain.chunks import DocumentVersion, SparseVector
from loremesh_retrieval.domain.scope import Scope
from loremesh_retrieval.domain.search import Branch, QueryVectors
from loremesh_retrieval.errors import DimensionMismatch
from loremesh_retrieval.ports import Index
from qdrant_client import AsyncQdrantClient

pytestmark = [
    pytest.mark.conformance,
    pytest.mark.asyncio(loop_scope="module"),
    # The client's own local engine says that it searches without payload indexes.
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect"),
]

ENGINES = ["memory", "edge", "qdrant"]
X, Y = (1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0)
# Unit vectors whose cosines are exact in any precision, so that ties are ties on every engine.
EXACT = [
    *(tuple(sign if axis == at else 0.0 for axis in range(4)) for at in range(4) for sign in (1.0, -1.0)),
    *((a / 2, b / 2, c / 2, 0.5) for a in (1, -1) for b in (1, -1) for c in (1, -1)),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engines(tmp_path_factory) -> AsyncIterator[dict[str, Index]]:
    async with AsyncExitStack() as stack:
        edge = await stack.enter_async_context(EdgeIndex.open(tmp_path_factory.mktemp("edge")))
        yield {"memory": MemoryIndex(), "edge": edge, "qdrant": await stack.enter_async_context(_qdrant())}


def _qdrant():
    if url := os.environ.get("QDRANT_URL"):
        port = int(os.environ.get("QDRANT_GRPC_PORT", "6334"))
        return QdrantIndex.open(url, grpc_port=port, api_key=os.environ.get("QDRANT_API_KEY", ""))
    return _LocalQdrant()


class _LocalQdrant(AsyncExitStack):
    async def __aenter__(self):
        client = AsyncQdrantClient(":memory:")
        self.push_async_callback(client.close)
        return QdrantIndex(client=client)


@pytest.fixture(params=ENGINES)
def index(request, engines) -> Index:
    return engines[request.param]


@pytest.fixture(scope="module")
def model():
    return f"test/model-{uuid.uuid4()}"


@pytest.fixture
def scope():
    return Scope(tenant=f"tenant-{uuid.uuid4()}", vector_store_id="default")


async def dense(index, model, scope, vector=X, **options):
    rankings = await index.rank(model, scope, QueryVectors(vector, None), **{"limit": 10, **options})
    return rankings.get(Branch.DENSE, [])


async def sparse(index, model, scope, *terms, **options):
    vector = SparseVector(terms, [1.0] * len(terms))
    rankings = await index.rank(model, scope, QueryVectors(None, vector), **{"limit": 10, **options})
    return rankings.get(Branch.SPARSE, [])


async def test_a_chunk_is_found_as_soon_as_it_is_written(index, model, scope, make_chunk):
    written = make_chunk(dense=X, terms={1: 0.5})
    await index.upsert(model, 4, scope, [written])
    (hit,) = await dense(index, model, scope)
    assert hit.score == pytest.approx(1.0)
    assert (await sparse(index, model, scope, 1))[0].point_id == hit.point_id
    assert hit.point_id == scope.point_id(written.chunk.chunk_id)


async def test_a_chunk_comes_back_as_it_was_written(index, model, scope, make_chunk):
    attributes = {
        'quoted "key".with[0] ส': ["a", 1.0, True, None],
        "deep": {"er": [1.0, {"still": None}]},
        "empty": [],
        "null": None,
        "": "x",
    }
    written = make_chunk(
        attributes=attributes,
        content="ก 🙂\x00 " * 50,
        title="ชื่อ",
        page=7,
        start_char=2**40,
        end_char=2**40 + 5,
        heading_path=["One", "Two"],
        version=3,
    )
    await index.upsert(model, 4, scope, [written])
    point_id = scope.point_id(written.chunk.chunk_id)
    assert await index.fetch(model, scope, [point_id]) == {point_id: written.chunk}


async def test_a_ranking_by_terms_is_the_sparse_one_with_versions(index, model, scope, make_chunk):
    chunks = [
        make_chunk(name, terms={1: weight}, version=number, attributes={"odd": bool(number % 2)})
        for number, (name, weight) in enumerate(zip("abcdef", (0.5, 3.0, 1.0, 2.0, 0.25, 1.0), strict=True), start=1)
    ]
    await index.upsert(model, 4, scope, chunks)
    of = {scope.point_id(each.chunk.chunk_id): each.chunk.of for each in chunks}
    for filter_ in (None, Comparison("eq", "odd", True)):
        ranking = await sparse(index, model, scope, 1, filter_=filter_)
        found = await index.rank_terms(model, scope, SparseVector([1], [1.0]), limit=2, filter_=filter_)
        assert list(found.items()) == [(hit, of[hit.point_id]) for hit in ranking[:2]]


async def test_writing_again_replaces(index, model, scope, make_chunk):
    await index.upsert(model, 4, scope, [make_chunk(dense=X, terms={1: 1.0})])
    await index.upsert(model, 4, scope, [make_chunk(dense=Y, terms={2: 1.0})])
    assert await index.count(model, scope) == 1
    assert [hit.score for hit in await dense(index, model, scope, X)] == [pytest.approx(0.0)]
    assert await sparse(index, model, scope, 1) == []
    assert len(await sparse(index, model, scope, 2)) == 1


async def test_a_chunk_without_terms_is_found_by_its_dense_vector_only(index, model, scope, make_chunk):
    await index.upsert(model, 4, scope, [make_chunk(terms={})])
    assert len(await dense(index, model, scope)) == 1
    assert await sparse(index, model, scope, 1) == []


async def test_a_rewritten_chunk_loses_the_terms_it_no_longer_has(index, model, scope, make_chunk):
    await index.upsert(model, 4, scope, [make_chunk(terms={1: 1.0})])
    await index.upsert(model, 4, scope, [make_chunk(terms={})])
    assert await sparse(index, model, scope, 1) == []


async def test_a_model_nothing_was_written_for_has_nothing(index, scope):
    model = f"unknown-{uuid.uuid4()}"
    assert await dense(index, model, scope) == []
    assert await index.fetch(model, scope, [scope.point_id("a")]) == {}
    assert await index.rank_terms(model, scope, SparseVector([1], [1.0]), limit=9) == {}
    assert await index.count(model, scope) == 0
    assert await index.delete(model, scope) == 0
    await index.describe(model, scope, document_id="d", title="t", attributes={})


async def test_vectors_of_another_length_are_refused(index, model, scope, make_chunk):
    await index.upsert(model, 4, scope, [make_chunk()])
    with pytest.raises(DimensionMismatch) as refused:
        await index.upsert(model, 3, scope, [make_chunk(dense=(1.0, 0.0, 0.0))])
    assert refused.value.metadata == {"model": model, "expected": "4", "actual": "3"}
    with pytest.raises(DimensionMismatch):
        await dense(index, model, scope, (1.0, 0.0))


async def test_models_have_indexes_of_their_own(index, model, scope, make_chunk):
    other = f"{model}-other"
    await index.upsert(model, 4, scope, [make_chunk()])
    await index.upsert(other, 2, scope, [make_chunk("b", dense=(1.0, 0.0))])
    assert len(await dense(index, other, scope, (1.0, 0.0))) == 1
    assert await index.delete(other, scope) == 1
    assert await index.count(model, scope) == 1


async def test_tenants_with_the_same_ids_never_meet(index, model, scope, make_chunk):
    rival = Scope(tenant=f"{scope.tenant}-rival", vector_store_id=scope.vector_store_id)
    await index.upsert(model, 4, scope, [make_chunk(content="ours")])
    await index.upsert(model, 4, rival, [make_chunk(content="theirs")])
    ours, theirs = (each.point_id(make_chunk().chunk.chunk_id) for each in (scope, rival))
    assert [hit.point_id for hit in await dense(index, model, scope)] == [ours]
    assert (await index.fetch(model, scope, [ours, theirs])).keys() == {ours}
    assert [hit.point_id for hit in await index.rank_terms(model, scope, SparseVector([1], [1.0]), limit=9)] == [ours]
    assert (await index.fetch(model, scope, [ours]))[ours].content == "ours"
    assert await dense(index, model, scope, point_ids=[theirs]) == []
    await index.describe(model, scope, document_id="d", title="renamed", attributes={"a": 1.0})
    assert (await index.fetch(model, rival, [theirs]))[theirs].title == "a title"
    assert await index.delete(model, scope) == 1
    assert await index.count(model, rival) == 1


async def test_vector_stores_of_a_tenant_never_meet(index, model, scope, make_chunk):
    other = Scope(tenant=scope.tenant, vector_store_id="other")
    await index.upsert(model, 4, scope, [make_chunk(content="one")])
    await index.upsert(model, 4, other, [make_chunk(content="other")])
    assert len(await dense(index, model, scope)) == 1
    assert await index.delete(model, other, document_id="d") == 1
    assert await index.count(model, scope) == 1


async def test_another_tenants_documents_do_not_show_in_scores(index, model, scope, make_chunk):
    await index.upsert(model, 4, scope, [make_chunk("a", terms={1: 1.0}), make_chunk("b", terms={2: 1.0})])
    before = await sparse(index, model, scope, 1, 2)
    rival = Scope(tenant=f"{scope.tenant}-rival", vector_store_id=scope.vector_store_id)
    await index.upsert(model, 4, rival, [make_chunk(str(number), terms={1: 1.0}) for number in range(20)])
    assert await sparse(index, model, scope, 1, 2) == before


async def test_deleted_chunks_do_not_show_in_scores(index, model, scope, make_chunk):
    await index.upsert(model, 4, scope, [make_chunk("a", terms={1: 1.0}), make_chunk("b", terms={2: 1.0})])
    before = await sparse(index, model, scope, 1)
    await index.upsert(model, 4, scope, [make_chunk(f"x{n}", terms={1: 1.0}, document_id="x") for n in range(20)])
    assert await index.delete(model, scope, document_id="x") == 20
    assert await sparse(index, model, scope, 1) == before


async def test_counts_and_deletes_go_by_document_and_version(index, model, scope, make_chunk):
    versions = {"a": [1, 1, 2, 3], "b": [1, 2]}
    for document_id, each in versions.items():
        chunks = [
            make_chunk(f"{document_id}{n}", document_id=document_id, version=version) for n, version in enumerate(each)
        ]
        await index.upsert(model, 4, scope, chunks)
    assert await index.count(model, scope) == 6
    assert await index.count(model, scope, document_id="a") == 4
    assert await index.count(model, scope, document_id="a", version=1) == 2
    assert await index.count(model, scope, version=2) == 2
    assert await index.delete(model, scope, document_id="a", before_version=3) == 3
    assert await index.delete(model, scope, document_id="a", before_version=3) == 0
    assert await index.count(model, scope) == 3
    assert await index.delete(model, scope, before_version=2) == 1
    assert await index.delete(model, scope) == 2
    assert await dense(index, model, scope) == []


async def test_many_chunks_are_deleted_and_described_whole(index, model, scope, make_chunk):
    for start in range(0, 1200, 400):
        await index.upsert(model, 4, scope, [make_chunk(str(number)) for number in range(start, start + 400)])
    await index.describe(model, scope, document_id="d", title="t", attributes={"n": 1.0})
    found = await dense(index, model, scope, limit=1200, filter_=Comparison("eq", "n", 1.0))
    assert len(found) == 1200
    assert await index.delete(model, scope, document_id="d") == 1200


async def test_describing_replaces_title_and_attributes_and_nothing_else(index, model, scope, make_chunk):
    chunks = [make_chunk("a", attributes={"old": 1.0, "n": 1.0}), make_chunk("b", document_id="other")]
    await index.upsert(model, 4, scope, chunks)
    await index.describe(model, scope, document_id="d", title="new", attributes={"n": 2.0, "lang": ["th"]})
    point_id = scope.point_id(chunks[0].chunk.chunk_id)
    chunk = (await index.fetch(model, scope, [point_id]))[point_id]
    assert (chunk.title, chunk.attributes) == ("new", {"n": 2.0, "lang": ["th"]})
    assert chunk.content == chunks[0].chunk.content
    for filter_, count in [
        (Exists("old"), 0),
        (Comparison("gt", "n", 1.5), 1),
        (Comparison("lt", "n", 1.5), 0),
        (Comparison("eq", "lang", "th"), 1),
    ]:
        assert len(await dense(index, model, scope, filter_=filter_)) == count


async def test_generations_of_a_vector_store_never_meet(index, model, scope, make_chunk):
    later = Scope(tenant=scope.tenant, vector_store_id=scope.vector_store_id, generation=2)
    await index.upsert(model, 4, scope, [make_chunk(content="one")])
    await index.upsert(model, 4, later, [make_chunk(content="two"), make_chunk("b")])
    (hit,) = await dense(index, model, scope)
    assert (await index.fetch(model, scope, [hit.point_id]))[hit.point_id].content == "one"
    assert len(await dense(index, model, later)) == 2
    assert await index.delete(model, later, document_id="d") == 2
    assert await index.count(model, scope) == 1


async def test_excluded_versions_are_not_ranked(index, model, scope, make_chunk):
    chunks = [make_chunk(f"{d}{v}", document_id=d, version=v) for d in "ab" for v in (1, 2)]
    await index.upsert(model, 4, scope, chunks)
    excluded = {DocumentVersion("a", 1), DocumentVersion("b", 2), DocumentVersion("c", 1)}
    expected = {scope.point_id(each.chunk.chunk_id) for each in chunks if each.chunk.of not in excluded}
    assert {hit.point_id for hit in await dense(index, model, scope, excluded=excluded)} == expected
    assert {hit.point_id for hit in await sparse(index, model, scope, 1, excluded=excluded)} == expected


async def test_vectors_are_read_back_by_chunk_id(index, model, scope, make_chunk):
    chunks = [make_chunk("a", dense=(0.6, 0.8, 0.0, 0.0), terms={1: 0.5, 9: 2.0}), make_chunk("b", dense=Y, terms={})]
    await index.upsert(model, 4, scope, chunks)
    rival = Scope(tenant="rival", vector_store_id=scope.vector_store_id)
    wanted = [each.chunk.chunk_id for each in chunks]
    found = await index.vectors(model, scope, [*wanted, str(uuid.uuid4())])
    assert found.keys() == set(wanted)
    for each in chunks:
        vectors = found[each.chunk.chunk_id]
        assert list(vectors.dense) == pytest.approx(list(each.dense))
        assert list(vectors.sparse.indices) == list(each.sparse.indices)
        assert list(vectors.sparse.values) == pytest.approx(list(each.sparse.values))
    assert await index.vectors(model, rival, wanted) == {}
    assert await index.vectors(f"unknown-{uuid.uuid4()}", scope, wanted) == {}


async def test_versions_are_listed_with_their_counts(index, model, scope, make_chunk):
    for start in range(0, 1500, 500):
        chunks = [make_chunk(str(n), document_id=f"d{n % 3}", version=1 + n % 2) for n in range(start, start + 500)]
        await index.upsert(model, 4, scope, chunks)
    counts = Counter()
    async for part in index.versions(model, scope):
        assert len(part) <= 1000
        counts.update(part)
    assert counts == {DocumentVersion(f"d{d}", v): 250 for d in range(3) for v in (1, 2)}
    assert [part async for part in index.versions(f"unknown-{uuid.uuid4()}", scope) if part] == []


async def test_equal_scores_are_ordered_by_point_id(index, model, scope, make_chunk):
    chunks = [make_chunk(str(number)) for number in range(30)]
    await index.upsert(model, 4, scope, chunks)
    expected = sorted(scope.point_id(each.chunk.chunk_id) for each in chunks)
    assert [hit.point_id for hit in await dense(index, model, scope, limit=50)] == expected
    assert [hit.point_id for hit in await sparse(index, model, scope, 1, limit=50)] == expected


async def test_only_the_named_points_are_scored(index, model, scope, make_chunk):
    chunks = [make_chunk("a", dense=X), make_chunk("b", dense=Y)]
    await index.upsert(model, 4, scope, chunks)
    point_id = scope.point_id(chunks[1].chunk.chunk_id)
    hits = await dense(index, model, scope, X, point_ids=[point_id, scope.point_id("absent")])
    assert [(hit.point_id, hit.score) for hit in hits] == [(point_id, 0.0)]
    assert await dense(index, model, scope, point_ids=[]) == []


async def test_both_branches_answer_one_call(index, model, scope, make_chunk):
    await index.upsert(model, 4, scope, [make_chunk("a", dense=X, terms={1: 1.0}), make_chunk("b", terms={2: 1.0})])
    rankings = await index.rank(model, scope, QueryVectors(X, SparseVector([1], [1.0])), limit=1)
    assert {branch: len(hits) for branch, hits in rankings.items()} == {Branch.DENSE: 1, Branch.SPARSE: 1}


HELD = {
    "lang": "th",
    "year": 2024.0,
    "zero": -0.0,
    "flag": True,
    "tags": ["a", 5.0, False],
    "empty": [],
    "null": None,
    "day": "2024-05-01T12:00:00+07:00",
    "days": ["2020-01-01", "not a day"],
    'odd."key"[0]': "x",
    "object": {"a": "b"},
}


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        (Comparison("eq", "lang", "th"), True),
        (Comparison("eq", "lang", "TH"), False),
        (Comparison("eq", "year", 2024), True),
        (Comparison("eq", "year", "2024"), False),
        (Comparison("eq", "zero", 0.0), True),
        (Comparison("eq", "flag", True), True),
        (Comparison("eq", "flag", 1.0), False),
        (Comparison("eq", "flag", "true"), False),
        (Comparison("eq", "tags", "a"), True),
        (Comparison("eq", "tags", 5.0), True),
        (Comparison("eq", "tags", False), True),
        (Comparison("eq", "tags", 0.0), False),
        (Comparison("eq", "absent", "x"), False),
        (Comparison("eq", "null", "x"), False),
        (Comparison("eq", "object", "a"), False),
        (Comparison("eq", 'odd."key"[0]', "x"), True),
        (Comparison("ne", "lang", "th"), False),
        (Comparison("ne", "tags", "a"), False),
        (Comparison("ne", "absent", "x"), True),
        (Comparison("ne", "null", "x"), True),
        (Comparison("gt", "year", 2023), True),
        (Comparison("gt", "year", 2024), False),
        (Comparison("gte", "year", 2024), True),
        (Comparison("lt", "year", 2024), False),
        (Comparison("lte", "year", 2024), True),
        (Comparison("gt", "tags", 4.0), True),
        (Comparison("lt", "tags", 1.0), False),
        (Comparison("gt", "flag", 0.0), False),
        (Comparison("gt", "lang", 0.0), False),
        (Comparison("gt", "absent", 0.0), False),
        (Comparison("lte", "day", "2024-05-01T05:00:00Z"), True),
        (Comparison("lt", "day", "2024-05-01T05:00:00Z"), False),
        (Comparison("gt", "days", "2019-12-31T23:59:59.999999Z"), True),
        (Comparison("gt", "year", "1970-01-01"), False),
        (Membership("in", "lang", ("en", "th")), True),
        (Membership("in", "tags", ("z", 5.0)), True),
        (Membership("in", "absent", ("z",)), False),
        (Membership("nin", "lang", ("en", "th")), False),
        (Membership("nin", "absent", ("z",)), True),
        (Exists("lang"), True),
        (Exists("empty"), True),
        (Exists("object"), True),
        (Exists("null"), False),
        (Exists("absent"), False),
        (And((Exists("lang"), Comparison("gt", "year", 2000))), True),
        (And((Exists("lang"), Exists("absent"))), False),
        (Or((Exists("absent"), Comparison("eq", "flag", True))), True),
        (Or((Exists("absent"), Exists("null"))), False),
        (Not(Comparison("gt", "absent", 1.0)), True),
        (Not(Or((Exists("absent"), Exists("lang")))), False),
    ],
    ids=str,
)
async def test_a_filter_means_the_same_everywhere(index, model, scope, make_chunk, filter_, expected):
    assert matches(filter_, comparable(HELD)) is expected
    await index.upsert(model, 4, scope, [make_chunk(attributes=HELD, terms={1: 1.0})])
    assert bool(await dense(index, model, scope, filter_=filter_)) is expected
    assert bool(await sparse(index, model, scope, 1, filter_=filter_)) is expected


keys = st.sampled_from(["k", "a.b", 'q"', "ส"])
scalars = st.one_of(
    st.sampled_from(["x", "", "true", "2024-01-01", "2024-01-01T00:00:00Z", "1"]),
    st.sampled_from([0.0, 1.0, -1.5, 2024.0, 1e300]),
    st.booleans(),
)
ordered = st.sampled_from(["2024-01-01", "2023-12-31T23:59:59Z", 0.0, 1.0, 0.5])
attributes_ = st.dictionaries(keys, st.one_of(scalars, st.none(), st.lists(scalars, max_size=3)), max_size=4)
leaves = st.one_of(
    st.builds(Comparison, op=st.sampled_from(["eq", "ne"]), key=keys, value=scalars),
    st.builds(Comparison, op=st.sampled_from(["gt", "gte", "lt", "lte"]), key=keys, value=ordered),
    st.builds(
        Membership,
        op=st.sampled_from(["in", "nin"]),
        key=keys,
        values=st.lists(scalars, min_size=1, max_size=3).map(tuple),
    ),
    st.builds(Exists, key=keys),
)
filters = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(And, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Not, inner),
    ),
    max_leaves=6,
)
points = st.lists(
    st.tuples(
        st.sampled_from(EXACT),
        st.dictionaries(st.integers(0, 5), st.sampled_from([0.5, 1.0, 2.0]), max_size=3),
        attributes_,
    ),
    min_size=1,
    max_size=12,
)


@given(
    points=points,
    query=st.sampled_from(EXACT),
    terms=st.sets(st.integers(0, 5), min_size=1, max_size=2),
    filter_=st.one_of(st.none(), filters),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_random_searches_rank_the_same_everywhere(engines, model, make_chunk, points, query, terms, filter_):
    scope = Scope(tenant=f"tenant-{uuid.uuid4()}", vector_store_id="default")
    chunks = [
        make_chunk(str(number), dense=vector, terms=weights, attributes=attributes)
        for number, (vector, weights, attributes) in enumerate(points)
    ]
    vectors = QueryVectors(query, SparseVector(sorted(terms), [1.0] * len(terms)))
    rankings = {}
    for name, index in engines.items():
        await index.upsert(model, 4, scope, chunks)
        rankings[name] = await index.rank(model, scope, vectors, limit=50, filter_=filter_)
    for name in ENGINES[1:]:
        for branch, expected in rankings["memory"].items():
            found = rankings[name][branch]
            assert [hit.point_id for hit in found] == [hit.point_id for hit in expected], (name, branch)
            assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected], abs=1e-5)


@given(st.lists(st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4), min_size=2, max_size=30))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_vectors_score_the_same_everywhere(engines, model, make_chunk, vectors):
    scope = Scope(tenant=f"tenant-{uuid.uuid4()}", vector_store_id="default")
    usable = [vector for vector in vectors if sum(value * value for value in vector) > 1e-3]
    if len(usable) < 2:
        return
    query, *stored = usable
    chunks = [make_chunk(str(number), dense=vector) for number, vector in enumerate(stored)]
    scores = {}
    for name, index in engines.items():
        await index.upsert(model, 4, scope, chunks)
        scores[name] = dict(await dense(index, model, scope, query, limit=50))
    for name in ENGINES[1:]:
        assert scores[name] == pytest.approx(scores["memory"], abs=1e-5)
