"""What an output must fulfil, as far as no model has to be asked."""

from collections.abc import Mapping, Sequence
from typing import Any

from loremesh_kit import patterns
from loremesh_kit.patterns import PatternRefused

from loremesh_crew.domain.definitions import Guardrail, VariableType
from loremesh_crew.domain.expressions import ExpressionFailed, ExpressionInvalid, evaluate

# What an expression may see.
VARIABLES: Mapping[str, VariableType] = {"output": VariableType.STRING, "json": VariableType.MAP}
# What a judge answers with.
VERDICT: Mapping[str, Any] = {
    "type": "object",
    "properties": {"accepted": {"type": "boolean"}, "reason": {"type": "string"}},
    "required": ["accepted", "reason"],
    "additionalProperties": False,
}


def problem(guardrails: Sequence[Guardrail], output: str, output_json: Mapping[str, Any] | None) -> str:
    """What the agent is told of the guardrails the output does not fulfil, criteria left out; empty where it does."""
    problems = (_problem(each, output, output_json or {}) for each in guardrails)
    return "\n".join(filter(None, problems))


def next_criterion(guardrails: Sequence[Guardrail], begin: int) -> int | None:
    """Index of the first guardrail from `begin` on which a model has to judge; None where there is none."""
    return next((at for at in range(begin, len(guardrails)) if guardrails[at].criterion), None)


def verdict(output_json: Mapping[str, Any] | None) -> tuple[bool, str] | None:
    """Whether a judge accepted, and what it said; None where that is no verdict."""
    accepted, reason = (output_json or {}).get("accepted"), (output_json or {}).get("reason", "")
    return (accepted, reason) if isinstance(accepted, bool) and isinstance(reason, str) else None


def _problem(guardrail: Guardrail, output: str, output_json: Mapping[str, Any]) -> str:
    broken = _broken(guardrail, output, output_json)
    return broken and (guardrail.message or broken)


def _broken(guardrail: Guardrail, output: str, output_json: Mapping[str, Any]) -> str:
    if guardrail.matches and not _found(guardrail.matches, output, otherwise=False):
        return f"It must match the regular expression {guardrail.matches}"
    if guardrail.matches_not and _found(guardrail.matches_not, output, otherwise=True):
        return f"It must not match the regular expression {guardrail.matches_not}"
    if len(output) < guardrail.min_length:
        return f"It must have at least {guardrail.min_length} characters; it has {len(output)}."
    if guardrail.max_length and len(output) > guardrail.max_length:
        return f"It must have at most {guardrail.max_length} characters; it has {len(output)}."
    if guardrail.expression and not _holds(guardrail.expression, output, output_json):
        return f"This must be true of it: {guardrail.expression}"
    return ""


def _found(pattern: str, text: str, *, otherwise: bool) -> bool:
    # Patterns are checked when a crew is saved; what cannot be held against an output is not fulfilled.
    try:
        return patterns.found(pattern, text)
    except PatternRefused:
        return otherwise


def _holds(expression: str, output: str, output_json: Mapping[str, Any]) -> bool:
    try:
        return evaluate(expression, VARIABLES, {"output": output, "json": output_json}, VariableType.BOOL) is True
    except (ExpressionInvalid, ExpressionFailed):
        return False
