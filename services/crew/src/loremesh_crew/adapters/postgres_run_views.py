"""Runs in Postgres, as they are read. Row-level security adds the tenant to every statement."""

import json
from collections.abc import Sequence
from datetime import datetime

from loremesh_kit import eventlog, identity
from loremesh_kit.errors import PageTokenInvalid
from loremesh_kit.pages import Position
from loremesh_kit.postgres import Database, Row
from psycopg import AsyncConnection

from loremesh_crew.adapters.run_rows import FULL, LISTED, listed, record
from loremesh_crew.domain import codec
from loremesh_crew.domain.definitions import Crew
from loremesh_crew.domain.machine import RunStatus
from loremesh_crew.errors import RunNotFound
from loremesh_crew.ports import KeptDecision, ListedRun, Machines, RunRecord

_PURGED_AT_ONCE = 100

_GET = f"SELECT {FULL} FROM runs WHERE id = %s"  # noqa: S608 - made of constants, as all here

_STANDING = "SELECT status, last_seq FROM runs WHERE id = %s"

_PAGE = f"""
SELECT {LISTED} FROM runs
WHERE (%(definition_id)s = '' OR definition_id = %(definition_id)s)
    AND (%(status)s::text IS NULL OR status = %(status)s) AND (%(children)s OR parent_run_id = '')
    AND (%(time)s::timestamptz IS NULL OR (create_time, id) < (%(time)s::timestamptz, %(id)s))
ORDER BY create_time DESC, id DESC LIMIT %(limit)s
"""  # noqa: S608

_TREE = f"""
SELECT {FULL} FROM runs WHERE root_run_id = %(root_run_id)s ORDER BY create_time, id LIMIT %(limit)s
"""  # noqa: S608

_CREWS = "SELECT DISTINCT (pinned -> 'crew')::text AS crew FROM runs WHERE root_run_id = %s AND kind = 'CREW'"

_HISTORY = """
SELECT number, event::text AS event, commands::text AS commands, last_seq FROM run_history
WHERE run_id = %(run_id)s AND number > %(after)s ORDER BY number LIMIT %(limit)s
"""

_AT_WORK = """
SELECT count(*) AS runs FROM (
    SELECT FROM runs WHERE finish_time IS NULL AND parent_run_id = '' LIMIT %s
) AS at_work
"""

_ALONE = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"

# What is below a run goes with it, not before.
_EXPIRED = """
SELECT tenant, id FROM runs WHERE parent_run_id = '' AND finish_time < now() - interval '30 days' LIMIT %s
"""

_FORGET_EVENTS = """
WITH old AS (SELECT id FROM runs WHERE root_run_id = %(root)s),
    logs AS (DELETE FROM event_heads USING old WHERE run_id = old.id)
DELETE FROM events USING old WHERE run_id = old.id
"""

_PURGE = "DELETE FROM runs WHERE root_run_id = %(root)s"


class PostgresRunViews:
    """What is read of the tables `runs` and `run_history`, and of the log of each run."""

    def __init__(self, *, database: Database, machines: Machines) -> None:
        self._database = database
        self._machines = machines

    async def get(self, run_id: str) -> RunRecord:
        """See ports.RunViews."""
        rows = await self._database.fetch(_GET, [run_id])
        if not rows:
            raise RunNotFound(run_id)
        return record(rows[0], self._machines)

    async def standing(self, run_id: str) -> tuple[RunStatus, int]:
        """See ports.RunViews."""
        rows = await self._database.fetch(_STANDING, [run_id])
        if not rows:
            raise RunNotFound(run_id)
        return RunStatus(rows[0]["status"]), int(rows[0]["last_seq"])

    async def page(
        self, *, after: Position | None, limit: int, definition_id: str, status: RunStatus | None, children: bool
    ) -> Sequence[ListedRun]:
        """See ports.RunViews."""
        parameters = {
            "time": _time(after),
            "id": after.id if after else "",
            "limit": limit,
            "definition_id": definition_id,
            "status": status,
            "children": children,
        }
        return [listed(row) for row in await self._database.fetch(_PAGE, parameters)]

    async def tree(self, root_run_id: str, *, limit: int) -> Sequence[RunRecord]:
        """See ports.RunViews."""
        rows = await self._database.fetch(_TREE, {"root_run_id": root_run_id, "limit": limit})
        return [record(row, self._machines) for row in rows]

    async def crews(self, root_run_id: str) -> Sequence[Crew]:
        """See ports.RunViews."""
        rows = await self._database.fetch(_CREWS, [root_run_id])
        return [codec.load(Crew, row["crew"]) for row in rows]

    async def history(self, run_id: str, *, after: int, limit: int) -> Sequence[KeptDecision]:
        """See ports.RunViews."""
        rows = await self._database.fetch(_HISTORY, {"run_id": run_id, "after": after, "limit": limit})
        return [
            KeptDecision(
                number=row["number"],
                event=codec.load_event(row["event"]),
                commands=json.loads(row["commands"]),
                last_seq=row["last_seq"],
            )
            for row in rows
        ]

    async def events(self, run_id: str, *, after_seq: int, limit: int) -> Sequence[eventlog.Event]:
        """See ports.RunViews."""
        async with self._database.transaction() as connection:
            return await eventlog.read(connection, run_id=run_id, after_seq=after_seq, limit=limit)

    async def at_work(self, *, limit: int) -> int:
        """See ports.RunViews."""
        rows = await self._database.fetch(_AT_WORK, [limit])
        return int(rows[0]["runs"])

    async def at_work_alone(self, connection: AsyncConnection[Row], *, limit: int) -> int:
        """See ports.RunViews."""
        await connection.execute(_ALONE, [f"{identity.current().tenant} runs"])
        row = await (await connection.execute(_AT_WORK, [limit])).fetchone()
        return int(row["runs"]) if row else 0

    async def purge(self) -> int:
        """See ports.RunViews."""
        rows = await self._database.fetch_across_tenants(_EXPIRED, [_PURGED_AT_ONCE])
        for row in rows:
            async with self._database.transaction(row["tenant"]) as connection:
                await connection.execute(_FORGET_EVENTS, {"root": row["id"]})
                await connection.execute(_PURGE, {"root": row["id"]})
        return len(rows)


def _time(after: Position | None) -> datetime | None:
    try:
        return datetime.fromisoformat(after.sort_key) if after else None
    except ValueError as error:
        raise PageTokenInvalid from error
