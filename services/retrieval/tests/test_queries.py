import pytest
from hypothesis import given
from hypothesis import strategies as st
from loremesh_kit.filters import And, Comparison, Exists, Membership, Not, Or
from loremesh_retrieval.domain.conditions import Between, Holds, Never
from loremesh_retrieval.domain.queries import chunks_of
from loremesh_retrieval.domain.scope import Scope

pytestmark = pytest.mark.unit

scalars = st.one_of(st.text(max_size=3), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
leaves = st.one_of(
    st.builds(Comparison, op=st.sampled_from(["eq", "ne"]), key=st.text(min_size=1), value=scalars),
    st.builds(Comparison, op=st.sampled_from(["gt", "lte"]), key=st.text(min_size=1), value=st.floats(-9, 9)),
    st.builds(Membership, op=st.sampled_from(["in", "nin"]), key=st.text(min_size=1), values=st.tuples(scalars)),
    st.builds(Exists, key=st.text(min_size=1)),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(And, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Not, inner),
    ),
)


@given(trees, st.text(max_size=3), st.integers(0, 3))
def test_every_condition_begins_with_tenant_and_vector_store(filter_, document_id, version):
    conditions = chunks_of(Scope("acme", "manuals"), filter_=filter_, document_id=document_id, version=version)
    assert conditions.conditions[0] == Holds("scope", ('["acme", "manuals"]',))


@pytest.mark.parametrize(("tenant", "store"), [("", "default"), ("acme", ""), ("", "")])
def test_there_is_no_scope_without_tenant_and_vector_store(tenant, store):
    with pytest.raises(ValueError, match="needs a tenant"):
        Scope(tenant, store)


def test_points_of_different_scopes_differ_for_the_same_chunk():
    scopes = [Scope("a", "b"), Scope("b", "a"), Scope("a", "c"), Scope("ab", "c"), Scope('a", "b', "c")]
    assert len({scope.point_id("chunk") for scope in scopes}) == len(scopes)
    assert len({scope.key for scope in scopes}) == len(scopes)


def test_a_chunk_id_names_the_same_point_in_either_case():
    assert Scope("a", "b").point_id("ABC") == Scope("a", "b").point_id("abc")


def test_ne_is_the_opposite_of_eq():
    eq, ne = (_filter(Comparison(op, "lang", "th")) for op in ("eq", "ne"))
    assert ne == Never(eq)


def test_order_of_numbers_and_of_times_is_asked_of_different_fields():
    assert _filter(Comparison("gt", "a.b", 3.0)) == Between(field='numbers."a%2Eb"', gt=3.0)
    assert _filter(Comparison("lte", "day", "1970-01-02T00:00:00Z")) == Between(field='times."day"', lte=86_400e6)


def _filter(filter_):
    return chunks_of(Scope("acme", "manuals"), filter_=filter_).conditions[1]
