"""Dead letters: jobs that were given up, to be looked at and taken up again."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg import AsyncConnection

from loremesh_kit import identity
from loremesh_kit.postgres import Database, Row

_LETTER = """
SELECT letter.id, letter.kind, letter.subject_id, letter.attempt, reason, message, died_at, payload
FROM dead_letters AS letter JOIN jobs ON jobs.tenant = letter.tenant AND jobs.id = letter.id
"""

_NEWEST_FIRST = " ORDER BY died_at DESC, letter.id DESC LIMIT %(limit)s"

_LOCK = " FOR UPDATE OF letter"

_STRIKE_OFF = "DELETE FROM dead_letters WHERE tenant = %s AND id = ANY(%s)"

# The sweeper announces them, within a second.
_REQUEUE = """
UPDATE jobs SET
    state = 'QUEUED', attempt = 0, fence = fence + 1, due_at = now(), announced_at = NULL, deadline = NULL,
    finished_at = NULL
WHERE tenant = %s AND id = ANY(%s) AND state = 'FAILED'
"""

_STATES = "SELECT id, state FROM jobs WHERE tenant = %s AND id = ANY(%s)"


class JobUnknown(Exception):
    """The tenant has no job of this id."""

    def __init__(self, job_id: str) -> None:
        """`job_id` is the first that is not there."""
        super().__init__(job_id)
        self.job_id = job_id


class JobNotDead(Exception):
    """There is no dead letter of the job."""

    def __init__(self, job_id: str, state: str) -> None:
        """`state` is the one the job is in."""
        super().__init__(job_id, state)
        self.job_id = job_id
        self.state = state


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A job that was given up; `id` and `payload` are the job's."""

    id: str
    kind: str
    subject_id: str
    attempt: int
    reason: str
    message: str
    died_at: datetime
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """Which dead letters; what is empty does not restrict."""

    kind: str = ""
    reason: str = ""
    subject_id: str = ""


async def page(
    database: Database, which: Which, *, before: tuple[datetime, str] | None = None, limit: int
) -> list[DeadLetter]:
    """Up to `limit` of the caller's tenant, the latest first; `before` is time of death and id of the last one seen."""
    conditions, parameters = _conditions(which)
    if before is not None:
        conditions += " AND (died_at, letter.id) < (%(died_at)s, %(id)s)"
        parameters |= {"died_at": before[0], "id": before[1]}
    rows = await database.fetch(_LETTER + conditions + _NEWEST_FIRST, {**parameters, "limit": limit})
    return [DeadLetter(**row) for row in rows]


async def hold(connection: AsyncConnection[Row], which: Which, *, limit: int) -> list[DeadLetter]:
    """The latest, locked until the transaction ends."""
    conditions, parameters = _conditions(which)
    cursor = await connection.execute(_LETTER + conditions + _NEWEST_FIRST + _LOCK, {**parameters, "limit": limit})
    return [DeadLetter(**row) for row in await cursor.fetchall()]


async def hold_these(connection: AsyncConnection[Row], ids: Collection[str]) -> list[DeadLetter]:
    """Those of these jobs, locked until the transaction ends; raises JobUnknown and JobNotDead."""
    conditions, parameters = _conditions(Which())
    query = _LETTER + conditions + " AND letter.id = ANY(%(ids)s) ORDER BY letter.id" + _LOCK
    cursor = await connection.execute(query, {**parameters, "ids": list(ids)})
    letters = [DeadLetter(**row) for row in await cursor.fetchall()]
    await _check(connection, set(ids) - {letter.id for letter in letters})
    return letters


async def requeue(connection: AsyncConnection[Row], ids: Collection[str]) -> None:
    """Have dead jobs of the caller's tenant done after all, with all their attempts and no deadline.

    Raises JobUnknown and JobNotDead, which undo it.
    """
    await hold_these(connection, ids)
    await strike_off(connection, ids)
    await connection.execute(_REQUEUE, [identity.current().tenant, list(ids)])


async def strike_off(connection: AsyncConnection[Row], ids: Collection[str]) -> None:
    """Forget that these jobs are dead; they stay undone."""
    await connection.execute(_STRIKE_OFF, [identity.current().tenant, list(ids)])


async def _check(connection: AsyncConnection[Row], missing: Collection[str]) -> None:
    if not missing:
        return
    cursor = await connection.execute(_STATES, [identity.current().tenant, list(missing)])
    states = {row["id"]: row["state"] for row in await cursor.fetchall()}
    for job_id in sorted(missing):
        if job_id not in states:
            raise JobUnknown(job_id)
        raise JobNotDead(job_id, states[job_id])


def _conditions(which: Which) -> tuple[LiteralString, dict[str, Any]]:
    conditions: LiteralString = " WHERE letter.tenant = %(tenant)s"
    if which.kind:
        conditions += " AND letter.kind = %(kind)s"
    if which.reason:
        conditions += " AND reason = %(reason)s"
    if which.subject_id:
        conditions += " AND letter.subject_id = %(subject_id)s"
    parameters = {
        "tenant": identity.current().tenant,
        "kind": which.kind,
        "reason": which.reason,
        "subject_id": which.subject_id,
    }
    return conditions, parameters
