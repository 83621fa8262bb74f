"""Chat jobs in Postgres, as their workers see them: every transaction begins by asking whether the job is theirs."""

from collections.abc import Sequence

from loremesh_kit import eventlog, jobs
from loremesh_kit.errors import ServiceError
from loremesh_kit.jobs import FenceLost, Job
from loremesh_kit.postgres import Database, Row
from psycopg import AsyncConnection, AsyncCursor
from psycopg.types.json import Jsonb

from loremesh_agent.adapters.postgres_chat_jobs import end
from loremesh_agent.adapters.postgres_quotations import quote, quoted, without_forgotten
from loremesh_agent.adapters.postgres_turns import history_before, write_end
from loremesh_agent.domain.chat_jobs import Status
from loremesh_agent.domain.conversations import Exchange
from loremesh_agent.domain.events import Failed, Payload
from loremesh_agent.domain.journal import entry
from loremesh_agent.errors import ConversationBusy, ConversationNotFound, GivenUp
from loremesh_agent.ports import AskedInBackground, FinishedTurn, NewTurn

# Shared: a claim by another waits for our commit, and the heartbeat of our own worker passes over a locked row.
_OURS = """
SELECT 1 AS ours FROM jobs
WHERE id = %(id)s AND tenant = %(tenant)s AND fence = %(fence)s AND state = 'RUNNING' FOR SHARE
"""

_BEGIN = """
WITH before AS (SELECT id, resumed FROM chat_jobs WHERE id = %(id)s)
UPDATE chat_jobs SET
    status = 'RUNNING', attempt = chat_jobs.attempt + CASE WHEN before.resumed THEN 0 ELSE 1 END, resumed = false,
    begin_time = coalesce(begin_time, now())
FROM messages AS said, messages AS asked, before
WHERE chat_jobs.id = before.id AND finish_time IS NULL AND said.id = answer_id AND asked.id = question_id
RETURNING chat_jobs.conversation_id, question_id, answer_id, agent_id, request, attempt, asked.content AS text,
    said.state, said.agent_revision, record, before.resumed, task_id,
    extract(epoch FROM now() - begin_time - waited)::float8 AS worked_seconds
"""

_END = """
UPDATE chat_jobs SET status = %(state)s, finish_time = now(), record = coalesce(%(record)s, record)
WHERE id = %(id)s AND finish_time IS NULL
"""


class PostgresChatWork:
    """What workers write of `chat_jobs`; see ports.ChatWork."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def begin(self, job: Job) -> AskedInBackground:
        """See ports.ChatWork."""
        if isinstance(job.progress.known, AskedInBackground):
            return job.progress.known
        async with self._database.pipeline() as connection:
            ours = await held(connection, job)
            begun = await connection.execute(_BEGIN, {"id": job.id})
            await confirm(ours, job)
            row = await begun.fetchone()
            if row is None:
                raise ConversationNotFound(job.subject_id)
            if row["state"] != "IN_PROGRESS":
                raise GivenUp(ConversationBusy(job.subject_id, retry_after=1.0))
            history: Sequence[Exchange] = []
            if row["task_id"] is None:
                history = await history_before(connection, row["conversation_id"], question_id=row["question_id"])
        turn = NewTurn(
            run_id=job.id,
            question_id=row["question_id"],
            answer_id=row["answer_id"],
            text=row["text"],
            agent_id=row["agent_id"],
            conversation_id=row["conversation_id"],
            new_conversation_id=row["conversation_id"],
            agent_revision=row["agent_revision"],
        )
        return AskedInBackground(
            turn=turn,
            request=row["request"],
            attempt=row["attempt"],
            history=history,
            resumed=row["resumed"],
            record=row["record"],
            worked_seconds=row["worked_seconds"],
            task_id=row["task_id"] or "",
        )

    async def tell(self, job: Job, happened: Sequence[Payload], *, answer_id: str, attempt: int) -> None:
        """See ports.ChatWork."""
        async with self._database.pipeline() as connection:
            ours = await held(connection, job)
            await append(connection, job, happened, answer_id=answer_id, attempt=attempt)
            await confirm(ours, job)

    async def finish(
        self, job: Job, happened: Sequence[Payload], finished: FinishedTurn, *, answer_id: str, attempt: int
    ) -> None:
        """See ports.ChatWork."""
        async with self._database.pipeline() as connection:
            completed = await jobs.completion(connection, job)
            await append(connection, job, happened, answer_id=answer_id, attempt=attempt)
            record = Jsonb(finished.record) if finished.record else None
            await connection.execute(_END, {"id": job.id, "state": finished.state, "record": record})
            is_kept = await write_end(connection, answer_id, finished)
            await jobs.confirm(completed, job)
            if not is_kept:
                raise FenceLost(job.id)

    async def give_up(self, connection: AsyncConnection[Row], job: Job, error: ServiceError) -> None:
        """In the transaction of the dead letter, end the job as failed."""
        cause = error.cause if isinstance(error, GivenUp) else error
        await end(connection, job.id, Status.FAILED, Failed(cause))


async def check(connection: AsyncConnection[Row], job: Job) -> None:
    """Raise FenceLost unless the job is ours, and keep it so until the transaction ends."""
    await confirm(await held(connection, job), job)


async def held(connection: AsyncConnection[Row], job: Job) -> AsyncCursor[Row]:
    """Ask whether the job is ours, and keep it so; in a pipeline `confirm` may come after what is written."""
    return await connection.execute(_OURS, {"id": job.id, "tenant": job.tenant, "fence": job.fence})


async def confirm(ours: AsyncCursor[Row], job: Job) -> None:
    """Raise FenceLost unless it is."""
    if await ours.fetchone() is None:
        raise FenceLost(job.id)


async def append(
    connection: AsyncConnection[Row], job: Job, happened: Sequence[Payload], *, answer_id: str, attempt: int
) -> None:
    """Write events to the job's log, without passages of documents that are forgotten."""
    known = await quote(connection, answer_id, quoted(happened))
    told = (entry(without_forgotten(each, known)) for each in happened)
    entries = [eventlog.Entry(kind=kind, payload=payload, attempt=attempt) for kind, payload in told]
    await eventlog.append_all(connection, run_id=job.id, entries=entries)
