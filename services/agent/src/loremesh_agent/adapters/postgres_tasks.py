"""Tasks in Postgres. Row-level security adds the tenant to every statement."""

from datetime import UTC, datetime, timedelta
from typing import Any

from loremesh_kit import jobs
from loremesh_kit.errors import IdempotencyConflict
from loremesh_kit.ids import new_id
from loremesh_kit.postgres import Database, Row
from psycopg import AsyncConnection

from loremesh_agent.adapters.postgres_chat_jobs import (
    COLUMNS,
    KEPT,
    KIND,
    LEASE_BEYOND_DEADLINE,
    MAX_ATTEMPTS,
    end,
    with_answer,
)
from loremesh_agent.adapters.postgres_delegations import open_of_run
from loremesh_agent.domain.chat_jobs import ChatJob, Status
from loremesh_agent.domain.events import Cancelled
from loremesh_agent.domain.tasks import Task
from loremesh_agent.domain.tools import Effect, Outcome
from loremesh_agent.errors import QueueFull, TaskNotFound
from loremesh_agent.ports import AskedInBackground, NewTask, NewTurn

# All of it or nothing, in one round trip.
_ACCEPT = """
WITH waiting AS (
    SELECT count(*) AS jobs FROM (SELECT FROM chat_jobs WHERE status = 'QUEUED' LIMIT %(limit)s) AS queued
), task AS (
    INSERT INTO tasks (id, run_id, root_run_id, name, request_hash, memory_run_id)
    SELECT %(task_id)s, %(run_id)s, %(root_run_id)s, %(name)s, %(request_hash)s, %(memory_run_id)s
    FROM waiting WHERE jobs < %(limit)s
    ON CONFLICT DO NOTHING RETURNING id
), conversation AS (
    INSERT INTO conversations (id, title, agent_id, attributes, message_count, hidden)
    SELECT %(conversation_id)s, '', %(agent_id)s, '{}', 2, true FROM task
), shared AS (
    INSERT INTO conversations (id, title, agent_id, attributes, hidden)
    SELECT %(memory_run_id)s, '', '', '{}', true FROM task WHERE %(memory_run_id)s <> ''
    ON CONFLICT DO NOTHING
), said AS (
    INSERT INTO messages (id, conversation_id, position, role, content, state, lease_until, run_id, agent_revision)
    SELECT %(question_id)s, %(conversation_id)s, 1, 'USER', %(message)s, 'COMPLETED', NULL, '', 0 FROM task
    UNION ALL
    SELECT %(answer_id)s, %(conversation_id)s, 2, 'AGENT', '', 'IN_PROGRESS',
        clock_timestamp() + make_interval(secs => %(lease)s), %(run_id)s, %(agent_revision)s FROM task
)
INSERT INTO chat_jobs (
    id, conversation_id, question_id, answer_id, agent_id, request, seconds, task_id, status, attempt, begin_time
)
SELECT %(run_id)s, %(conversation_id)s, %(question_id)s, %(answer_id)s, %(agent_id)s, %(request)s, %(seconds)s, id,
    CASE WHEN %(begun)s THEN 'RUNNING' ELSE 'QUEUED' END, %(begun)s::int, CASE WHEN %(begun)s THEN now() END
FROM task
RETURNING create_time
"""

_KNOWN = "SELECT request_hash FROM tasks WHERE id = %(task_id)s"

_RUN = "SELECT run_id FROM tasks WHERE id = %s"

_GET = f"""
SELECT {COLUMNS}, task_id, (
    SELECT approvals.id FROM approvals WHERE run_id = chat_jobs.id AND approvals.state = 'PENDING'
    ORDER BY approvals.id LIMIT 1
) AS approval_id, EXISTS (
    SELECT FROM steps JOIN jsonb_array_elements(record -> 'rules' -> 'tools') AS tool ON tool ->> 'name' = steps.name
    WHERE steps.run_id = chat_jobs.id AND steps.kind = 'TOOL' AND tool ->> 'effect' = '{Effect.SIDE_EFFECTING}'
        AND coalesce(steps.output ->> 'outcome', '') <> '{Outcome.REFUSED}'
) AS changed
FROM chat_jobs WHERE id = (SELECT run_id FROM tasks WHERE tasks.id = %(task_id)s) AND {KEPT}
"""  # noqa: S608 - made of constants


