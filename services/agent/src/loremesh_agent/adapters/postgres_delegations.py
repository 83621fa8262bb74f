"""Work that runs handed on, in Postgres. Row-level security adds the tenant to every statement.

Whoever delivers locks the run's job first, as those who decide approvals do: so a run that parks in the transaction in
which it looked at what was delivered misses nothing.
"""

from collections.abc import Awaitable, Callable, Sequence

from loremesh_kit.outbox import emit
from loremesh_kit.postgres import Database, Row
from psycopg import AsyncConnection

from loremesh_agent.domain.delegation import Delegation, Delivered
from loremesh_agent.errors import TaskNotFound

Resume = Callable[[AsyncConnection[Row], str], Awaitable[object]]

_HAND_ON = """
INSERT INTO delegations (run_id, id, number, coworker, description, context)
VALUES (%(run_id)s, %(id)s, %(number)s, %(coworker)s, %(description)s, %(context)s)
ON CONFLICT DO NOTHING
"""

_TASK = "SELECT id FROM tasks WHERE run_id = %s"

_OF_RUN = """
SELECT id, number, coworker, description, context, output, reason, answer_time IS NOT NULL AS is_delivered
FROM delegations WHERE run_id = %s ORDER BY number
"""

_OPEN_OF_RUN = """
SELECT id, number, coworker, description, context, false AS is_delivered
FROM delegations WHERE run_id = %s AND answer_time IS NULL ORDER BY number
"""

# The journal has no result yet of what was delivered.
_UNHEARD = """
SELECT FROM delegations JOIN steps USING (tenant, run_id, number)
WHERE run_id = %s AND answer_time IS NOT NULL AND steps.state = 'STARTED' LIMIT 1
"""

_LOCK_JOB = """
SELECT jobs.id AS run_id FROM tasks JOIN jobs ON jobs.tenant = tasks.tenant AND jobs.id = tasks.run_id
WHERE tasks.id = %s FOR UPDATE OF jobs
"""

_IS_THERE = "SELECT FROM delegations WHERE run_id = %(run_id)s AND id = %(id)s"

_DELIVER = """
UPDATE delegations SET output = %(output)s, reason = %(reason)s, answer_time = now()
WHERE run_id = %(run_id)s AND id = %(id)s AND answer_time IS NULL
    AND EXISTS (SELECT FROM chat_jobs WHERE id = %(run_id)s AND finish_time IS NULL)
"""

_OPEN = "SELECT FROM delegations WHERE run_id = %s AND answer_time IS NULL LIMIT 1"


class PostgresDelegations:
    """The table `delegations`; see ports.DelegationStore."""

    def __init__(self, *, database: Database, resume: Resume) -> None:
        """`resume` lets a run go on, in the transaction that delivered."""
        self._database = database
        self._resume = resume

    async def deliver(self, task_id: str, delegation_id: str, delivered: Delivered) -> None:
        """See ports.DelegationStore."""
        async with self._database.transaction() as connection:
            row = await (await connection.execute(_LOCK_JOB, [task_id])).fetchone()
            if row is None:
                raise TaskNotFound(task_id)
            run_id = row["run_id"]
            key = {"run_id": run_id, "id": delegation_id}
            if await (await connection.execute(_IS_THERE, key)).fetchone() is None:
                raise TaskNotFound(task_id)
            kept = {**key, "output": delivered.output, "reason": delivered.reason}
            if (await connection.execute(_DELIVER, kept)).rowcount == 0:
                return
            # With less than all it would only wait again.
            if await (await connection.execute(_OPEN, [run_id])).fetchone() is None:
                await self._resume(connection, run_id)


async def hand_on(connection: AsyncConnection[Row], run_id: str, delegations: Sequence[Delegation]) -> None:
    """Have work done by others, in the transaction that makes the run wait; what is handed on already stays so."""
    is_new = False
    for each in delegations:
        values = {
            "run_id": run_id,
            "id": each.id,
            "number": each.number,
            "coworker": each.coworker,
            "description": each.description,
            "context": each.context,
        }
        is_new = (await connection.execute(_HAND_ON, values)).rowcount == 1 or is_new
    row = await (await connection.execute(_TASK, [run_id])).fetchone() if is_new else None
    if row is not None:
        await emit(connection, name="WorkDelegated", payload={"task_id": row["id"]})


async def of_run(connection: AsyncConnection[Row], run_id: str) -> Sequence[Delegation]:
    """All that the run ever handed on, in its order."""
    return [_delegation(row) for row in await (await connection.execute(_OF_RUN, [run_id])).fetchall()]


async def is_unheard(connection: AsyncConnection[Row], run_id: str) -> bool:
    """Whether something was delivered that the run's journal does not know of."""
    return await (await connection.execute(_UNHEARD, [run_id])).fetchone() is not None


async def open_of_run(database: Database, run_id: str) -> Sequence[Delegation]:
    """What the run handed on and nobody delivered."""
    return [_delegation(row) for row in await database.fetch(_OPEN_OF_RUN, [run_id])]


def _delegation(row: Row) -> Delegation:
    return Delegation(
        id=row["id"],
        number=row["number"],
        coworker=row["coworker"],
        description=row["description"],
        context=row["context"],
        delivered=Delivered(output=row["output"], reason=row["reason"]) if row["is_delivered"] else None,
    )
