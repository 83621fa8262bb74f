from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loremesh_ingestion.adapters.postgres_filter import compile_filter
from loremesh_ingestion.domain.attributes import times
from loremesh_kit import filters
from loremesh_kit.filters import And, Comparison, Exists, Filter, Membership, Not, Or
from psycopg.types.json import Jsonb

pytestmark = pytest.mark.conformance

KEYS = st.sampled_from(["lang", "year", "a.b", "with \"quotes\" and 'more'", "%s", "null\x00"])
MOMENTS = st.sampled_from(
    [
        "2024-01-01",
        "2024-01-01T00:00:00Z",
        "2024-01-01T02:00:00+02:00",
        "20240101",
        "2024-01-01T00:00:00.000001",
        "2023",
    ]
) | st.datetimes(timezones=st.timezones() | st.none(), allow_imaginary=False).map(lambda moment: moment.isoformat())
NUMBERS = st.sampled_from([0.0, -0.0, 1.0, 1.5, 1e22, 1e-7, 2.0**53, 1e308]) | st.floats(
    allow_nan=False, allow_infinity=False
)
STRINGS = st.sampled_from(["", "1", "true", "th", "ไทย", "%", "$bound"]) | st.text(max_size=8) | MOMENTS
SCALARS = STRINGS | NUMBERS | st.booleans()
STORED = SCALARS.map(lambda value: value.replace("\x00", "") if isinstance(value, str) else value)
ATTRIBUTES = st.dictionaries(
    KEYS.map(lambda key: key.replace("\x00", "")), STORED | st.none() | st.lists(STORED, max_size=3), max_size=4
)
CONDITIONS: st.SearchStrategy[Filter] = (
    st.builds(Comparison, st.sampled_from(["eq", "ne"]), KEYS, SCALARS)
    | st.builds(Comparison, st.sampled_from(["gt", "gte", "lt", "lte"]), KEYS, MOMENTS | NUMBERS)
    | st.builds(Membership, st.sampled_from(["in", "nin"]), KEYS, st.lists(SCALARS, min_size=1, max_size=3).map(tuple))
    | st.builds(Exists, KEYS)
)
FILTERS = st.recursive(
    CONDITIONS,
    lambda inner: (
        st.builds(And, st.lists(inner, min_size=1, max_size=3).map(tuple))
        | st.builds(Or, st.lists(inner, min_size=1, max_size=3).map(tuple))
        | st.builds(Not, inner)
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def connection(postgres_url: str):
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        yield connection


def says_postgres(connection: psycopg.Connection, filter_: Filter, attributes: dict[str, Any]) -> bool:
    condition, parameters = compile_filter(filter_)
    row = connection.execute(
        f"SELECT {condition} FROM (SELECT %s::jsonb AS attributes, %s::jsonb AS attribute_times)",  # noqa: S608
        [*parameters, Jsonb(attributes), Jsonb(times(attributes))],
    ).fetchone()
    assert row is not None
    assert row[0] is not None
    return bool(row[0])


@settings(max_examples=600, deadline=None)
@given(filter_=FILTERS, attributes=ATTRIBUTES)
def test_postgres_and_the_kit_agree_on_every_filter(connection, filter_, attributes):
    assert says_postgres(connection, filter_, attributes) == filters.matches(filter_, attributes)


@pytest.mark.parametrize(
    ("held", "bound", "expected"),
    [
        ("2024-01-01T00:00:00Z", "2024-01-01T01:00:00+02:00", True),
        ("2024-01-01", "2024-01-02", False),
        ("not a time", "2024-01-02", False),
        (["2020-01-01", "2030-01-01"], "2024-01-02", True),
        (5.0, "2024-01-02", False),
    ],
)
def test_times_are_ordered_as_instants(connection, held, bound, expected):
    assert says_postgres(connection, Comparison("gt", "at", bound), {"at": held}) is expected


def test_true_is_not_one(connection):
    assert not says_postgres(connection, Comparison("eq", "flag", 1.0), {"flag": True})
    assert says_postgres(connection, Comparison("eq", "flag", True), {"flag": True})


def test_what_is_missing_equals_nothing_and_differs_from_everything(connection):
    assert not says_postgres(connection, Comparison("eq", "lang", "th"), {})
    assert says_postgres(connection, Comparison("ne", "lang", "th"), {})
    assert says_postgres(connection, Membership("nin", "lang", ("th",)), {})
