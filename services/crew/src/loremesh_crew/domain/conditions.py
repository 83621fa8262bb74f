"""Conditions of transitions: whether they hold, what they saw, and why they could not be decided.

What could not be decided does not hold, and neither does its contrary: NOT of it, AND with it unless another part
does not hold, and OR with it unless another part does, could not be decided either.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loremesh_kit import patterns
from loremesh_kit.patterns import PatternRefused

from loremesh_crew.domain.definitions import Condition, ConditionKind, Flow, VariableType
from loremesh_crew.domain.expressions import ExpressionFailed, ExpressionInvalid, compile_expression, evaluate
from loremesh_crew.domain.placeholders import as_text

# What expressions see beside the variables.
OWN: Mapping[str, VariableType] = {
    "inputs": VariableType.MAP,
    "output": VariableType.STRING,
    "json": VariableType.MAP,
    "outputs": VariableType.MAP,
    "succeeded": VariableType.BOOL,
    "reason": VariableType.STRING,
    "visit": VariableType.INT,
}
_MAX_SAW = 500
_MAX_CONDITION = 200
_UNDECIDED = "a part of it could not be decided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What came of a state's work, and what else its conditions and assignments may look at."""

    output: str = ""
    output_json: Mapping[str, Any] | None = None
    succeeded: bool = True
    reason: str = ""
    visit: int = 1
    variables: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    # The last of each state that was left.
    outputs: Mapping[str, str] = field(default_factory=dict)

    def values(self) -> dict[str, Any]:
        """By the names expressions know."""
        return {
            **self.variables,
            "inputs": self.inputs,
            "output": self.output,
            "json": self.output_json or {},
            "outputs": self.outputs,
            "succeeded": self.succeeded,
            "reason": self.reason,
            "visit": self.visit,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One condition and what it saw."""

    condition: str
    held: bool
    saw: str = ""
    error: str = ""
    parts: "tuple[Check, ...]" = ()

    def data(self) -> dict[str, Any]:
        """As ConditionCheck in run.proto, in proto JSON."""
        told: dict[str, Any] = {"condition": self.condition, "held": self.held}
        if self.saw:
            told["saw"] = self.saw
        if self.error:
            told["error"] = self.error
        if self.parts:
            told["parts"] = [each.data() for each in self.parts]
        return told


def names_of(flow: Flow) -> dict[str, VariableType]:
    """The names that a flow's expressions may use."""
    return {**{variable.name: variable.type for variable in flow.variables}, **OWN}


def check(condition: Condition, names: Mapping[str, VariableType], seen: Seen) -> Check:  # noqa: PLR0911 - one of each
    """Whether it holds, `names` as of `names_of`; every part is looked at."""
    text = written(condition)
    match condition.kind:
        case ConditionKind.ALWAYS:
            return Check(condition=text, held=True)
        case ConditionKind.ON_SUCCESS:
            return Check(condition=text, held=seen.succeeded, saw=_ending(seen))
        case ConditionKind.ON_FAILURE:
            return Check(condition=text, held=not seen.succeeded, saw=_ending(seen))
        case ConditionKind.OUTPUT_CONTAINS:
            return Check(condition=text, held=_contains(condition, seen.output), saw=_cut(seen.output))
        case ConditionKind.OUTPUT_MATCHES:
            return _matches(condition, text, seen)
        case ConditionKind.VARIABLE_EQUALS:
            return _equals(condition, text, seen)
        case ConditionKind.EXPRESSION:
            return _expression(condition, text, names, seen)
    parts = tuple(check(each, names, seen) for each in condition.conditions)
    return _joined(condition.kind, text, parts)


def same(left: Any, right: Any) -> bool:
    """Whether two values of JSON are equal: 1 is 1.0, and true is not 1."""
    match left, right:
        case (bool(), _) | (_, bool()):
            return left is right
        case ((int() | float()), (int() | float())):
            return left == right
        case Mapping(), Mapping():
            return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
        case ((list() | tuple()), (list() | tuple())):
            return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


def written(condition: Condition) -> str:
    """The condition as its flow's author might say it, at most 200 characters."""
    match condition.kind:
        case ConditionKind.OUTPUT_CONTAINS:
            case = ", case_sensitive" if condition.case_sensitive else ""
            text = f"{condition.kind}({_quoted(condition.text)}{case})"
        case ConditionKind.OUTPUT_MATCHES | ConditionKind.EXPRESSION:
            text = f"{condition.kind}({_quoted(condition.text)})"
        case ConditionKind.VARIABLE_EQUALS:
            text = f"{condition.kind}({condition.variable}, {_json(condition.value)})"
        case ConditionKind.AND | ConditionKind.OR | ConditionKind.NOT:
            text = f"{condition.kind}({', '.join(map(written, condition.conditions))})"
        case _:
            text = str(condition.kind)
    return text if len(text) <= _MAX_CONDITION else f"{text[: _MAX_CONDITION - 3]}..."


def _ending(seen: Seen) -> str:
    if seen.succeeded:
        return "succeeded"
    return f"failed: {seen.reason}" if seen.reason else "failed"


def _contains(condition: Condition, output: str) -> bool:
    if condition.case_sensitive:
        return condition.text in output
    return condition.text.casefold() in output.casefold()


def _matches(condition: Condition, text: str, seen: Seen) -> Check:
    try:
        held = patterns.found(condition.text, seen.output)
    except PatternRefused as refused:
        return Check(condition=text, held=False, saw=_cut(seen.output), error=str(refused))
    return Check(condition=text, held=held, saw=_cut(seen.output))


def _equals(condition: Condition, text: str, seen: Seen) -> Check:
    if condition.variable not in seen.variables:
        return Check(condition=text, held=False, error=f"there is no variable {condition.variable!r}")
    value = seen.variables[condition.variable]
    return Check(condition=text, held=same(value, condition.value), saw=_cut(_json(value)))


def _expression(condition: Condition, text: str, names: Mapping[str, VariableType], seen: Seen) -> Check:
    values = seen.values()
    try:
        held = evaluate(condition.text, names, values, VariableType.BOOL)
        error = ""
    except (ExpressionFailed, ExpressionInvalid) as failure:
        held, error = False, failure.problem
    return Check(condition=text, held=held, saw=_named(condition.text, names, values), error=error)


def _named(text: str, names: Mapping[str, VariableType], values: Mapping[str, Any]) -> str:
    """What an expression names, with the values, each shortened so that all have room."""
    try:
        named = dict.fromkeys(compile_expression(text, names, VariableType.BOOL).names.variables)
    except ExpressionInvalid:
        return ""
    room = _MAX_SAW // max(1, len(named))
    return _cut(", ".join(f"{name} = {_json(values[name])}"[:room] for name in named))


def _joined(kind: ConditionKind, text: str, parts: Sequence[Check]) -> Check:
    undecided = any(each.error for each in parts)
    match kind:
        case ConditionKind.OR:
            held = any(each.held for each in parts)
            open_ = undecided and not held
        case ConditionKind.AND:
            held = all(each.held for each in parts)
            open_ = undecided and all(each.held or each.error for each in parts)
        case _:
            held = not undecided and not any(each.held for each in parts)
            open_ = undecided
    return Check(condition=text, held=held, error=_UNDECIDED if open_ else "", parts=tuple(parts))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _json(value: Any) -> str:
    return _quoted(value) if isinstance(value, str) else as_text(value)


def _cut(text: str) -> str:
    return text[:_MAX_SAW]
