"""Builds every condition an engine is asked with; none can be built without a scope."""

from collections.abc import Collection, Sequence

from loremesh_kit.filters import And, Comparison, Exists, Filter, Membership, Not, Or

from loremesh_retrieval.domain.attributes import microseconds, path_key, presence_term, value_term
from loremesh_retrieval.domain.chunks import DocumentVersion
from loremesh_retrieval.domain.conditions import All, Between, Condition, Either, Holds, IsPoint, Never
from loremesh_retrieval.domain.scope import Scope

SCOPE = "scope"
KEYWORDS = ("document_id", "terms")


def chunks_of(
    scope: Scope,
    *,
    filter_: Filter | None = None,
    point_ids: Sequence[str] | None = None,
    document_id: str = "",
    version: int = 0,
    before_version: int = 0,
    excluded: Collection[DocumentVersion] = (),
) -> All:
    """The scope's chunks, narrowed by whatever else is given."""
    conditions: list[Condition] = [Holds(SCOPE, (scope.key,))]
    if filter_ is not None:
        conditions.append(_condition(filter_))
    if point_ids is not None:
        conditions.append(IsPoint(point_ids))
    if document_id:
        conditions.append(Holds("document_id", (document_id,)))
    if version:
        conditions.append(Between(field="document_version", gte=version, lte=version))
    if before_version:
        conditions.append(Between(field="document_version", lt=before_version))
    conditions.extend(Never(_is_of(each)) for each in sorted(excluded))
    return All(conditions)


def _is_of(of: DocumentVersion) -> All:
    document = Holds("document_id", (of.document_id,))
    return All([document, Between(field="document_version", gte=of.version, lte=of.version)])


def _condition(filter_: Filter) -> Condition:  # noqa: PLR0911 - one for each kind of filter
    match filter_:
        case And(filters):
            return All([_condition(each) for each in filters])
        case Or(filters):
            return Either([_condition(each) for each in filters])
        case Not(inner):
            return Never(_condition(inner))
        case Exists(key):
            return Holds("terms", (presence_term(key),))
        case Membership(op, key, values):
            held = Holds("terms", tuple(value_term(key, value) for value in values))
            return held if op == "in" else Never(held)
        case Comparison("eq", key, value):
            return Holds("terms", (value_term(key, value),))
        case Comparison("ne", key, value):
            return Never(Holds("terms", (value_term(key, value),)))
        case Comparison():
            return _ordered(filter_)


def _ordered(comparison: Comparison) -> Between:
    value, key = comparison.value, path_key(comparison.key)
    if not isinstance(value, str):
        return Between(field=f"numbers.{key}", **{comparison.op: float(value)})
    time = microseconds(value)
    if time is None:
        raise ValueError("the kit's filters order numbers and times only")
    return Between(field=f"times.{key}", **{comparison.op: time})
