"""Conditions on points, in the few forms every engine has."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Holds:
    """The keyword field is, or is a list with, one of the values."""

    field: str
    values: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """The numeric field is, or is a list with, a number within the bounds that are given."""

    field: str
    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None


@dataclass(frozen=True, slots=True)
class IsPoint:
    """The point has one of these ids."""

    ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class All:
    """Every condition holds."""

    conditions: Sequence["Condition"]


@dataclass(frozen=True, slots=True)
class Either:
    """At least one condition holds."""

    conditions: Sequence["Condition"]


@dataclass(frozen=True, slots=True)
class Never:
    """The condition does not hold."""

    condition: "Condition"


Condition = Holds | Between | IsPoint | All | Either | Never
