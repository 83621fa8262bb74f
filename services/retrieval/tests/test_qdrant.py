"""What the server's adapter sends, which its local engine does not show."""

from types import SimpleNamespace

import pytest
from loremesh_kit.filters import And, Comparison, Exists, Membership, Not, Or
from loremesh_retrieval.adapters import qdrant_requests
from loremesh_retrieval.adapters.qdrant import QdrantIndex
from loremesh_retrieval.domain.chunks import SparseVector
from loremesh_retrieval.domain.queries import chunks_of
from loremesh_retrieval.domain.scope import Scope
from loremesh_retrieval.domain.search import QueryVectors
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

pytestmark = pytest.mark.unit

SCOPE = Scope("acme", "default")
EVERY_KIND = And(
    (
        Or((Comparison("eq", "k", "v"), Comparison("ne", "k", 1.0), Exists("k"))),
        Not(Membership("in", "k", ("a", True))),
        Membership("nin", "k", (2.0,)),
        Comparison("gt", "k", 3.5),
        Comparison("lte", "k", "2024-01-01"),
    )
)


def test_every_condition_means_the_same_over_grpc():
    where = qdrant_requests.where(
        chunks_of(
            SCOPE,
            filter_=EVERY_KIND,
            point_ids=[SCOPE.point_id("a")],
            document_id="d",
            version=2,
            before_version=3,
        )
    )
    assert plain(GrpcToRest.convert_filter(RestToGrpc.convert_filter(where))) == plain(where)


def plain(value):
    """Without what is empty or unset."""
    if isinstance(value, list):
        return [plain(element) for element in value]
    if hasattr(value, "model_dump"):
        pairs = ((name, plain(getattr(value, name))) for name in type(value).model_fields)
        return {name: inner for name, inner in pairs if inner not in (None, [])}
    return value


def test_term_statistics_are_asked_for_over_the_scope_alone():
    scope = qdrant_requests.where(chunks_of(SCOPE))
    vectors = QueryVectors(None, SparseVector([1], [1.0]))
    (asked,) = qdrant_requests.rankings(vectors, limit=5, seen=scope, corpus=scope).values()
    sent = RestToGrpc.convert_query_request(asked, "collection")
    assert plain(GrpcToRest.convert_filter(sent.params.idf.corpus)) == plain(scope)


@pytest.mark.parametrize(("version", "fit"), [("1.18.2", False), ("1.19.0", True), ("1.20.1-dev", True), ("2.0", True)])
async def test_a_server_too_old_for_that_does_not_count_as_serving(version, fit):
    async def info():
        return SimpleNamespace(version=version)

    index = QdrantIndex(client=SimpleNamespace(info=info))
    if fit:
        await index.ping()
        return
    with pytest.raises(RuntimeError, match=r"1\.19 or newer is needed, not 1\.18\.2"):
        await index.ping()
