"""Agents in Postgres. Row-level security adds the tenant to every statement."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from loremesh_kit.postgres import Database, Row
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from loremesh_agent.domain.agents import DEFAULT_AGENT
from loremesh_agent.domain.definitions import (
    AgentDefinition,
    BusyPolicy,
    GroundingPolicy,
    LimitPolicy,
    Limits,
    MemorySettings,
    PromptReference,
)
from loremesh_agent.domain.tools import ApprovalPolicy, ExpiryPolicy, ToolUse
from loremesh_agent.errors import AgentExists, ConversationNotFound

_COLUMNS = "kept.agent_id AS id, kept.revision, definition, agents.create_time, kept.create_time AS update_time"
_JOINED = "agents JOIN agent_revisions AS kept ON kept.agent_id = agents.id"

_CURRENT = f"""
SELECT {_COLUMNS} FROM {_JOINED} AND kept.revision = agents.revision WHERE agents.id = %s AND NOT deleted
"""  # noqa: S608 - made of constants, as all here

_REVISION = f"SELECT {_COLUMNS} FROM {_JOINED} WHERE agents.id = %s AND kept.revision = %s"  # noqa: S608

_HELD = f"""
SELECT conversations.agent_id AS held_with, {_COLUMNS}
FROM conversations
LEFT JOIN ({_JOINED} AND kept.revision = agents.revision AND NOT deleted) ON agents.id = conversations.agent_id
WHERE conversations.id = %s AND NOT hidden
"""  # noqa: S608

_PAGE = f"""
SELECT {_COLUMNS} FROM {_JOINED} AND kept.revision = agents.revision
WHERE agents.id > %(after)s AND agents.id <> '{DEFAULT_AGENT}' AND NOT deleted ORDER BY agents.id LIMIT %(limit)s
"""  # noqa: S608

_REVISIONS = f"""
SELECT {_COLUMNS} FROM {_JOINED}
WHERE agents.id = %(id)s AND kept.revision < %(before)s ORDER BY kept.revision DESC LIMIT %(limit)s
"""  # noqa: S608

_CREATE = """
INSERT INTO agents (id, revision) VALUES (%(id)s, %(revision)s)
ON CONFLICT (tenant, id) DO UPDATE SET revision = agents.revision + 1, deleted = false, create_time = now()
    WHERE agents.deleted
RETURNING revision, create_time
"""

_REVISE = """
UPDATE agents SET revision = revision + 1 WHERE id = %(id)s AND revision = %(expected)s AND NOT deleted
RETURNING revision, create_time
"""

_KEEP = """
INSERT INTO agent_revisions (agent_id, revision, definition) VALUES (%(id)s, %(revision)s, %(definition)s)
RETURNING agent_id AS id, revision, definition, %(create_time)s::timestamptz AS create_time, create_time AS update_time
"""

_DELETE = "UPDATE agents SET deleted = true WHERE id = %s AND NOT deleted RETURNING id"

_NO_COLUMNS = ("id", "revision", "create_time", "update_time")
_LAST = 2**63 - 1


class PostgresAgents:
    """The tables `agents` and `agent_revisions`; see ports.AgentStore."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def current(self, agent_id: str) -> AgentDefinition | None:
        """See ports.AgentStore."""
        return _first(await self._database.fetch(_CURRENT, [agent_id]))

    async def revision(self, agent_id: str, revision: int) -> AgentDefinition | None:
        """See ports.AgentStore."""
        return _first(await self._database.fetch(_REVISION, [agent_id, revision]))

    async def held(self, conversation_id: str) -> tuple[str, AgentDefinition | None]:
        """See ports.AgentStore."""
        rows = await self._database.fetch(_HELD, [conversation_id])
        if not rows:
            raise ConversationNotFound(conversation_id)
        held_with = rows[0].pop("held_with")
        return held_with, _read(rows[0]) if rows[0]["id"] is not None else None

    async def page(self, *, after: str, limit: int) -> Sequence[AgentDefinition]:
        """See ports.AgentStore."""
        return [_read(row) for row in await self._database.fetch(_PAGE, {"after": after, "limit": limit})]

    async def revisions(self, agent_id: str, *, before: int | None, limit: int) -> Sequence[AgentDefinition]:
        """See ports.AgentStore."""
        parameters = {"id": agent_id, "before": _LAST if before is None else before, "limit": limit}
        return [_read(row) for row in await self._database.fetch(_REVISIONS, parameters)]

    async def create(self, definition: AgentDefinition) -> AgentDefinition:
        """See ports.AgentStore."""
        parameters = {"id": definition.id, "revision": definition.revision}
        async with self._database.transaction() as connection:
            made = await (await connection.execute(_CREATE, parameters)).fetchone()
            if made is None:
                raise AgentExists(definition.id)
            return await _keep(connection, definition, made)

    async def revise(self, definition: AgentDefinition, *, expected: int) -> AgentDefinition | None:
        """See ports.AgentStore."""
        parameters = {"id": definition.id, "expected": expected}
        async with self._database.transaction() as connection:
            moved = await (await connection.execute(_REVISE, parameters)).fetchone()
            return None if moved is None else await _keep(connection, definition, moved)

    async def delete(self, agent_id: str) -> bool:
        """See ports.AgentStore."""
        async with self._database.transaction() as connection:
            return await (await connection.execute(_DELETE, [agent_id])).fetchone() is not None


async def _keep(connection: AsyncConnection[Row], wanted: AgentDefinition, made: Row) -> AgentDefinition:
    parameters = {**made, "id": wanted.id, "definition": Jsonb(_document(wanted))}
    kept = await (await connection.execute(_KEEP, parameters)).fetchone()
    if kept is None:
        raise AgentExists(wanted.id)
    return _read(kept)


def _first(rows: Sequence[Row]) -> AgentDefinition | None:
    return _read(rows[0]) if rows else None


def _document(definition: AgentDefinition) -> Any:
    """A definition as JSON, durations in seconds, without what has columns."""
    return _plain({name: value for name, value in asdict(definition).items() if name not in _NO_COLUMNS})


def _plain(value: Any) -> Any:
    match value:
        case timedelta():
            return value.total_seconds()
        case Mapping():
            return {key: _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
    return value


def _read(row: Row) -> AgentDefinition:
    """Of the columns above."""
    fields: dict[str, Any] = {**row["definition"], **{name: row[name] for name in _NO_COLUMNS}}
    prompt, memory, limits = fields["prompt"], fields["memory"], fields["limits"]
    return AgentDefinition(
        **{
            **fields,
            "prompt": PromptReference(**prompt) if prompt else None,
            "fallback_models": tuple(fields["fallback_models"]),
            "vector_store_ids": tuple(fields["vector_store_ids"]),
            "tools": tuple(map(_tool, fields["tools"])),
            "memory": MemorySettings(**{**memory, "ttl": _seconds(memory["ttl"])}) if memory else None,
            "limits": Limits(**{**limits, "on_limit": LimitPolicy(limits["on_limit"])}),
            "grounding": GroundingPolicy(fields["grounding"]),
            "busy_policy": BusyPolicy(fields["busy_policy"]),
        }
    )


def _tool(kept: Mapping[str, Any]) -> ToolUse:
    return ToolUse(
        name=kept["name"],
        approval=ApprovalPolicy(kept["approval"]),
        approval_time=timedelta(seconds=kept["approval_time"]),
        on_expiry=ExpiryPolicy(kept["on_expiry"]),
    )


def _seconds(value: float | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)
