"""Runs in Postgres, as they are decided. Row-level security adds the tenant to every statement."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from loremesh_kit import eventlog, identity, jobs
from loremesh_kit.eventlog import Entry
from loremesh_kit.ids import new_id
from loremesh_kit.postgres import Database, Row, together
from psycopg import AsyncConnection

from loremesh_crew.adapters.run_rows import FULL, record
from loremesh_crew.domain import codec
from loremesh_crew.domain.machine import (
    AnswerDelegation,
    CancelTask,
    Command,
    StartChild,
    StartTask,
    StartTimer,
    SteerChild,
    Tell,
    View,
)
from loremesh_crew.ports import Change, Due, Errand, Machines, RunRecord, TaskInFlight, WantedTask

START_TASK, CANCEL_TASK, ANSWER = "start-task", "cancel-task", "answer-delegation"
TIMER, START_CHILD, STEER_CHILD = "timer", "start-child", "steer-child"
TELL_PARENT, FORGET = "tell-parent", "forget-run"
_KINDS: dict[type[Command], str] = {
    StartTask: START_TASK,
    CancelTask: CANCEL_TASK,
    AnswerDelegation: ANSWER,
    StartTimer: TIMER,
    StartChild: START_CHILD,
    SteerChild: STEER_CHILD,
}

_LOCK = f"SELECT {FULL} FROM runs WHERE id = %s FOR UPDATE"  # noqa: S608 - made of constants, as all here

_INSERT = """
INSERT INTO runs (
    id, kind, definition_id, revision, name, principal, pinned, state, engine_version, status, parent_run_id,
    root_run_id, parent_state, forked_from, forked_after_seq, create_time, expire_time
) VALUES (
    %(id)s, %(kind)s, %(definition_id)s, %(revision)s, %(name)s, %(principal)s, %(pinned)s::json, %(state)s::json,
    %(engine_version)s, %(status)s, %(parent_run_id)s, %(root_run_id)s, %(parent_state)s, %(forked_from)s,
    %(forked_after_seq)s, %(create_time)s, %(expire_time)s
) ON CONFLICT DO NOTHING
"""

_UPDATE = """
UPDATE runs SET
    state = %(state)s::json, status = %(status)s, summary = %(summary)s::json, decisions = %(decisions)s,
    last_seq = %(last_seq)s, finish_time = %(finish_time)s
WHERE id = %(id)s
"""

_REMEMBER = """
INSERT INTO run_history (run_id, number, event, commands, last_seq)
SELECT %(run_id)s, number, event::json, commands::json, last_seq
FROM unnest(%(numbers)s::int[], %(events)s::text[], %(commands)s::text[], %(seqs)s::bigint[])
    AS decided (number, event, commands, last_seq)
