import math

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from loremesh.common.v1 import filter_pb2
from loremesh_kit.errors import FilterInvalid
from loremesh_kit.filters import And, Comparison, Exists, Membership, Not, Or, from_proto, matches

pytestmark = pytest.mark.unit

keys = st.sampled_from(["lang", "year", "draft", "tags", "missing"])
scalars = st.sampled_from(["th", "en", "2024-01-01", 1.0, 2024.0, True, False])
attributes = st.fixed_dictionaries(
    {},
    optional={
        key: st.one_of(scalars, st.lists(scalars, max_size=3), st.none()) for key in ("lang", "year", "draft", "tags")
    },
)
leaves = st.one_of(
    st.builds(Comparison, op=st.sampled_from(["eq", "ne"]), key=keys, value=scalars),
    st.builds(Membership, op=st.sampled_from(["in", "nin"]), key=keys, values=st.tuples(scalars, scalars)),
    st.builds(Exists, key=keys),
)
filters = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(And, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Not, inner),
    ),
    max_leaves=8,
)


def parsed(document):
    return from_proto(json_format.ParseDict(document, filter_pb2.Filter()))


def nested(depth, inner):
    for _ in range(depth):
        inner = {"not": inner}
    return inner


@pytest.mark.parametrize(
    ("document", "holds"),
    [
        ({"eq": {"key": "lang", "value": "th"}}, True),
        ({"eq": {"key": "lang", "value": "en"}}, False),
        ({"ne": {"key": "lang", "value": "en"}}, True),
        ({"ne": {"key": "missing", "value": "en"}}, True),
        ({"eq": {"key": "missing", "value": "en"}}, False),
        ({"eq": {"key": "draft", "value": 1}}, False),
        ({"eq": {"key": "draft", "value": True}}, True),
        ({"gt": {"key": "year", "value": 2023}}, True),
        ({"gt": {"key": "year", "value": 2024}}, False),
        ({"gte": {"key": "year", "value": 2024}}, True),
        ({"lt": {"key": "year", "value": 2025}}, True),
        ({"lte": {"key": "year", "value": 2023.5}}, False),
        ({"gt": {"key": "lang", "value": 1}}, False),
        ({"gte": {"key": "at", "value": "2024-05-01T00:00:00Z"}}, True),
        ({"gte": {"key": "at", "value": "2024-05-01T07:00:00+07:00"}}, True),
        ({"lt": {"key": "at", "value": "2024-05-01"}}, False),
        ({"gt": {"key": "draft", "value": 0}}, False),
        ({"in": {"key": "lang", "values": ["en", "th"]}}, True),
        ({"nin": {"key": "lang", "values": ["en", "th"]}}, False),
        ({"nin": {"key": "missing", "values": ["en"]}}, True),
        ({"eq": {"key": "tags", "value": "b"}}, True),
        ({"in": {"key": "tags", "values": ["z", "a"]}}, True),
        ({"ne": {"key": "tags", "value": "a"}}, False),
        ({"exists": {"key": "lang"}}, True),
        ({"exists": {"key": "nothing"}}, False),
        ({"and": {"filters": [{"exists": {"key": "lang"}}, {"exists": {"key": "missing"}}]}}, False),
        ({"or": {"filters": [{"exists": {"key": "lang"}}, {"exists": {"key": "missing"}}]}}, True),
        ({"not": {"exists": {"key": "missing"}}}, True),
    ],
)
def test_a_filter_holds_or_not(document, holds):
    item = {
        "lang": "th",
        "year": 2024.0,
        "draft": True,
        "tags": ["a", "b"],
        "nothing": None,
        "at": "2024-05-01T00:00:00Z",
    }

    assert matches(parsed(document), item) is holds


@given(filters, attributes)
def test_not_is_the_exact_opposite(filter_, item):
    assert matches(Not(filter_), item) is not matches(filter_, item)


@given(keys, scalars, attributes)
def test_ne_is_not_eq_and_nin_is_not_in(key, value, item):
    assert matches(Comparison("ne", key, value), item) is not matches(Comparison("eq", key, value), item)
    assert matches(Membership("nin", key, (value,)), item) is not matches(Membership("in", key, (value,)), item)


@given(st.lists(filters, min_size=1, max_size=3), attributes)
def test_de_morgan(inner, item):
    none_holds = And(tuple(Not(each) for each in inner))

    assert matches(Not(Or(tuple(inner))), item) is matches(none_holds, item)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"eq": {"key": "a", "value": None}}, "filter.eq.value"),
        ({"eq": {"key": "a", "value": [1]}}, "filter.eq.value"),
        ({"eq": {"key": "a", "value": {"b": 1}}}, "filter.eq.value"),
        ({"eq": {"key": "a"}}, "filter.eq.value"),
        ({"eq": {"key": "", "value": 1}}, "filter.eq.key"),
        ({"gt": {"key": "a", "value": "tall"}}, "filter.gt.value"),
        ({"gt": {"key": "a", "value": True}}, "filter.gt.value"),
        ({"in": {"key": "a", "values": []}}, "filter.in.values"),
        ({"in": {"key": "a", "values": [1, None]}}, "filter.in.values[1]"),
        ({"and": {"filters": []}}, "filter.and.filters"),
        ({"and": {"filters": [{"exists": {"key": "a"}}, {}]}}, "filter.and.filters[1]"),
        ({"or": {"filters": [{"not": {"eq": {"key": "a", "value": None}}}]}}, "filter.or.filters[0].not.eq.value"),
    ],
)
def test_a_bad_filter_names_the_offending_field(document, field):
    with pytest.raises(FilterInvalid) as raised:
        parsed(document)

    assert raised.value.violations[0].field == field


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_are_finite(value):
    proto = filter_pb2.Filter()
    proto.eq.key = "a"
    proto.eq.value.number_value = value

    with pytest.raises(FilterInvalid):
        from_proto(proto)


def test_filters_nest_eight_deep_and_no_deeper():
    leaf = {"exists": {"key": "a"}}

    assert matches(parsed(nested(7, leaf)), {}) is True
    with pytest.raises(FilterInvalid, match="8 deep"):
        parsed(nested(8, leaf))


def test_a_filter_holds_a_hundred_nodes_and_no_more():
    leaf = {"exists": {"key": "a"}}

    assert parsed({"and": {"filters": [leaf] * 99}})
    with pytest.raises(FilterInvalid, match="100"):
        parsed({"and": {"filters": [leaf] * 100}})


def test_an_empty_filter_is_none():
    assert from_proto(filter_pb2.Filter()) is None
