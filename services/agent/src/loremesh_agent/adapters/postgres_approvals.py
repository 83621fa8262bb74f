"""Approvals in Postgres. Row-level security adds the tenant to every statement.

Whoever asks, decides or lets expire locks in one order: the run's job, its approvals, the log of approvals. So a run
that parks in the transaction in which it looked at its approvals misses no decision, and nobody waits in a circle.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, LiteralString

from loremesh_kit import eventlog, identity
from loremesh_kit.errors import EtagMismatch, PageTokenInvalid
from loremesh_kit.events import Bus
from loremesh_kit.ids import new_id
from loremesh_kit.outbox import emit
from loremesh_kit.pages import Position
from loremesh_kit.postgres import Database, Row
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from loremesh_agent.domain.approvals import (
    Alarm,
    Approval,
    Decision,
    Kind,
    NewApproval,
    State,
    said_before,
    state_after,
)
from loremesh_agent.domain.tools import ExpiryPolicy
from loremesh_agent.errors import ApprovalDecided, ApprovalNotFound
from loremesh_agent.ports import DueAlarm

Resume = Callable[[AsyncConnection[Row], str], Awaitable[object]]

# One log for all approvals of a tenant: of ids, for those who watch them.
_LOG = "approvals"
_CHANGED = "changed"
# Pending approvals that a watch reads at once.
_STANDING_PAGE = 200

_COLUMNS = (
    "id, kind, state, run_id, conversation_id, agent_id, tool_name, arguments, edited, question, on_expiry,"
    " create_time, due_time, remind_time, escalate_time, decide_time, decided_by, comment, answer, revision,"
    " root_run_id, task_name, assignee, output, output_schema"
)

_ASK = f"""
INSERT INTO approvals (
    id, kind, run_id, conversation_id, agent_id, tool_name, arguments, question, on_expiry, principal, due_time,
    alarm_time, assignee, output, output_schema, root_run_id, task_name
) VALUES (
    %(id)s, %(kind)s, %(run_id)s, %(conversation_id)s, %(agent_id)s, %(tool_name)s, %(arguments)s, %(question)s,
    %(on_expiry)s, %(principal)s, now() + %(due_in)s, now() + %(due_in)s / 2, %(assignee)s, %(output)s,
    %(output_schema)s,
    coalesce((SELECT root_run_id FROM tasks WHERE run_id = %(run_id)s), ''),
    coalesce((SELECT name FROM tasks WHERE run_id = %(run_id)s), '')
) RETURNING {_COLUMNS}
"""  # noqa: S608 - made of constants, as all here

_CANCEL = f"""
UPDATE approvals SET state = 'CANCELLED', decide_time = now(), revision = revision + 1
WHERE run_id = %s AND state = 'PENDING' RETURNING {_COLUMNS}
"""  # noqa: S608

_OF_RUN = f"SELECT {_COLUMNS} FROM approvals WHERE run_id = %s ORDER BY id"  # noqa: S608

_GET = f"SELECT {_COLUMNS} FROM approvals WHERE id = %(id)s"  # noqa: S608

_PAGE = f"""
SELECT {_COLUMNS} FROM approvals
WHERE state = %(state)s AND (%(run_id)s = '' OR %(run_id)s IN (run_id, root_run_id))
    AND (%(assignee)s = '' OR assignee IN ('', %(assignee)s))
    AND (%(time)s::timestamptz IS NULL OR (due_time, id) > (%(time)s::timestamptz, %(id)s))
ORDER BY due_time, id LIMIT %(limit)s
"""  # noqa: S608

_STANDING = f"""
SELECT coalesce((SELECT last_seq FROM event_heads WHERE run_id = '{_LOG}'), 0) AS last_seq, pending.*
FROM (VALUES (1)) AS always (there)
LEFT JOIN (
    SELECT {_COLUMNS} FROM approvals
    WHERE state = 'PENDING' AND (%(run_id)s = '' OR %(run_id)s IN (run_id, root_run_id))
        AND (%(due_time)s::timestamptz IS NULL OR (due_time, id) > (%(due_time)s::timestamptz, %(id)s))
    ORDER BY due_time, id LIMIT %(limit)s
) AS pending ON true
ORDER BY due_time, id
"""  # noqa: S608

_LOCK_JOB = """
SELECT FROM jobs WHERE tenant = %(tenant)s AND id = (SELECT run_id FROM approvals WHERE id = %(id)s) FOR UPDATE
"""

_LOCK = f"SELECT {_COLUMNS} FROM approvals WHERE id = %(id)s FOR UPDATE"  # noqa: S608

_DECIDE = f"""
UPDATE approvals SET
    state = %(state)s, arguments = coalesce(%(arguments)s, arguments), edited = %(edited)s, answer = %(answer)s,
    comment = %(comment)s, decided_by = %(decided_by)s, decide_time = now(), revision = revision + 1
