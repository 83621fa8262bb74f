"""Chat jobs in Postgres, as their owners see them. Row-level security adds the tenant to every statement."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

from loremesh_kit import eventlog, identity, jobs
from loremesh_kit.errors import AfterSeqOutOfRange, PageTokenInvalid
from loremesh_kit.idempotency import once, remember
from loremesh_kit.pages import Position
from loremesh_kit.postgres import Database, Row
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from loremesh_agent.adapters import postgres_approvals, postgres_steps, task_facts
from loremesh_agent.adapters.postgres_quotations import forget_steps
from loremesh_agent.adapters.postgres_rows import MESSAGE, message
from loremesh_agent.adapters.postgres_turns import open_turn
from loremesh_agent.domain import journal
from loremesh_agent.domain.chat_jobs import ChatJob, Status
from loremesh_agent.domain.definitions import BusyPolicy
from loremesh_agent.domain.events import Cancelled, Event, Failed
from loremesh_agent.domain.steps import Step
from loremesh_agent.errors import ChatJobNotFound, ConversationBusy, KeptFailure, QueueFull
from loremesh_agent.ports import Claim, NewTurn

KIND = "chat"
# Whoever counts more deaths than this has found a message that kills workers; what a provider fails is given up sooner.
MAX_ATTEMPTS = 20
# A job that ended late has said so by then.
LEASE_BEYOND_DEADLINE = 60.0
_PURGED_AT_ONCE = 200

COLUMNS = "id, status, conversation_id, attempt, create_time, finish_time, error, answer_id, agent_id, record, usage"
KEPT = "(finish_time IS NULL OR finish_time > now() - interval '7 days')"

_INSERT = """
INSERT INTO chat_jobs (id, conversation_id, question_id, answer_id, agent_id, request, seconds, turn)
VALUES (
    %(id)s, %(conversation_id)s, %(question_id)s, %(answer_id)s, %(agent_id)s, %(request)s, %(seconds)s, %(turn)s
)
"""

_RESUME = """
UPDATE chat_jobs SET
    status = 'QUEUED', resumed = true, waited = waited + (now() - wait_time), wait_time = NULL
WHERE id = %s AND status = 'WAITING' RETURNING seconds, answer_id, task_id
"""

# Of a run that goes on: until nobody can be working on it any more.
_EXTEND = """
UPDATE messages SET lease_until = greatest(lease_until, now() + make_interval(secs => %(lease)s))
WHERE id = %(answer_id)s AND state = 'IN_PROGRESS'
"""

_HELD = """
SELECT FROM messages WHERE conversation_id = %s AND state = 'IN_PROGRESS' AND lease_until > clock_timestamp()
"""

_QUEUED_BEFORE = "SELECT FROM chat_jobs WHERE conversation_id = %s AND turn IS NOT NULL AND finish_time IS NULL"

_HOLDERS = "SELECT id FROM chat_jobs WHERE conversation_id = %s AND turn IS NULL AND finish_time IS NULL"

_DROP_HOLDER = """
UPDATE messages SET state = 'CANCELLED', lease_until = NULL WHERE conversation_id = %s AND state = 'IN_PROGRESS'
"""

_NEXT = """
SELECT id, turn, seconds FROM chat_jobs WHERE conversation_id = %s AND turn IS NOT NULL AND finish_time IS NULL
ORDER BY create_time, id LIMIT 1
"""

_LOCK_CONVERSATION = "SELECT FROM conversations WHERE id = %s FOR UPDATE"

_BEGUN = "UPDATE chat_jobs SET turn = NULL WHERE id = %s"

_QUEUED = "SELECT DISTINCT tenant, conversation_id FROM chat_jobs WHERE turn IS NOT NULL LIMIT %s"

_WAITING = "SELECT count(*) AS jobs FROM (SELECT FROM chat_jobs WHERE status = 'QUEUED' LIMIT %s) AS waiting"

_GET = f"SELECT {COLUMNS} FROM chat_jobs WHERE id = %(id)s AND {KEPT}"  # noqa: S608 - made of constants, as all here

_ANSWER = f"SELECT {MESSAGE} FROM messages WHERE id = %(answer_id)s"  # noqa: S608

_PAGE = f"""
SELECT {COLUMNS} FROM chat_jobs
WHERE task_id IS NULL AND {KEPT} AND (%(status)s::text IS NULL OR status = %(status)s)
    AND (%(time)s::timestamptz IS NULL OR (create_time, id) < (%(time)s::timestamptz, %(id)s))