"""

_IN_FLIGHT = """
INSERT INTO run_tasks (id, run_id, principal) SELECT id, %(run_id)s, %(principal)s FROM unnest(%(ids)s::text[]) AS id
ON CONFLICT DO NOTHING
"""

_FORGET_TASKS = "DELETE FROM run_tasks WHERE id = ANY(%s)"

_COMMAND = """
SELECT (commands -> %(index)s)::text AS command FROM run_history WHERE run_id = %(run_id)s AND number = %(number)s
"""

_WANTED = """
SELECT (commands -> %(index)s)::text AS command, runs.root_run_id, EXISTS (
    SELECT FROM run_tasks WHERE run_tasks.id = commands -> %(index)s ->> 'task_id' AND NOT cancelled
) AS wanted
FROM run_history JOIN runs ON runs.id = run_history.run_id
WHERE run_id = %(run_id)s AND number = %(number)s
"""

_BEGUN = "UPDATE run_tasks SET begun = true, asked_time = now() WHERE id = %s AND NOT cancelled RETURNING id"

_CANCELLED = "UPDATE run_tasks SET cancelled = true WHERE id = %s"

_UNHEARD = """
WITH unheard AS (
    SELECT tenant, id FROM run_tasks WHERE begun AND asked_time < now() - make_interval(secs => %(seconds)s)
    ORDER BY asked_time LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE run_tasks SET asked_time = now() FROM unheard
WHERE run_tasks.tenant = unheard.tenant AND run_tasks.id = unheard.id
RETURNING run_tasks.tenant, run_tasks.principal, run_tasks.id
"""

_MEET = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"


class PostgresRuns:
    """The tables `runs`, `run_history` and `run_tasks`, and the log of each run."""

    def __init__(self, *, database: Database, machines: Machines) -> None:
        self._database = database
        self._machines = machines

    async def lock(self, connection: AsyncConnection[Row], run_id: str) -> RunRecord | None:
        """See ports.RunStore."""
        row = await (await connection.execute(_LOCK, [run_id])).fetchone()
        return record(row, self._machines) if row else None

    async def insert(self, connection: AsyncConnection[Row], run: RunRecord) -> bool:
        """See ports.RunStore."""
        values = {
            "id": run.id,
            "kind": run.pinned.kind,
            "definition_id": run.definition_id,
            "revision": run.revision,
            "name": run.name,
            "principal": run.principal,
            "pinned": codec.dump(run.pinned),
            "state": codec.dump(run.state),
            "engine_version": run.engine_version,
            "status": run.status,
            "parent_run_id": run.parent_run_id,
            "root_run_id": run.pinned.root_run_id,
            "parent_state": run.parent_state,
            "forked_from": run.forked_from,
            "forked_after_seq": run.forked_after_seq,
            "create_time": run.create_time,
            "expire_time": run.expire_time,
        }
        return (await connection.execute(_INSERT, values)).rowcount == 1

    async def write(self, connection: AsyncConnection[Row], change: Change) -> None:
        """See ports.RunStore. All of it goes out at once, and only the commit waits for answers."""
        run, seqs, entries = change.run, _seqs(change), _entries(change)
        history = {
            "run_id": run.id,
            "numbers": [run.decisions + nth for nth, _ in enumerate(change.decisions, start=1)],
            "events": [codec.text(codec.tagged(each.event)) for each in change.decisions],
            "commands": [codec.dump_commands(each.commands) for each in change.decisions],
            "seqs": seqs,
        }
        values = {
            "id": run.id,
            "state": codec.dump(change.state),
            "status": change.state.status,
            "summary": _summary(change.view),
            "decisions": run.decisions + len(change.decisions),
            "last_seq": run.last_seq + len(entries),
            "finish_time": change.finish_time,
        }
        async with together(connection):
            await connection.execute(_UPDATE, values)
            await connection.execute(_REMEMBER, history)
            if change.ended:
                await self.forget_tasks(connection, change.ended)
            await eventlog.append_all(connection, run_id=run.id, entries=entries)
            if not change.discarded:
                await self._issue(connection, run, _due(change))
            await _conclude(connection, change)

    async def issue(self, connection: AsyncConnection[Row], run: RunRecord, due: Sequence[Due]) -> None:
        """See ports.RunStore."""
        async with together(connection):
            await self._issue(connection, run, due)

    async def _issue(self, connection: AsyncConnection[Row], run: RunRecord, due: Sequence[Due]) -> None:
        begun = [each.command.task_id for each in due if isinstance(each.command, StartTask)]
        if begun:
            await connection.execute(_IN_FLIGHT, {"run_id": run.id, "principal": run.principal, "ids": begun})
        with _as_owner(run):
            for each in due:
                _, claim = await jobs.enqueue(
                    connection,
                    kind=_KINDS[type(each.command)],
                    payload=asdict(each.errand),
                    subject_id=run.id,
                    priority=each.command.request.priority if isinstance(each.command, StartTask) else 0,
                    delay=each.delay,
                )
                if claim:
                    claim.progress.known = _known(run, each.command)

    async def forget_tasks(self, connection: AsyncConnection[Row], task_ids: Sequence[str]) -> None:
        """See ports.RunStore."""
        await connection.execute(_FORGET_TASKS, [list(task_ids)])

    async def command(self, errand: Errand) -> Command | None:
        """See ports.RunStore."""
        rows = await self._database.fetch(_COMMAND, asdict(errand))
        return codec.load_command(rows[0]["command"]) if rows else None

    async def wanted(self, errand: Errand) -> WantedTask | None:
        """See ports.RunStore."""
        rows = await self._database.fetch(_WANTED, asdict(errand))
        if not rows or not isinstance(command := codec.load_command(rows[0]["command"]), StartTask):
            return None
        return WantedTask(command=command, root_run_id=rows[0]["root_run_id"], wanted=rows[0]["wanted"])

    async def begun(self, connection: AsyncConnection[Row], task_id: str) -> bool:
        """See ports.RunStore."""
        return await (await connection.execute(_BEGUN, [task_id])).fetchone() is not None

    async def cancelled(self, task_id: str) -> None:
        """See ports.RunStore."""
        await self._database.fetch(_CANCELLED, [task_id])

    async def unheard(self, *, seconds: float, limit: int) -> Sequence[TaskInFlight]:
        """See ports.RunStore."""
        rows = await self._database.fetch_across_tenants(_UNHEARD, {"seconds": seconds, "limit": limit})
        return [TaskInFlight(**row) for row in rows]

    async def meet(self, connection: AsyncConnection[Row], run_id: str) -> None:
        """See ports.RunStore."""
        await connection.execute(_MEET, [f"{identity.current().tenant} {run_id}"])


async def _conclude(connection: AsyncConnection[Row], change: Change) -> None:
    run = change.run
    with _as_owner(run):
        if change.finish_time and run.parent_run_id:
            payload = {"run_id": run.id}
            await jobs.enqueue(connection, kind=TELL_PARENT, payload=payload, subject_id=run.parent_run_id)
        if change.forgets:
            await jobs.enqueue(connection, kind=FORGET, payload={"run_id": run.id}, subject_id=run.id)


def _known(run: RunRecord, command: Command) -> Command | WantedTask:
    """What whoever carries it out would read of it."""
    if isinstance(command, StartTask):
        return WantedTask(command=command, root_run_id=run.pinned.root_run_id, wanted=True)
    return command


def _as_owner(run: RunRecord) -> Any:
    """What is owed is owed to whose run it is, whoever has just decided something in it."""
    caller = identity.current()
    return identity.scope(
        identity.Identity(tenant=caller.tenant, principal=run.principal, request_id=caller.request_id or new_id())
    )


def _entries(change: Change) -> list[Entry]:
    tells = [command for each in change.decisions for command in each.commands if isinstance(command, Tell)]
    if change.terminal:
        tells.append(change.terminal)
    return [Entry(kind=each.kind, payload=each.data, attempt=each.attempt, path=each.path) for each in tells]


def _seqs(change: Change) -> list[int]:
    """Of the last event after each decision."""
    seq, seqs = change.run.last_seq, []
    for each in change.decisions:
        seq += sum(isinstance(command, Tell) for command in each.commands)
        seqs.append(seq)
    if change.terminal:
        seqs[-1] += 1
    return seqs


def _due(change: Change) -> list[Due]:
    return [
        Due(
            errand=Errand(run_id=change.run.id, number=change.run.decisions + nth, index=index),
            command=command,
            delay=command.seconds if isinstance(command, StartTimer) else 0.0,
        )
        for nth, decision in enumerate(change.decisions, start=1)
        for index, command in enumerate(decision.commands)
        if not isinstance(command, Tell)
    ]


def _summary(view: View) -> str:
    return codec.text(
        {"output": view.output, "reason": view.reason, "message": view.message, "usage": asdict(view.usage)}
    )
