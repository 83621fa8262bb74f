"""What is wrong with an agent, found without asking anybody."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from loremesh_kit.errors import FieldViolation, ServiceError
from loremesh_kit.schemas import schema_problem

from loremesh_agent.domain.definitions import AgentDefinition, LimitPolicy
from loremesh_agent.errors import AgentInvalid, SchemaInvalid, ToolUnknown


@dataclass(frozen=True, slots=True)
class Fault:
    """A field of the agent, by its path, and why it is refused."""

    field: str
    error: ServiceError


def faults(definition: AgentDefinition, *, tools: Collection[str]) -> Iterator[Fault]:
    """What contradicts itself or names a tool that is not among `tools`, in the order of the fields."""
    for i, model in enumerate(definition.fallback_models):
        if model == definition.model:
            yield _fault(f"fallback_models[{i}]", f"{model!r} is the model itself.")
    yield from _tool_faults(definition, tools)
    if definition.response_schema is not None and (problem := schema_problem(definition.response_schema)):
        yield Fault("response_schema", SchemaInvalid(problem, field="response_schema"))
    yield from _limit_faults(definition)


def violations_of(found: Sequence[Fault], *, beside: Collection[str] = ()) -> tuple[FieldViolation, ...]:
    """Faults by the fields of a request that holds an `agent`, and beside it some of its fields."""
    return tuple(
        FieldViolation(
            each.field if re.split(r"\W", each.field)[0] in beside else f"agent.{each.field}",
            each.error.message,
            each.error.reason,
        )
        for each in found
    )


def refusal(found: Sequence[Fault], *, beside: Collection[str] = ()) -> ServiceError:
    """All faults, at least one, as one error: a single one with its own code, several as AGENT_INVALID."""
    violations = violations_of(found, beside=beside)
    if len(found) > 1:
        return AgentInvalid(" ".join(each.error.message for each in found), violations=violations)
    error = found[0].error
    error.violations = violations
    return error


def _tool_faults(definition: AgentDefinition, tools: Collection[str]) -> Iterator[Fault]:
    seen: set[str] = set()
    for i, use in enumerate(definition.tools):
        if use.name in seen:
            yield _fault(f"tools[{i}].name", f"The tool {use.name!r} is given twice.")
        elif use.name not in tools:
            yield Fault(f"tools[{i}].name", ToolUnknown(use.name))
        seen.add(use.name)


def _limit_faults(definition: AgentDefinition) -> Iterator[Fault]:
    limits, output = definition.limits, definition.max_output_tokens
    if limits.max_tokens is not None and output is not None and limits.max_tokens < output:
        yield _fault("limits.max_tokens", f"A run of {limits.max_tokens} tokens holds no answer of {output}.")
    if limits.on_limit is LimitPolicy.FALL_BACK and not limits.fallback_model:
        yield _fault("limits.fallback_model", "FALL_BACK needs a fallback_model.")
    if limits.fallback_model and limits.on_limit is not LimitPolicy.FALL_BACK:
        yield _fault("limits.on_limit", "A fallback_model takes over with FALL_BACK only.")
    if limits.fallback_model and limits.fallback_model == definition.model:
        yield _fault("limits.fallback_model", f"{limits.fallback_model!r} is the model itself.")


def _fault(field: str, problem: str) -> Fault:
    return Fault(field, AgentInvalid(problem))