WHERE id = %(id)s RETURNING {_COLUMNS}
"""  # noqa: S608

_REASSIGN = f"""
UPDATE approvals SET assignee = %(assignee)s, revision = revision + 1 WHERE id = %(id)s RETURNING {_COLUMNS}
"""  # noqa: S608

_DUE = "SELECT tenant, id AS approval_id, principal FROM approvals ORDER BY alarm_time LIMIT %s"

# A tenant's own clock would be another's: the database's is everybody's.
_TAKE = f"SELECT {_COLUMNS}, now() AS now FROM approvals WHERE id = %(id)s AND state = 'PENDING' FOR UPDATE SKIP LOCKED"  # noqa: S608

_ALARMS: Mapping[Alarm, LiteralString] = {
    Alarm.REMIND: "remind_time = now(), alarm_time = create_time + (due_time - create_time) * 0.9",
    Alarm.ESCALATE: "escalate_time = now(), alarm_time = due_time",
    Alarm.EXPIRE: "state = 'EXPIRED', decide_time = now()",
}
_RING = {
    alarm: f"UPDATE approvals SET {change}, revision = revision + 1 WHERE id = %(id)s RETURNING {_COLUMNS}"  # noqa: S608
    for alarm, change in _ALARMS.items()
}
_FACTS = {
    Alarm.REMIND: "ApprovalReminded",
    Alarm.ESCALATE: "ApprovalEscalated",
    Alarm.EXPIRE: "ApprovalExpired",
}


class PostgresApprovals:
    """The table `approvals`; see ports.ApprovalStore and ports.ApprovalAlarms."""

    def __init__(self, *, database: Database, bus: Bus | None, resume: Resume) -> None:
        """`resume` lets a run go on, in the transaction that decided; `bus` wakes watchers."""
        self._database = database
        self._bus = bus
        self._resume = resume

    async def get(self, approval_id: str) -> Approval:
        """See ports.ApprovalStore."""
        rows = await self._database.fetch(_GET, {"id": approval_id})
        if not rows:
            raise ApprovalNotFound(approval_id)
        return _approval(rows[0])

    async def page(
        self, *, after: Position | None, limit: int, state: State, run_id: str = "", assignee: str = ""
    ) -> Sequence[Approval]:
        """See ports.ApprovalStore."""
        parameters = {
            "time": _time(after),
            "id": after.id if after else "",
            "limit": limit,
            "state": state,
            "run_id": run_id,
            "assignee": assignee,
        }
        return [_approval(row) for row in await self._database.fetch(_PAGE, parameters)]

    async def decide(self, approval_id: str, decision: Decision, *, etag: str) -> Approval:
        """See ports.ApprovalStore."""
        async with self._database.transaction() as connection:
            approval = await _locked(connection, approval_id)
            if said_before(approval, decision):
                return approval
            # Nobody may decide what only waits for its alarm to ring. The database's clock is everybody's.
            row = await (await connection.execute("SELECT now() AS now")).fetchone()
            if row is not None and approval.alarm(row["now"]) is Alarm.EXPIRE:
                raise ApprovalDecided(approval_id, state=State.EXPIRED)
            if etag not in ("", approval.etag):
                raise EtagMismatch
            parameters = {
                "id": approval_id,
                "state": state_after(decision.verdict),
                "arguments": None if decision.arguments is None else Jsonb(dict(decision.arguments)),
                "edited": decision.arguments is not None,
                "answer": decision.answer,
                "comment": decision.comment,
                "decided_by": identity.current().principal,
            }
            (decided,) = await _changed(connection, _DECIDE, parameters)
            await self._resume(connection, decided.run_id)
            await _tell(connection, decided, fact="ApprovalDecided")
        return decided

    async def reassign(self, approval_id: str, assignee: str, *, etag: str) -> Approval:
        """See ports.ApprovalStore."""
        async with self._database.transaction() as connection:
            approval = await _locked(connection, approval_id)
            if approval.state is not State.PENDING:
                raise ApprovalDecided(approval_id, state=approval.state)
            if approval.assignee == assignee:
                return approval
            if etag not in ("", approval.etag):
                raise EtagMismatch
            (reassigned,) = await _changed(connection, _REASSIGN, {"id": approval_id, "assignee": assignee})
            await _tell(connection, reassigned, fact="ApprovalReassigned")
        return reassigned

    async def watch(self, *, run_id: str, heartbeat: float) -> AsyncGenerator[Approval | None, None]:
        """See ports.ApprovalStore."""
        page = {"run_id": run_id, "due_time": None, "id": "", "limit": _STANDING_PAGE}
        rows = await self._database.fetch(_STANDING, page)
        # What changes while later pages are read is told after them.
        last_seq = rows[0]["last_seq"]
        while True:
            for row in rows:
                if row["id"] is not None:
                    yield _approval({name: value for name, value in row.items() if name != "last_seq"})
            if len(rows) < _STANDING_PAGE:
                break
            rows = await self._database.fetch(
                _STANDING, {**page, "due_time": rows[-1]["due_time"], "id": rows[-1]["id"]}
            )
        async for event in eventlog.tail(
            self._database, self._bus, run_id=_LOG, after_seq=last_seq, heartbeat=heartbeat
        ):
            if isinstance(event, eventlog.Heartbeat):
                yield None
            elif run_id in ("", event.payload["run_id"], event.payload.get("root_run_id", "")):
                changed = await self._database.fetch(_GET, {"id": event.payload["id"]})
                # What is told is how it stands now: of changes that followed at once, only the last.
                if changed and changed[0]["revision"] == event.payload["revision"]:
                    yield _approval(changed[0])

    async def due(self, *, limit: int) -> Sequence[DueAlarm]:
        """See ports.ApprovalAlarms."""
        return [DueAlarm(**row) for row in await self._database.fetch_across_tenants(_DUE, [limit])]

    async def ring(self, approval_id: str) -> Alarm | None:
        """See ports.ApprovalAlarms."""
        async with self._database.transaction() as connection:
            key = {"tenant": identity.current().tenant, "id": approval_id}
            await connection.execute(_LOCK_JOB, key)
            row = await (await connection.execute(_TAKE, key)).fetchone()
            if row is None:
                return None
            now = row.pop("now")
            alarm = _approval(row).alarm(now)
            if alarm is None:
                return None
            (rung,) = await _changed(connection, _RING[alarm], key)
            if alarm is Alarm.EXPIRE:
                await self._resume(connection, rung.run_id)
            await _tell(connection, rung, fact=_FACTS[alarm])
        return alarm


async def _locked(connection: AsyncConnection[Row], approval_id: str) -> Approval:
    """The approval, nobody else's until the transaction ends; raises ApprovalNotFound."""
    key = {"tenant": identity.current().tenant, "id": approval_id}
    await connection.execute(_LOCK_JOB, key)
    row = await (await connection.execute(_LOCK, key)).fetchone()
    if row is None:
        raise ApprovalNotFound(approval_id)
    return _approval(row)


