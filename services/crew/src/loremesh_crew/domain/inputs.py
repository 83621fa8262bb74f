"""What a run is given, held against what its definition asks for."""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from loremesh_kit import schemas
from loremesh_kit.text import clean

from loremesh_crew.domain import placeholders
from loremesh_crew.domain.definitions import Crew
from loremesh_crew.errors import InputInvalid, InputMissing

MAX_BYTES = 256 * 1024
_MAX_DEPTH = 32


def check_inputs(crew: Crew, inputs: Mapping[str, Any], *, field: str = "inputs") -> dict[str, Any]:
    """The inputs as they are kept: without what no text holds; raises InputMissing, InputInvalid."""
    return held_against(inputs, schema=crew.inputs_schema, needed=needed(crew), field=field)


def needed(crew: Crew) -> tuple[str, ...]:
    """The placeholders of a crew, each once, in their order."""
    return tuple(dict.fromkeys(chain.from_iterable(placeholders.names(text) for _, text in texts(crew))))


def texts(crew: Crew) -> Iterator[tuple[str, str]]:
    """The texts of a crew that may hold placeholders, by their fields."""
    for i, agent in enumerate(crew.agents):
        if not agent.agent_id:
            yield f"agents[{i}].role", agent.role
            yield f"agents[{i}].goal", agent.goal
            yield f"agents[{i}].backstory", agent.backstory
    for i, task in enumerate(crew.tasks):
        yield f"tasks[{i}].description", task.description
        yield f"tasks[{i}].expected_output", task.expected_output


def held_against(
    inputs: Mapping[str, Any], *, schema: Mapping[str, Any] | None, needed: Iterable[str], field: str = "inputs"
) -> dict[str, Any]:
    """The inputs as they are kept, where they fulfil a schema that was checked and have all that is needed.

    What is not given is what the schema says by `default`, of its own properties. Raises InputMissing, InputInvalid.
    """
    kept = {**_defaults(schema or {}), **_kept(inputs, field)}
    required = schema.get("required", ()) if schema else ()
    for name in chain(needed, required):
        if name not in kept:
            raise InputMissing(name, field=field)
    if schema is not None and (problem := schemas.problem(schema, kept)):
        raise InputInvalid(problem, field=field)
    return kept


def _defaults(schema: Mapping[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties", {})
    return {
        name: each["default"] for name, each in properties.items() if isinstance(each, Mapping) and "default" in each
    }


def _kept(inputs: Mapping[str, Any], field: str) -> dict[str, Any]:
    try:
        size = len(
            json.dumps(inputs, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
        )
    except ValueError:
        raise InputInvalid("a number in them is not finite.", field=field) from None
    except RecursionError:
        raise InputInvalid(f"they are nested deeper than {_MAX_DEPTH} levels.", field=field) from None
    if size > MAX_BYTES:
        raise InputInvalid(f"{size} bytes are more than {MAX_BYTES}.", field=field)
    if schemas.depth(inputs) > _MAX_DEPTH:
        raise InputInvalid(f"they are nested deeper than {_MAX_DEPTH} levels.", field=field)
    return {clean(name): _clean(value) for name, value in inputs.items()}


def _clean(value: Any) -> Any:
    match value:
        case str():
            return clean(value)
        case Mapping():
            return {clean(key): _clean(each) for key, each in value.items()}
        case list() | tuple():
            return [_clean(each) for each in value]
    return value