ORDER BY create_time DESC, id DESC LIMIT %(limit)s
"""  # noqa: S608

# What was said so far by the attempt that is the last now: what an answer is kept as that will never be whole.
_END = """
WITH ended AS (
    UPDATE chat_jobs SET status = %(status)s, error = %(error)s, finish_time = now(), turn = NULL
    WHERE id = %(id)s AND finish_time IS NULL
    RETURNING id, answer_id, attempt, conversation_id, task_id
), kept AS (
    UPDATE messages SET state = %(status)s, lease_until = NULL, content = coalesce((
        SELECT string_agg(payload ->> 'text', '' ORDER BY seq) FROM events
        WHERE run_id = %(id)s AND events.attempt = ended.attempt AND kind = 'text_delta'
    ), '')
    FROM ended WHERE messages.id = ended.answer_id AND messages.state = 'IN_PROGRESS'
)
SELECT attempt, conversation_id, answer_id, task_id FROM ended
"""

_STANDING = f"""
SELECT finish_time IS NOT NULL AS finished,
    coalesce((SELECT last_seq FROM event_heads WHERE run_id = chat_jobs.id), 0) AS last_seq
FROM chat_jobs WHERE id = %(id)s AND {KEPT}
"""  # noqa: S608

_EXPIRED = "SELECT tenant, id FROM chat_jobs WHERE finish_time < now() - interval '7 days' LIMIT %s"

_OF_CONVERSATION = "SELECT id FROM chat_jobs WHERE conversation_id = %s"

_FORGET_EVENTS = """
WITH logs AS (DELETE FROM event_heads WHERE run_id = ANY(%(ids)s))
DELETE FROM events WHERE run_id = ANY(%(ids)s)
"""

_PURGE = "DELETE FROM chat_jobs WHERE id = ANY(%(ids)s)"

# With the tasks themselves; and the short-term memories that no other task shares.
_PURGE_TASKS = """
WITH gone AS (
    SELECT conversation_id, memory_run_id FROM tasks JOIN chat_jobs ON chat_jobs.id = run_id
    WHERE run_id = ANY(%(ids)s)
)
DELETE FROM conversations USING gone
WHERE hidden AND (conversations.id = gone.conversation_id OR conversations.id = memory_run_id AND NOT EXISTS (
    SELECT FROM tasks AS others WHERE others.memory_run_id = gone.memory_run_id AND NOT others.run_id = ANY(%(ids)s)
))
"""


class PostgresChatJobs:
    """The table `chat_jobs`, and the log of each job."""

    def __init__(self, *, database: Database, waiting_limit: int, seconds: float) -> None:
        """At most `waiting_limit` jobs of a tenant wait; what is not answered after `seconds` has failed."""
        self._database = database
        self._waiting_limit = waiting_limit
        self._seconds = seconds

    async def create(self, turn: NewTurn, request: bytes, *, busy: BusyPolicy, again: bool) -> tuple[str, str]:
        """See ports.ChatJobStore."""
        async with self._database.pipeline() as connection:
            before = await _before(connection, turn.claim, again=again)
            if before:
                return before
            await self._admit(connection)
            conversation_id = turn.conversation_id or turn.new_conversation_id
            if busy is BusyPolicy.INTERRUPT and turn.conversation_id:
                await _interrupt(connection, turn.conversation_id)
            waits = busy is BusyPolicy.QUEUE and await _is_held(connection, conversation_id)
            job_id, _ = await jobs.enqueue(
                connection,
                kind=KIND,
                payload={},
                subject_id=conversation_id,
                max_attempts=MAX_ATTEMPTS,
                deadline=datetime.now(UTC) + timedelta(seconds=self._seconds),
                parked=waits,
            )
            turn = replace(turn, run_id=job_id)
            if not waits:
                await open_turn(connection, turn, lease=self._seconds + LEASE_BEYOND_DEADLINE)
            values = {
                "id": job_id,
                "conversation_id": conversation_id,
                "question_id": turn.question_id,
                "answer_id": turn.answer_id,
                "agent_id": turn.agent_id,
                "request": request,
                "seconds": self._seconds,
                "turn": Jsonb(asdict(replace(turn, claim=None))) if waits else None,
            }
            await connection.execute(_INSERT, values)
            if turn.claim:
                made = json.dumps([job_id, conversation_id]).encode()
                await remember(connection, key=turn.claim.key, method=turn.claim.method, response=made)
        return job_id, conversation_id

    async def _admit(self, connection: AsyncConnection[Row]) -> None:
        row = await (await connection.execute(_WAITING, [self._waiting_limit])).fetchone()
        if row and row["jobs"] >= self._waiting_limit:
            raise QueueFull(limit=self._waiting_limit)

    async def get(self, job_id: str) -> ChatJob:
        """See ports.ChatJobStore."""
        rows = await self._database.fetch(_GET, {"id": job_id})
        if not rows:
            raise ChatJobNotFound(job_id)
        return await with_answer(self._database, rows[0])

    async def page(self, *, after: Position | None, limit: int, status: Status | None) -> Sequence[ChatJob]:
        """See ports.ChatJobStore."""
        parameters = {"time": _time(after), "id": after.id if after else "", "limit": limit, "status": status}
        return [_job(row) for row in await self._database.fetch(_PAGE, parameters)]

    async def cancel(self, job_id: str) -> None:
        """See ports.ChatJobStore."""
        async with self._database.transaction() as connection:
            if await jobs.cancel(connection, job_id):
                await end(connection, job_id, Status.CANCELLED, Cancelled())
        await self.get(job_id)

    async def steps(self, job_id: str, *, after_number: int, limit: int) -> Sequence[Step]:
        """See ports.ChatJobStore."""
        async with self._database.transaction() as connection:
            if await (await connection.execute(_GET, {"id": job_id})).fetchone() is None:
                raise ChatJobNotFound(job_id)
            return await postgres_steps.read(connection, job_id, after=after_number, limit=limit)

    async def free(self) -> int:
        """See ports.ChatJobStore."""
        rows = await self._database.fetch_across_tenants(_QUEUED, [_PURGED_AT_ONCE])
        for row in rows:
            caller = identity.Identity(tenant=row["tenant"], principal="", request_id="")
            with identity.scope(caller):
                async with self._database.transaction() as connection:
                    await go_on_with_next(connection, row["conversation_id"])
        return len(rows)

    async def standing(self, job_id: str, *, after_seq: int) -> tuple[bool, int]:
        """See ports.ChatJobStore."""
        rows = await self._database.fetch(_STANDING, {"id": job_id})
        if not rows:
            raise ChatJobNotFound(job_id)
        finished, last_seq = bool(rows[0]["finished"]), int(rows[0]["last_seq"])
        if after_seq > last_seq:
            raise AfterSeqOutOfRange(last_seq)
        return finished, last_seq

    async def events(self, job_id: str, *, after_seq: int, limit: int) -> Sequence[Event]:
        """See ports.ChatJobStore."""
        async with self._database.transaction() as connection:
            kept = await eventlog.read(connection, run_id=job_id, after_seq=after_seq, limit=limit)
        return [event(job_id, each) for each in kept]

    async def purge(self) -> int:
        """See ports.ChatJobStore."""
        rows = await self._database.fetch_across_tenants(_EXPIRED, [_PURGED_AT_ONCE])
        for tenant in {row["tenant"] for row in rows}:
            ids = {"ids": [row["id"] for row in rows if row["tenant"] == tenant]}
            async with self._database.transaction(tenant) as connection:
                await connection.execute(_FORGET_EVENTS, ids)
                await connection.execute(_PURGE_TASKS, ids)
                await connection.execute(_PURGE, ids)
        return len(rows)


async def end(connection: AsyncConnection[Row], job_id: str, status: Status, terminal: Cancelled | Failed) -> None:
    """End a job without a whole answer: row, message and terminal event; nothing where it has ended before."""
    told = journal.entry(terminal)
    error = json.dumps(told.payload) if status is Status.FAILED else None
    parameters = {"id": job_id, "status": status, "error": error}
    row = await (await connection.execute(_END, parameters)).fetchone()
    if row:
        await postgres_approvals.cancel_of_run(connection, job_id)
        await forget_steps(connection, job_id, row["answer_id"])
        await eventlog.append(
            connection, run_id=job_id, kind=told.kind, payload=told.payload, attempt=max(1, row["attempt"])
        )
        await task_facts.tell(connection, task_facts.FINISHED, task_id=row["task_id"])
        if row["task_id"] is None:
            await go_on_with_next(connection, row["conversation_id"])


async def resume(connection: AsyncConnection[Row], run_id: str) -> None:
    """Let a run go on that waits for a human, in the transaction in which they decided; nothing where it does not."""
    # Its job first: a worker that parks it at this moment is waited for.
    await connection.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", [run_id])
    row = await (await connection.execute(_RESUME, [run_id])).fetchone()
    if row:
        lease = row["seconds"] + LEASE_BEYOND_DEADLINE
        await connection.execute(_EXTEND, {"answer_id": row["answer_id"], "lease": lease})
        await jobs.unpark(connection, run_id, deadline=datetime.now(UTC) + timedelta(seconds=row["seconds"]))
        await task_facts.tell(connection, task_facts.RESUMED, task_id=row["task_id"])


async def go_on_with_next(connection: AsyncConnection[Row], conversation_id: str) -> None:
    """Begin the turn that waits for the conversation, the oldest first, if it is free."""
    if await (await connection.execute(_NEXT, [conversation_id])).fetchone() is None:
        return
    # One after the other: whoever comes second must see what the first has begun.
    await connection.execute(_LOCK_CONVERSATION, [conversation_id])
    row = await (await connection.execute(_NEXT, [conversation_id])).fetchone()
    if row is None:
        return
    try:
        await open_turn(connection, NewTurn(**row["turn"]), lease=row["seconds"] + LEASE_BEYOND_DEADLINE)
    except ConversationBusy:
        return
    await connection.execute(_BEGUN, [row["id"]])
    await jobs.unpark(connection, row["id"], deadline=datetime.now(UTC) + timedelta(seconds=row["seconds"]))


async def _interrupt(connection: AsyncConnection[Row], conversation_id: str) -> None:
    """Cancel whatever answers in the conversation."""
    for row in await (await connection.execute(_HOLDERS, [conversation_id])).fetchall():
        if await jobs.cancel(connection, row["id"]):
            await end(connection, row["id"], Status.CANCELLED, Cancelled())
    await connection.execute(_DROP_HOLDER, [conversation_id])


async def _is_held(connection: AsyncConnection[Row], conversation_id: str) -> bool:
    """Whether a new turn has to wait, for the one that is answered now or for others that wait."""
    await connection.execute(_LOCK_CONVERSATION, [conversation_id])
    for query in (_HELD, _QUEUED_BEFORE):
        if await (await connection.execute(query, [conversation_id])).fetchone() is not None:
            return True
    return False


async def with_answer(database: Database, row: Row) -> ChatJob:
    """The job of the columns in COLUMNS, with its answer if there is one."""
    job = _job(row)
    if job.status not in (Status.COMPLETED, Status.INCOMPLETE):
        return job
    said = await database.fetch(_ANSWER, row)
    if not said:
        return job
    answer = journal.answer_of(message(said[0]))
    return replace(job, answer=replace(answer, usage=job.usage or answer.usage))


async def forget_jobs(connection: AsyncConnection[Row], conversation_id: str) -> None:
    """Cancel the jobs of a conversation that is about to be deleted, and remove their events."""
    rows = await (await connection.execute(_OF_CONVERSATION, [conversation_id])).fetchall()
    for row in rows:
        await jobs.cancel(connection, row["id"])
    if rows:
        await connection.execute(_FORGET_EVENTS, {"ids": [row["id"] for row in rows]})


def event(job_id: str, kept: eventlog.Event) -> Event:
    """An event of the log."""
    payload = journal.payload_of(kept.kind, kept.payload)
    return Event(run_id=job_id, seq=kept.seq, time=kept.time, payload=payload, attempt=kept.attempt)


async def _before(connection: AsyncConnection[Row], claim: Claim | None, *, again: bool) -> tuple[str, str] | None:
    """What a request with the same key was told before; with `again`, unless that came to nothing."""
    if claim is None:
        return None
    made = await once(connection, key=claim.key, method=claim.method, request_hash=claim.request_hash)
    if made is None:
        return None
    job_id, conversation_id = json.loads(made)
    if again:
        row = await (await connection.execute(_GET, {"id": job_id})).fetchone()
        if row is None or row["status"] in (Status.FAILED, Status.CANCELLED):
            return None
    return job_id, conversation_id


def _job(row: Row) -> ChatJob:
    fields = {name: value for name, value in row.items() if name not in ("answer_id", "error", "status", "usage")}
    return ChatJob(
        **fields,
        status=Status(row["status"]),
        error=KeptFailure(**row["error"]) if row["error"] else None,
        usage=postgres_steps.usage_of(row["usage"]),
    )


def _time(after: Position | None) -> datetime | None:
    try:
        return datetime.fromisoformat(after.sort_key) if after else None
    except ValueError as error:
        raise PageTokenInvalid from error