class _NotMade(Exception):
    """There is a task of this id, or no room for one."""


class PostgresTasks:
    """The table `tasks`, and the chat jobs that they are; see ports.TaskStore."""

    def __init__(self, *, database: Database, waiting_limit: int, seconds: float) -> None:
        """As PostgresChatJobs."""
        self._database = database
        self._waiting_limit = waiting_limit
        self._seconds = seconds

    async def create(self, new: NewTask) -> Task:
        """See ports.TaskStore."""
        try:
            async with self._database.pipeline() as connection:
                job = await self._accept(connection, new)
        except _NotMade:
            known = await self.known(new.order.task_id, request_hash=new.request_hash)
            if known is None:
                raise QueueFull(limit=self._waiting_limit) from None
            return known
        return Task(id=new.order.task_id, job=job)

    async def _accept(self, connection: AsyncConnection[Row], new: NewTask) -> ChatJob:
        order, conversation_id = new.order, new_id()
        run_id, claim = await jobs.enqueue(
            connection,
            kind=KIND,
            payload={},
            subject_id=conversation_id,
            priority=order.priority,
            max_attempts=MAX_ATTEMPTS,
            deadline=datetime.now(UTC) + timedelta(seconds=self._seconds),
        )
        turn = NewTurn(
            run_id=run_id,
            question_id=new_id(),
            answer_id=new_id(),
            text=order.message,
            agent_id=new.agent_id,
            agent_revision=new.agent_revision,
            conversation_id=conversation_id,
            new_conversation_id=conversation_id,
        )
        if claim:
            # As its worker would read it from what is written here.
            claim.progress.known = AskedInBackground(
                turn=turn, request=new.request, attempt=1, history=(), task_id=order.task_id, order=order
            )
        parameters: dict[str, Any] = {
            "task_id": order.task_id,
            "run_id": run_id,
            "root_run_id": order.root_run_id,
            "name": order.name,
            "request_hash": new.request_hash,
            "memory_run_id": order.memory_run_id,
            "conversation_id": conversation_id,
            "agent_id": new.agent_id,
            "agent_revision": new.agent_revision,
            "question_id": turn.question_id,
            "answer_id": turn.answer_id,
            "message": order.message,
            "request": new.request,
            "seconds": self._seconds,
            "limit": self._waiting_limit,
            "lease": self._seconds + LEASE_BEYOND_DEADLINE,
            "begun": claim is not None,
        }
        row = await (await connection.execute(_ACCEPT, parameters)).fetchone()
        if row is None:
            raise _NotMade
        return ChatJob(
            id=run_id,
            status=Status.RUNNING if claim else Status.QUEUED,
            conversation_id=conversation_id,
            attempt=1 if claim else 0,
            create_time=row["create_time"],
            agent_id=new.agent_id,
        )

    async def known(self, task_id: str, *, request_hash: bytes) -> Task | None:
        """See ports.TaskStore."""
        rows = await self._database.fetch(_KNOWN, {"task_id": task_id})
        if not rows:
            return None
        if bytes(rows[0]["request_hash"]) != request_hash:
            message = "The task id was used before with another request."
            raise IdempotencyConflict(message, metadata={"key": task_id})
        return await self.get(task_id)

    async def get(self, task_id: str) -> Task:
        """See ports.TaskStore."""
        rows = await self._database.fetch(_GET, {"task_id": task_id})
        if not rows:
            raise TaskNotFound(task_id)
        row = rows[0]
        kept_id, approval_id, changed = (row.pop(name) for name in ("task_id", "approval_id", "changed"))
        job = await with_answer(self._database, row)
        handed_on = [] if job.finish_time else await open_of_run(self._database, job.id)
        return Task(id=kept_id, job=job, approval_id=approval_id or "", delegations=handed_on, changed=changed)

    async def cancel(self, task_id: str) -> None:
        """See ports.TaskStore."""
        async with self._database.transaction() as connection:
            row = await (await connection.execute(_RUN, [task_id])).fetchone()
            if row is None:
                raise TaskNotFound(task_id)
            if await jobs.cancel(connection, row["run_id"]):
                await end(connection, row["run_id"], Status.CANCELLED, Cancelled())
