"""Tool servers in Postgres. Row-level security adds the tenant to every statement."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, LiteralString

from loremesh_kit.errors import IdempotencyConflict
from loremesh_kit.idempotency import once, remember
from loremesh_kit.postgres import Database
from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb
from pydantic import SecretStr

from loremesh_agent.domain.tool_servers import Described, Kind, ToolServer
from loremesh_agent.domain.tools import Effect
from loremesh_agent.errors import ToolServerExists, ToolServerNotFound
from loremesh_agent.ports import Claim

_COLUMNS: LiteralString = (
    "id, kind, address, token, default_effect, timeout_seconds, tools, changed, healthy, check_time, create_time"
)

_INSERT = """
INSERT INTO tool_servers (id, kind, address, token, default_effect, timeout_seconds, tools, healthy)
VALUES (%(id)s, %(kind)s, %(address)s, %(token)s, %(default_effect)s, %(timeout_seconds)s, %(tools)s, %(healthy)s)
"""

_CHECK = "INSERT INTO tool_server_checks (tool_server_id) VALUES (%(id)s)"

_REPLACE = """
UPDATE tool_servers SET
    kind = %(kind)s, address = %(address)s, token = %(token)s, default_effect = %(default_effect)s,
    timeout_seconds = %(timeout_seconds)s, tools = %(tools)s, changed = '{}', healthy = %(healthy)s, check_time = now()
WHERE id = %(id)s RETURNING id
"""

_GET = f"SELECT {_COLUMNS} FROM tool_servers WHERE id = %s"  # noqa: S608 - made of constants, as all here

_PAGE = f"SELECT {_COLUMNS} FROM tool_servers WHERE id > %(after)s ORDER BY id LIMIT %(limit)s"  # noqa: S608

_DELETE = "DELETE FROM tool_servers WHERE id = %s RETURNING id"

_CLAIMED = "SELECT request_hash, response FROM idempotency WHERE method = %s AND key = %s AND response IS NOT NULL"

_DUE = """
WITH due AS MATERIALIZED (
    SELECT tenant, tool_server_id FROM tool_server_checks
    WHERE due_at <= now() ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE tool_server_checks AS checks SET due_at = now() + make_interval(secs => %(interval)s)
FROM due WHERE checks.tenant = due.tenant AND checks.tool_server_id = due.tool_server_id
RETURNING checks.tenant, checks.tool_server_id
"""

_NOTE = """
UPDATE tool_servers SET healthy = %(healthy)s, changed = coalesce(%(changed)s, changed), check_time = now()
WHERE id = %(id)s
"""


class PostgresToolServers:
    """The table `tool_servers`; see ports.ToolServerStore."""

    def __init__(self, *, database: Database) -> None:
        """`database` is the service's own."""
        self._database = database

    async def create(self, server: ToolServer, claim: Claim | None) -> None:
        """See ports.ToolServerStore."""
        try:
            async with self._database.transaction() as connection:
                if claim and await once(
                    connection, key=claim.key, method=claim.method, request_hash=claim.request_hash
                ):
                    return
                await connection.execute(_INSERT, _values(server))
                await connection.execute(_CHECK, {"id": server.id})
                if claim:
                    made = server.id.encode()
                    await remember(connection, key=claim.key, method=claim.method, response=made)
        except UniqueViolation as error:
            raise ToolServerExists(server.id) from error

    async def claimed(self, claim: Claim) -> str | None:
        """See ports.ToolServerStore."""
        rows = await self._database.fetch(_CLAIMED, [claim.method, claim.key])
        if not rows:
            return None
        if bytes(rows[0]["request_hash"]) != claim.request_hash:
            message = "The idempotency key was used before with another request."
            raise IdempotencyConflict(message, metadata={"key": claim.key})
        return bytes(rows[0]["response"]).decode()

    async def put(self, server: ToolServer) -> None:
        """See ports.ToolServerStore."""
        if not await self._database.fetch(_REPLACE, _values(server)):
            raise ToolServerNotFound(server.id)

    async def introduce(self, server: ToolServer, *, tenant: str) -> None:
        """See ports.ToolServerStore."""
        async with self._database.transaction(tenant) as connection:
            await connection.execute(_INSERT + " ON CONFLICT DO NOTHING", _values(server))
            await connection.execute(_CHECK + " ON CONFLICT DO NOTHING", {"id": server.id})

    async def get(self, server_id: str, *, tenant: str | None = None) -> ToolServer:
        """See ports.ToolServerStore."""
        rows = await self._database.fetch(_GET, [server_id], tenant=tenant)
        if not rows:
            raise ToolServerNotFound(server_id)
        return _server(rows[0])

    async def page(self, *, after: str, limit: int, tenant: str | None = None) -> Sequence[ToolServer]:
        """See ports.ToolServerStore."""
        rows = await self._database.fetch(_PAGE, {"after": after, "limit": limit}, tenant=tenant)
        return [_server(row) for row in rows]

    async def delete(self, server_id: str) -> None:
        """See ports.ToolServerStore."""
        async with self._database.transaction() as connection:
            if await (await connection.execute(_DELETE, [server_id])).fetchone() is None:
                raise ToolServerNotFound(server_id)

    async def due(self, *, interval: float, limit: int) -> Sequence[tuple[str, str]]:
        """See ports.ToolServerStore."""
        rows = await self._database.fetch_across_tenants(_DUE, {"interval": interval, "limit": limit})
        return [(row["tenant"], row["tool_server_id"]) for row in rows]

    async def note(self, server_id: str, *, healthy: bool, changed: frozenset[str] | None, tenant: str) -> None:
        """See ports.ToolServerStore."""
        found = None if changed is None else sorted(changed)
        await self._database.fetch(_NOTE, {"id": server_id, "healthy": healthy, "changed": found}, tenant=tenant)


def _values(server: ToolServer) -> dict[str, Any]:
    return {
        "id": server.id,
        "kind": server.kind,
        "address": server.address,
        "token": server.token.get_secret_value(),
        "default_effect": server.default_effect,
        "timeout_seconds": server.timeout_seconds,
        "tools": Jsonb([asdict(tool) for tool in server.tools]),
        "healthy": server.healthy,
    }


def _server(row: Mapping[str, Any]) -> ToolServer:
    return ToolServer(
        **{
            **row,
            "kind": Kind(row["kind"]),
            "token": SecretStr(row["token"]),
            "default_effect": Effect(row["default_effect"]),
            "tools": tuple(Described(**{**tool, "effect": Effect(tool["effect"])}) for tool in row["tools"]),
            "changed": frozenset(row["changed"]),
        }
    )
