"""Attribute filters as SQL over the columns `attributes` and `attribute_times`; says what kit's `matches` says.

Everything of the caller's travels as a parameter. An attribute is a scalar or a list of scalars, and jsonb's `@>` is
true when a list contains a scalar, as well as between equal scalars; jsonpath unwraps lists in the same way and takes a
comparison of unlike types as false.
"""

from collections.abc import Sequence
from typing import Any

from loremesh_kit import filters
from loremesh_kit.filters import And, Comparison, Exists, Filter, Membership, Not, Or
from psycopg.types.json import Jsonb

from loremesh_ingestion.domain.attributes import instant

Condition = tuple[str, list[Any]]

_FALSE: Condition = ("false", [])
_ORDER = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def compile_filter(filter_: Filter) -> Condition:  # noqa: PLR0911 - one for each kind of node
    """A condition that is never null, and its parameters in order."""
    match filter_:
        case And(parts):
            return _joined(" AND ", parts)
        case Or(parts):
            return _joined(" OR ", parts)
        case Not(part):
            return _negated(compile_filter(part))
        case Exists(key):
            return _exists(key)
        case Comparison("eq", key, value):
            return _equal(key, value)
        case Comparison("ne", key, value):
            return _negated(_equal(key, value))
        case Comparison(op, key, value):
            return _ordered(op, key, value)
        case Membership("in", key, values):
            return _any_equal(key, values)
        case Membership(_, key, values):
            return _negated(_any_equal(key, values))


def _joined(word: str, parts: Sequence[Filter]) -> Condition:
    conditions = [compile_filter(part) for part in parts]
    return f"({word.join(sql for sql, _ in conditions)})", [each for _, parameters in conditions for each in parameters]


def _negated(condition: Condition) -> Condition:
    return f"NOT {condition[0]}", condition[1]


def _exists(key: str) -> Condition:
    if not _storable(key):
        return _FALSE
    return "coalesce(jsonb_typeof(attributes -> %s) <> 'null', false)", [key]


def _equal(key: str, value: filters.Scalar) -> Condition:
    if not _storable(key, value):
        return _FALSE
    return "coalesce(attributes -> %s @> %s, false)", [key, Jsonb(value)]


def _any_equal(key: str, values: Sequence[filters.Scalar]) -> Condition:
    conditions = [_equal(key, value) for value in values]
    return f"({' OR '.join(sql for sql, _ in conditions)})", [
        each for _, parameters in conditions for each in parameters
    ]


def _ordered(op: str, key: str, value: filters.Scalar) -> Condition:
    if not _storable(key):
        return _FALSE
    column, bound = ("attribute_times", instant(value)) if isinstance(value, str) else ("attributes", value)
    path = f"$[*] ? (@ {_ORDER[op]} $bound)"
    return (
        f"coalesce(jsonb_path_exists({column} -> %s, '{path}', jsonb_build_object('bound', %s::jsonb)), false)",
        [key, Jsonb(bound)],
    )


def _storable(*values: filters.Scalar) -> bool:
    # Postgres refuses a NUL even in a parameter, and no attribute has one.
    return not any(isinstance(value, str) and "\x00" in value for value in values)
