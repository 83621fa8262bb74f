"""Attribute filters as a small pure tree: read from the proto, checked, and evaluated."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import ge, gt, le, lt
from typing import Any, Literal

from loremesh_kit.errors import FilterInvalid

Scalar = str | float | bool
Attribute = Scalar | None | Sequence[Scalar]
Operator = Literal["eq", "ne", "gt", "gte", "lt", "lte"]

MAX_DEPTH = 8
MAX_NODES = 100
MAX_VALUES = 100


@dataclass(frozen=True, slots=True)
class Comparison:
    """One attribute against one value; `ne` is exactly the opposite of `eq`, so it holds where the key is absent."""

    op: Operator
    key: str
    value: Scalar


@dataclass(frozen=True, slots=True)
class Membership:
    """One attribute against a list of values; `nin` is exactly the opposite of `in`."""

    op: Literal["in", "nin"]
    key: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Exists:
    """The attribute is present and not null."""

    key: str


@dataclass(frozen=True, slots=True)
class And:
    """All of them hold."""

    filters: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of them holds."""

    filters: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """It does not hold."""

    filter: "Filter"


Filter = Comparison | Membership | Exists | And | Or | Not


def from_proto(proto: Any, *, field: str = "filter") -> Filter | None:
    """Read a loremesh.common.v1.Filter, None when nothing is set; raises FilterInvalid naming the offending path."""
    if proto.WhichOneof("condition") is None:
        return None
    return _Reader().read(proto, path=field, depth=1)


class _Reader:
    """Walks one proto, counting nodes."""

    def __init__(self) -> None:
        """Start at nothing read."""
        self._nodes = 0

    def read(self, proto: Any, *, path: str, depth: int) -> Filter:
        condition = proto.WhichOneof("condition")
        if condition is None:
            raise FilterInvalid("A filter must hold exactly one condition.", field=path)
        self._count(path, depth)
        node, path = getattr(proto, condition), f"{path}.{condition}"
        match condition:
            case "and":
                return And(self._read_all(node.filters, path=path, depth=depth))
            case "or":
                return Or(self._read_all(node.filters, path=path, depth=depth))
            case "not":
                return Not(self.read(node, path=path, depth=depth + 1))
            case "in" | "nin":
                return _membership(condition, node, path=path)
            case "exists":
                return Exists(_key(node.key, path=path))
            case _:
                return _comparison(condition, node, path=path)

    def _read_all(self, protos: Sequence[Any], *, path: str, depth: int) -> tuple[Filter, ...]:
        if not protos:
            raise FilterInvalid("At least one filter is needed here.", field=f"{path}.filters")
        return tuple(
            self.read(proto, path=f"{path}.filters[{index}]", depth=depth + 1) for index, proto in enumerate(protos)
        )

    def _count(self, path: str, depth: int) -> None:
        self._nodes += 1
        if depth > MAX_DEPTH:
            raise FilterInvalid(f"Filters nest at most {MAX_DEPTH} deep.", field=path)
        if self._nodes > MAX_NODES:
            raise FilterInvalid(f"A filter holds at most {MAX_NODES} conditions.", field=path)


def _comparison(op: Operator, node: Any, *, path: str) -> Comparison:
    key, value = _key(node.key, path=path), _scalar(node.value, path=f"{path}.value")
    if op not in ("eq", "ne") and _orderable(value) is None:
        raise FilterInvalid("Only numbers and RFC 3339 times can be ordered.", field=f"{path}.value")
    return Comparison(op=op, key=key, value=value)


def _membership(op: Literal["in", "nin"], node: Any, *, path: str) -> Membership:
    if not 1 <= len(node.values) <= MAX_VALUES:
        raise FilterInvalid(f"Between 1 and {MAX_VALUES} values are needed here.", field=f"{path}.values")
    values = tuple(_scalar(value, path=f"{path}.values[{index}]") for index, value in enumerate(node.values))
    return Membership(op=op, key=_key(node.key, path=path), values=values)


def _key(key: str, *, path: str) -> str:
    if not key:
        raise FilterInvalid("The attribute's name is missing.", field=f"{path}.key")
    return key


def _scalar(value: Any, *, path: str) -> Scalar:
    kind = value.WhichOneof("kind")
    if kind not in ("string_value", "number_value", "bool_value"):
        raise FilterInvalid("The value must be a string, a number or a boolean.", field=path)
    scalar: Scalar = getattr(value, kind)
    if isinstance(scalar, float) and not math.isfinite(scalar):
        raise FilterInvalid("The number must be finite.", field=path)
    return scalar


def matches(filter_: Filter, attributes: Mapping[str, Attribute]) -> bool:
    """Whether an item with these attributes passes; a list attribute matches when any of its elements does."""
    match filter_:
        case And(filters):
            return all(matches(each, attributes) for each in filters)
        case Or(filters):
            return any(matches(each, attributes) for each in filters)
        case Not(inner):
            return not matches(inner, attributes)
        case _:
            return _leaf_matches(filter_, attributes)


def _leaf_matches(leaf: Comparison | Membership | Exists, attributes: Mapping[str, Attribute]) -> bool:
    match leaf:
        case Exists(key):
            return attributes.get(key) is not None
        case Comparison("ne", key, value):
            return not _any(attributes.get(key), lambda held: _equal(held, value))
        case Comparison("eq", key, value):
            return _any(attributes.get(key), lambda held: _equal(held, value))
        case Comparison(op, key, value):
            return _any(attributes.get(key), lambda held: _ordered(op, held, value))
        case Membership(op, key, values):
            held_in = _any(attributes.get(key), lambda held: any(_equal(held, value) for value in values))
            return held_in == (op == "in")


_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {"gt": gt, "gte": ge, "lt": lt, "lte": le}


def _any(attribute: Attribute, holds: Callable[[Scalar], bool]) -> bool:
    if attribute is None:
        return False
    if isinstance(attribute, str | float | int):
        return holds(attribute)
    return any(holds(element) for element in attribute)


def _equal(held: Scalar, wanted: Scalar) -> bool:
    # True == 1 in Python; attributes keep booleans and numbers apart.
    return isinstance(held, bool) == isinstance(wanted, bool) and held == wanted


def _ordered(op: str, held: Scalar, wanted: Scalar) -> bool:
    left, right = _orderable(held), _orderable(wanted)
    if left is None or right is None or isinstance(left, datetime) != isinstance(right, datetime):
        return False
    return _ORDER[op](left, right)


def _orderable(value: Scalar) -> float | datetime | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return _time(value)
    return float(value)


def _time(value: str) -> datetime | None:
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