async def ask(connection: AsyncConnection[Row], new: NewApproval) -> str:
    """Ask a human, in the transaction that makes the run wait; its id.

    To be called late in the transaction: until its end nobody else of the tenant can ask or decide.
    """
    parameters: dict[str, Any] = {
        "id": new_id(),
        "kind": new.kind,
        "run_id": new.run_id,
        "conversation_id": new.conversation_id,
        "agent_id": new.agent_id,
        "tool_name": new.tool_name,
        "arguments": Jsonb(dict(new.arguments)),
        "question": new.question,
        "on_expiry": new.on_expiry,
        "principal": identity.current().principal,
        "due_in": new.due_in,
        "assignee": new.assignee,
        "output": new.output,
        "output_schema": None if new.output_schema is None else Jsonb(dict(new.output_schema)),
    }
    (asked,) = await _changed(connection, _ASK, parameters)
    await _tell(connection, asked, fact="ApprovalRequested")
    return asked.id


async def cancel_of_run(connection: AsyncConnection[Row], run_id: str) -> None:
    """Nobody has to decide any more what the run asked: it ends in this transaction, which holds its job."""
    for cancelled in await _changed(connection, _CANCEL, [run_id]):
        await _tell(connection, cancelled, fact="ApprovalCancelled")


async def of_run(connection: AsyncConnection[Row], run_id: str) -> Sequence[Approval]:
    """All that the run ever asked, the first question first."""
    return await _changed(connection, _OF_RUN, [run_id])


async def _changed(
    connection: AsyncConnection[Row], statement: LiteralString, parameters: Mapping[str, Any] | Sequence[Any]
) -> list[Approval]:
    return [_approval(row) for row in await (await connection.execute(statement, parameters)).fetchall()]


async def _tell(connection: AsyncConnection[Row], approval: Approval, *, fact: str) -> None:
    """Tell other services, and then those who watch: the log is locked from here on."""
    ids = {"approval_id": approval.id, "run_id": approval.run_id, "conversation_id": approval.conversation_id}
    await emit(connection, name=fact, payload={**ids, "state": approval.state})
    told = {
        "id": approval.id,
        "run_id": approval.run_id,
        "root_run_id": approval.root_run_id,
        "revision": approval.revision,
    }
    await eventlog.append(connection, run_id=_LOG, kind=_CHANGED, payload=told)


def _approval(row: Mapping[str, Any]) -> Approval:
    kinds = {
        "kind": Kind(row["kind"]),
        "state": State(row["state"]),
        "on_expiry": ExpiryPolicy(row["on_expiry"]),
    }
    return Approval(**{**row, **kinds})


def _time(after: Position | None) -> datetime | None:
    try:
        return datetime.fromisoformat(after.sort_key) if after else None
    except ValueError as error:
        raise PageTokenInvalid from error
