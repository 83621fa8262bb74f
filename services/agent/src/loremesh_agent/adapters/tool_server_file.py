"""The operator's file of tool servers."""

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from loremesh_agent.domain.tool_servers import Kind, NewToolServer, Program
from loremesh_agent.domain.tools import Effect
from loremesh_agent.engine.operator_servers import NamedServer

_ID = re.compile(r"[a-z][a-z0-9-]{0,31}")
# All that a program gets besides what its entry names.
_ALWAYS = ("PATH", "LANG")


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Kind
    address: str = ""
    command: str = ""
    args: tuple[str, ...] = ()
    # Names of variables of the service's own environment; their values never stand in the file.
    env: tuple[str, ...] = ()
    token_env: str = ""
    default_effect: Effect = Effect.SIDE_EFFECTING
    timeout_seconds: float = Field(default=30.0, ge=1, le=600)
    # Changed to accept what the server describes now.
    version: str = ""


def read(path: str, *, environment: Mapping[str, str]) -> Sequence[NamedServer]:
    """The file's servers, `[id]` tables in TOML; none for an empty path. Raises ValueError for the operator."""
    if not path:
        return []
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"the tool servers' file cannot be read: {error}"
        raise ValueError(message) from error
    return [_named(server_id, table, environment) for server_id, table in tables.items()]


def _named(server_id: str, table: Any, environment: Mapping[str, str]) -> NamedServer:
    try:
        entry = _Entry.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        message = f"[{server_id}] {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise ValueError(message) from error
    if not _ID.fullmatch(server_id):
        message = f"[{server_id}]: an id is lower-case letters, digits and -, at most 32"
        raise ValueError(message)
    if (entry.kind is Kind.MCP_STDIO) != bool(entry.command) or bool(entry.command) == bool(entry.address):
        message = f"[{server_id}]: a program has a command, every other server an address"
        raise ValueError(message)
    needed = (*entry.env, entry.token_env) if entry.token_env else entry.env
    missing = [name for name in needed if name not in environment]
    if missing:
        message = f"[{server_id}]: the variable {missing[0]} is not set"
        raise ValueError(message)
    text = json.dumps(table, sort_keys=True, default=str)
    return NamedServer(
        server=_server(server_id, entry, environment), fingerprint=hashlib.sha256(text.encode()).hexdigest()[:16]
    )


def _server(server_id: str, entry: _Entry, environment: Mapping[str, str]) -> NewToolServer:
    given = {name: SecretStr(environment[name]) for name in (*_ALWAYS, *entry.env) if name in environment}
    return NewToolServer(
        id=server_id,
        kind=entry.kind,
        address=entry.address,
        token=SecretStr(environment[entry.token_env] if entry.token_env else ""),
        default_effect=entry.default_effect,
        timeout_seconds=entry.timeout_seconds,
        program=Program(command=entry.command, arguments=entry.args, environment=given) if entry.command else None,
    )
