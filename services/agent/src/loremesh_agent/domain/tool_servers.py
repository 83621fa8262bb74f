"""Servers which bring tools, and what they may say of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from loremesh_kit import schemas
from loremesh_kit.errors import DependencyUnavailable, ServiceError
from loremesh_kit.text import clean
from pydantic import SecretStr

from loremesh_agent.domain.tools import Effect, ToolSpec
from loremesh_agent.errors import SchemaInvalid, ToolFailed, ToolNameClash, ToolServerInvalid

MAX_TOOLS = 64
# Of an answer, in characters; what is beyond is cut.
MAX_CONTENT = 65_536
_MAX_DESCRIPTION = 2000
# Some providers take no longer names.
_MAX_NAME = 64
_MAX_SCHEMA_NODES = 5000
_CIRCLE = -1
# A server's id has no underscore, so the first two in a tool's name end it.
_SEPARATOR = "__"
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
_CARE = (Effect.READ_ONLY, Effect.IDEMPOTENT, Effect.SIDE_EFFECTING)
_EXPRESSIONS = ("pattern", "patternProperties")
# Keywords whose values are schemas by name, and those whose values are no schemas.
_BY_NAME = ("properties", "$defs", "definitions", "dependentSchemas")
_VALUES = ("const", "default", "enum", "examples", "required")


class Kind(StrEnum):
    """How a server is spoken to."""

    GRPC = "GRPC"
    MCP_HTTP = "MCP_HTTP"
    MCP_STDIO = "MCP_STDIO"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What is run to have a server; `environment` is all the environment it gets."""

    command: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, SecretStr] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A tool as its server described it; two are equal exactly when nothing a model or a policy sees differs."""

    name: str
    description: str
    input_schema: Mapping[str, Any]
    effect: Effect


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToolServer:
    """A server as it is registered, by its tenant or by the operator's file; an empty token is not sent."""

    id: str
    kind: Kind
    address: str = ""
    token: SecretStr = field(default_factory=lambda: SecretStr(""))
    default_effect: Effect = Effect.SIDE_EFFECTING
    timeout_seconds: float = 30.0
    program: Program | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolServer(NewToolServer):
    """A server, and its tools as they were when it was registered or refreshed: these are in force."""

    tools: tuple[Described, ...] = ()
    # Names of those that it describes otherwise now, or no more: they are not called.
    changed: frozenset[str] = frozenset()
    healthy: bool = False
    check_time: datetime | None = None
    # None for those of the operator's file.
    create_time: datetime | None = None


def full_name(server_id: str, tool: str) -> str:
    """What models, agents and people call a server's tool."""
    return f"{server_id}{_SEPARATOR}{tool}"


def server_of(name: str) -> str:
    """The id of the server that a tool of this name would belong to; empty for those built in."""
    server_id, separator, _ = name.partition(_SEPARATOR)
    return server_id if separator else ""


def differences(kept: Sequence[Described], now: Sequence[Described]) -> frozenset[str]:
    """Names of the kept tools which are described otherwise now, or not at all; new ones are nobody's concern."""
    current = {each.name: each for each in now}
    return frozenset(each.name for each in kept if current.get(each.name) != each)


def specs(server: ToolServer) -> list[ToolSpec]:
    """The server's tools as models and policies see them."""
    return [
        ToolSpec(
            name=full_name(server.id, tool.name),
            description=tool.description,
            input_schema=_without_expressions(tool.input_schema),
            effect=tool.effect,
            timeout_seconds=server.timeout_seconds,
            unavailable=_unavailable(server, tool),
            tool_server_id=server.id,
        )
        for tool in server.tools
    ]


def _unavailable(server: ToolServer, tool: Described) -> str:
    if tool.name in server.changed:
        return f"The tool server {server.id!r} describes it otherwise than before: refresh the server."
    return "" if server.healthy else f"The tool server {server.id!r} does not answer."


def more_careful(default: Effect, hinted: Effect | None) -> Effect:
    """A stranger's hint is believed only where it asks for more care."""
    return default if hinted is None else max(default, hinted, key=_CARE.index)


def lost(server: NewToolServer, tool: Described) -> ServiceError:
    """What a call is told as whose answer never came: nobody knows whether it had its effect, if it may have one."""
    if tool.effect is Effect.READ_ONLY:
        return ToolFailed("The tool failed.", tool=full_name(server.id, tool.name))
    return DependencyUnavailable(f"tool server {server.id}")


