"""Steps of runs and what they took, in Postgres. Row-level security adds the tenant to every statement."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from loremesh_kit.postgres import Row
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from loremesh_agent.domain.budgets import NOTHING
from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.steps import Step, StepKind, StepState
from loremesh_agent.errors import TenantBudgetExhausted

_COLUMNS = "number, kind, state, name, input, output, usage, idempotency_key, start_time, finish_time"

_WRITE = """
INSERT INTO steps (
    run_id, number, kind, state, name, input, output, usage, reserved_tokens, reserved_micros, idempotency_key,
    start_time, finish_time
) VALUES (
    %(run_id)s, %(number)s, %(kind)s, %(state)s, %(name)s, %(input)s, %(output)s, %(usage)s, %(reserved_tokens)s,
    %(reserved_micros)s, %(idempotency_key)s,
    clock_timestamp() - make_interval(secs => %(age)s), CASE WHEN %(state)s <> 'STARTED' THEN clock_timestamp() END
)
ON CONFLICT (tenant, run_id, number) DO UPDATE SET
    state = excluded.state, name = excluded.name, output = excluded.output, usage = excluded.usage,
    reserved_tokens = excluded.reserved_tokens, reserved_micros = excluded.reserved_micros,
    start_time = CASE WHEN excluded.state = 'STARTED' THEN clock_timestamp() ELSE steps.start_time END,
    finish_time = excluded.finish_time
WHERE steps.state = 'STARTED'
"""

_READ = f"SELECT {_COLUMNS} FROM steps WHERE run_id = %(run_id)s AND number > %(after)s ORDER BY number LIMIT %(limit)s"  # noqa: S608 - made of constants

# The month's row is locked until the transaction ends: two runs do not reserve the same.
_HOLD = """
INSERT INTO spending (month) VALUES (date_trunc('month', now())) ON CONFLICT (tenant, month)
DO UPDATE SET month = excluded.month RETURNING tokens, cost_micros
"""

_RESERVED = """
SELECT coalesce(sum(reserved_tokens), 0)::bigint AS tokens, coalesce(sum(reserved_micros), 0)::bigint AS cost_micros
FROM steps JOIN chat_jobs ON chat_jobs.id = steps.run_id
WHERE kind = 'MODEL' AND steps.state = 'STARTED' AND chat_jobs.status IN ('QUEUED', 'RUNNING')
"""

_SPEND = """
INSERT INTO spending (month, tokens, cost_micros) VALUES (date_trunc('month', now()), %(tokens)s, %(cost_micros)s)
ON CONFLICT (tenant, month) DO UPDATE SET
    tokens = spending.tokens + excluded.tokens, cost_micros = spending.cost_micros + excluded.cost_micros
"""


async def write(connection: AsyncConnection[Row], run_id: str, steps: Sequence[Step]) -> None:
    """Keep steps as they stand; what is at its end stays as it is."""
    for step in steps:
        await connection.execute(_WRITE, _row(run_id, step))


async def read(connection: AsyncConnection[Row], run_id: str, *, after: int = 0, limit: int = 10_000) -> list[Step]:
    """A run's steps behind a number, in order."""
    cursor = await connection.execute(_READ, {"run_id": run_id, "after": after, "limit": limit})
    return [_step(row) for row in await cursor.fetchall()]


async def reserve(
    connection: AsyncConnection[Row], wanted: Usage, *, tokens: int | None, cost_micros: int | None
) -> None:
    """Raise TenantBudgetExhausted where the month has no room for it; of use before it is written as reserved."""
    if tokens is None and cost_micros is None:
        return
    spent = await (await connection.execute(_HOLD)).fetchone()
    held = await (await connection.execute(_RESERVED)).fetchone()
    if spent is None or held is None:
        return
    asked = wanted.input_tokens + wanted.output_tokens
    if tokens is not None and spent["tokens"] + held["tokens"] + asked > tokens:
        raise TenantBudgetExhausted("tokens")
    if cost_micros is not None and spent["cost_micros"] + held["cost_micros"] + wanted.cost_micros > cost_micros:
        raise TenantBudgetExhausted("cost")


async def spend(connection: AsyncConnection[Row], taken: Usage) -> None:
    """Count it for the month."""
    if taken != NOTHING:
        values = {"tokens": taken.input_tokens + taken.output_tokens, "cost_micros": taken.cost_micros}
        await connection.execute(_SPEND, values)


def usage_of(kept: Mapping[str, Any] | None) -> Usage | None:
    """Usage as its column keeps it."""
    return Usage(**kept) if kept else None


def _row(run_id: str, step: Step) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "number": step.number,
        "kind": step.kind,
        "state": step.state,
        "name": step.name,
        "input": Jsonb(dict(step.input)),
        "output": Jsonb(dict(step.output)),
        "usage": Jsonb(asdict(step.usage)) if step.usage else None,
        "reserved_tokens": step.reserved.input_tokens + step.reserved.output_tokens,
        "reserved_micros": step.reserved.cost_micros,
        "idempotency_key": step.idempotency_key,
        "age": step.age,
    }


def _step(row: Row) -> Step:
    kinds = {"kind": StepKind(row["kind"]), "state": StepState(row["state"]), "usage": usage_of(row["usage"])}
    return Step(**{**row, **kinds})
