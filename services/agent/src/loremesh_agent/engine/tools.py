"""The desk through which an agent's tools are called."""

import asyncio
import json
import math
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import structlog
from loremesh_kit import deadline, schemas
from loremesh_kit.errors import DeadlineExceeded, ServiceError
from loremesh_kit.text import clean

from loremesh_agent.domain.agents import Agent
from loremesh_agent.domain.tools import CallContext, ToolCall, ToolResult, ToolSpec
from loremesh_agent.errors import ToolArgumentsInvalid, ToolError, ToolFailed, ToolTimeout, ToolUnavailable
from loremesh_agent.ports import Toolbox

MAX_RESULT_BYTES = 16 * 1024
_MAX_ARGUMENT_BYTES = 64 * 1024
_MAX_DEPTH = 32
# The largest whole number that doubles tell from its neighbours.
_MAX_WHOLE = 2**53
_MARGIN_SECONDS = 0.1

_log = structlog.get_logger(__name__)


class ToolDesk:
    """Hands out what an agent may use, checks what a model asks of it, and bounds what a call takes and gives."""

    def __init__(self, *, toolbox: Toolbox) -> None:
        self._toolbox = toolbox

    async def offered(self, agent: Agent) -> Sequence[ToolSpec]:
        """The agent's tools that can be called now, in its order; raises what the toolbox raises."""
        if not agent.tools:
            return []
        specs = {spec.name: spec for spec in await self._toolbox.specs() if not spec.unavailable}
        missing = [use.name for use in agent.tools if use.name not in specs]
        if missing:
            _log.info("tools are not available", agent_id=agent.id, tools=missing)
        return [specs[use.name] for use in agent.tools if use.name in specs]

    def check(self, spec: ToolSpec, call: ToolCall) -> Mapping[str, Any]:
        """The call's arguments, read and valid; raises ToolArgumentsInvalid, in words by which they can be repaired."""
        arguments, fault = _read(call.arguments)
        fault = fault or schemas.problem(spec.input_schema, arguments) or ""
        if fault:
            raise ToolArgumentsInvalid(spec.name, problem=fault)
        return arguments

    async def call(self, spec: ToolSpec, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        """What the tool answers, at most MAX_RESULT_BYTES of it.

        Raises ToolError, with a message for the model, or a retryable ServiceError. `spec` is what the run was
        offered: a tool that has become another one since is not called.
        """
        tool = await self._toolbox.find(spec.name)
        if tool.spec.effect is not spec.effect or tool.spec.tool_server_id != spec.tool_server_id:
            raise ToolUnavailable(spec.name)
        # They may come from a human's hand, out of a journal, or from before the tool was described anew.
        arguments, fault = _cleaned(arguments)
        fault = fault or schemas.problem(tool.spec.input_schema, arguments) or ""
        if fault:
            raise ToolArgumentsInvalid(spec.name, problem=fault)
        try:
            with deadline.scope(spec.timeout_seconds):
                async with asyncio.timeout(deadline.within(spec.timeout_seconds)):
                    result = await tool.call(arguments, context)
        except (TimeoutError, DeadlineExceeded):
            # Inner calls give up a little before their time is over.
            if deadline.within(1.0) < _MARGIN_SECONDS:
                raise DeadlineExceeded from None
            raise ToolTimeout(spec.name) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody wants the run to end: it is only the tool that did.
            raise ToolFailed("The tool failed.", tool=spec.name) from None
        except ServiceError as error:
            _raise(error, spec)
        except Exception as error:  # noqa: BLE001 - the edge to code of others: one tool must not end the run
            _tell(error, spec)
            raise ToolFailed("The tool failed.", tool=spec.name) from None
        return _bounded(result)


def _read(text: str) -> tuple[dict[str, Any], str]:
    """Arguments, or what is wrong with them; a model that has none to give may send nothing at all."""
    if len(text.encode(errors="replace")) > _MAX_ARGUMENT_BYTES:
        return {}, f"they are larger than {_MAX_ARGUMENT_BYTES // 1024} KiB."
    try:
        value = json.loads(text or "{}", parse_constant=_no_number)
    except json.JSONDecodeError as error:
        return {}, f"they are not JSON: line {error.lineno}, column {error.colno}."
    except (ValueError, RecursionError):
        return {}, "they are not JSON that can be read."
    if not isinstance(value, dict):
        return {}, "they must be a JSON object."
    return _cleaned(value)


def _cleaned(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    try:
        return _clean(dict(arguments), 0), ""
    except ValueError as error:
        return {}, str(error)


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def _clean(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        message = f"they nest more than {_MAX_DEPTH} deep."
        raise ValueError(message)
    match value:
        case str():
            return clean(value)
        case dict():
            return {clean(key): _clean(each, depth + 1) for key, each in value.items()}
        case list():
            return [_clean(each, depth + 1) for each in value]
        case float() if not math.isfinite(value):
            message = "a number is too large."
            raise ValueError(message)
        # JSON knows one kind of number, and protobuf's Struct gives them all as doubles.
        case float() if value.is_integer() and abs(value) <= _MAX_WHOLE:
            return int(value)
    return value


def _raise(error: ServiceError, spec: ToolSpec) -> NoReturn:
    """Pass what may pass by itself; of anything else the model is told our own words, under the reason it has."""
    if isinstance(error, ToolError) or error.retryable:
        raise error
    failed = ToolFailed(error.message, tool=spec.name)
    failed.reason = error.reason
    raise failed from error


def _tell(error: Exception, spec: ToolSpec) -> None:
    """Log where it was, without its words: they may be anybody's."""
    *_, frame = traceback.extract_tb(error.__traceback__)
    at = f"{frame.filename}:{frame.lineno}"
    _log.error("a tool raised what it should not", tool=spec.name, error=type(error).__name__, at=at)


def _bounded(result: ToolResult) -> ToolResult:
    content = clean(result.content)
    encoded = content.encode()
    if len(encoded) > MAX_RESULT_BYTES:
        note = f"\n[The result is cut here: {len(encoded)} bytes are more than {MAX_RESULT_BYTES}.]"
        content = encoded[: MAX_RESULT_BYTES - len(note)].decode(errors="ignore") + note
    return replace(result, content=content)