def described(tools: Sequence[Described], *, server_id: str) -> tuple[Described, ...]:
    """The tools, cleaned, if a server may bring them.

    Raises ToolServerInvalid for too many of them or a name that is none, ToolNameClash, SchemaInvalid.
    """
    if len(tools) > MAX_TOOLS:
        raise ToolServerInvalid(f"It has more than {MAX_TOOLS} tools.")
    seen: set[str] = set()
    for tool in tools:
        _check_name(tool.name, server_id=server_id)
        if tool.name in seen:
            raise ToolNameClash(full_name(server_id, tool.name))
        seen.add(tool.name)
        check_schema(tool.input_schema, field=f"tools[{tool.name}].input_schema")
    return tuple(map(_kept, tools))


def is_described(tool: Described, now: Sequence[Described]) -> bool:
    """Whether what a server says now describes a tool as it is kept."""
    return [_kept(each) for each in now if each.name == tool.name] == [tool]


def _kept(tool: Described) -> Described:
    return replace(
        tool, description=clean(tool.description)[:_MAX_DESCRIPTION], input_schema=_cleaned(tool.input_schema)
    )


def _check_name(name: str, *, server_id: str) -> None:
    if not 0 < len(name) <= _MAX_NAME or not _LETTERS.issuperset(name):
        raise ToolServerInvalid(
            f"{clean(name)[:_MAX_NAME]!r} is no name of a tool: letters, digits, - and _, at most {_MAX_NAME}."
        )
    if len(full := full_name(server_id, name)) > _MAX_NAME:
        raise ToolServerInvalid(
            f"{full!r} is longer than the {_MAX_NAME} characters models take: choose a shorter id.",
            field="tool_server.id",
        )


def check_schema(schema: Mapping[str, Any], *, field: str) -> None:
    """Raise SchemaInvalid unless it can be used and, each reference unfolded, ends soon: models are shown it whole.

    A stranger's regular expressions are not looked at, for nobody evaluates them.
    """
    if schemas.depth(schema) > schemas.MAX_DEPTH:
        problem: str | None = f"it is nested deeper than {schemas.MAX_DEPTH} levels."
    else:
        problem = schemas.schema_problem(_without_expressions(schema)) or _unfolding_problem(schema)
    if problem:
        raise SchemaInvalid(problem, field=field)


def _unfolding_problem(schema: Mapping[str, Any]) -> str | None:
    try:
        size = _unfolded(schema, schema, {})
    except RecursionError:
        return "it refers to itself."
    return "it unfolds to too much." if size > _MAX_SCHEMA_NODES else None


def _unfolded(node: Any, root: Mapping[str, Any], known: dict[str, int]) -> int:
    """How many nodes there are when each reference is what it refers to: each may stand for many, and they for more.

    Raises RecursionError for one that leads in a circle.
    """
    inner = node.values() if isinstance(node, Mapping) else node if isinstance(node, list | tuple) else ()
    size = 1 + sum(_unfolded(each, root, known) for each in inner if isinstance(each, Mapping | list | tuple))
    reference = node.get("$ref") if isinstance(node, Mapping) else None
    if isinstance(reference, str):
        if reference not in known:
            known[reference] = _CIRCLE
            known[reference] = _unfolded(schemas.pointed(root, reference), root, known)
        if known[reference] == _CIRCLE:
            raise RecursionError
        size += known[reference]
    return size


def _without_expressions(schema: Any) -> Any:
    """A stranger's regular expression may take an age to evaluate; the server checks its arguments itself."""
    if isinstance(schema, list | tuple):
        return [_without_expressions(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    kept = {key: _of_keyword(key, value) for key, value in schema.items() if key not in _EXPRESSIONS}
    if "patternProperties" in schema:
        # What only they allowed must not be refused now.
        kept.pop("additionalProperties", None)
    return kept


def _of_keyword(key: str, value: Any) -> Any:
    if key in _VALUES:
        return value
    if key in _BY_NAME and isinstance(value, Mapping):
        return {name: _without_expressions(each) for name, each in value.items()}
    return _without_expressions(value)


def _cleaned(value: Any) -> Any:
    match value:
        case str():
            return clean(value)
        case Mapping():
            return {clean(key): _cleaned(each) for key, each in value.items()}
        case list() | tuple():
            return [_cleaned(each) for each in value]
        case float() if value.is_integer():
            # Struct knows no integers.
            return int(value)
    return value
