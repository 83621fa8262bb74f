"""Runs that are over, kept once more below another. Row-level security adds the tenant to every statement."""

from collections.abc import Sequence
from typing import LiteralString

from loremesh_kit.postgres import Row
from psycopg import AsyncConnection

from loremesh_crew.ports import RunRecord

# Ids lead from a run to those below it: `RUN_ID.N`. Wherever the run or its root is named in text, the other is now.
_OLD: LiteralString = """
SELECT * FROM runs WHERE root_run_id = %(root)s AND finish_time IS NOT NULL AND EXISTS (
    SELECT FROM unnest(%(children)s::text[]) AS child WHERE runs.id = child OR starts_with(runs.id, child || '.')
)
"""

_RUNS = f"""
WITH old AS ({_OLD})
INSERT INTO runs (
    id, kind, definition_id, revision, name, principal, pinned, state, engine_version, status, summary, decisions,
    last_seq, parent_run_id, root_run_id, parent_state, forked_from, forked_after_seq, create_time, finish_time,
    expire_time
)
SELECT
    replace(id, %(of)s, %(to)s), kind, definition_id, revision, name, principal,
    replace(replace(pinned::text, %(of)s, %(to)s), %(root)s, %(to)s)::json,
    replace(replace(state::text, %(of)s, %(to)s), %(root)s, %(to)s)::json, engine_version, status,
    replace(summary::text, %(of)s, %(to)s)::json, decisions, last_seq, replace(parent_run_id, %(of)s, %(to)s),
    %(to)s, parent_state, id, last_seq, create_time, finish_time, expire_time
FROM old
"""  # noqa: S608 - made of constants, as all here

_HISTORY = f"""
WITH old AS ({_OLD})
INSERT INTO run_history (run_id, number, event, commands, last_seq, time)
SELECT
    replace(run_id, %(of)s, %(to)s), number, replace(event::text, %(of)s, %(to)s)::json,
    replace(replace(commands::text, %(of)s, %(to)s), %(root)s, %(to)s)::json, kept.last_seq, time
FROM run_history AS kept JOIN old ON kept.run_id = old.id
"""  # noqa: S608

_HEADS = f"""
WITH old AS ({_OLD})
INSERT INTO event_heads (tenant, run_id, last_seq, first_seq)
SELECT head.tenant, replace(run_id, %(of)s, %(to)s), head.last_seq, first_seq
FROM event_heads AS head JOIN old ON head.run_id = old.id
"""  # noqa: S608

_EVENTS = f"""
WITH old AS ({_OLD})
INSERT INTO events (tenant, run_id, seq, time, kind, payload, attempt, path)
SELECT
    event.tenant, replace(run_id, %(of)s, %(to)s), seq, time, event.kind,
    replace(payload::text, %(of)s, %(to)s)::jsonb, attempt, path
FROM events AS event JOIN old ON event.run_id = old.id
"""  # noqa: S608


class PostgresRunCopies:
    """Copies rows of `runs`, `run_history` and the logs; see ports.RunCopies."""

    async def copy(self, connection: AsyncConnection[Row], *, of: RunRecord, to: str, children: Sequence[str]) -> None:
        """See ports.RunCopies."""
        values = {"of": of.id, "root": of.pinned.root_run_id, "to": to, "children": list(children)}
        async with connection.pipeline():
            for statement in (_RUNS, _HISTORY, _HEADS, _EVENTS):
                await connection.execute(statement, values)
