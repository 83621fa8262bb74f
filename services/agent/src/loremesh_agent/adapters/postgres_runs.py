"""Runs in Postgres, as their workers write them: every transaction begins by asking whether the job is theirs."""

from dataclasses import asdict, dataclass
from typing import Any

from loremesh_kit import jobs
from loremesh_kit.jobs import FenceLost, Job
from loremesh_kit.postgres import Database, Row
from psycopg import AsyncConnection
from psycopg.errors import ForeignKeyViolation
from psycopg.types.json import Jsonb

from loremesh_agent.adapters import postgres_approvals, postgres_delegations, postgres_steps, task_facts
from loremesh_agent.adapters.postgres_chat_jobs import go_on_with_next
from loremesh_agent.adapters.postgres_chat_work import append, check, confirm, held
from loremesh_agent.adapters.postgres_quotations import forget_steps
from loremesh_agent.adapters.postgres_turns import write_end
from loremesh_agent.adapters.task_callers import WaitingCallers
from loremesh_agent.domain.approvals import State as ApprovalState
from loremesh_agent.domain.budgets import NOTHING, added
from loremesh_agent.domain.chat_jobs import ChatJob, Status
from loremesh_agent.domain.events import Answer, FinishReason, Waiting
from loremesh_agent.domain.steps import Change, Step, StepKind, StepState
from loremesh_agent.ports import Asking, FinishedTurn, Recorded, WaitingFor

_KEEP = """
UPDATE chat_jobs SET usage = coalesce(%(usage)s, usage), record = coalesce(%(record)s, record) WHERE id = %(id)s
"""

_FINISH = """
UPDATE chat_jobs SET
    usage = coalesce(%(usage)s, usage), record = coalesce(%(record)s, record), status = %(state)s, finish_time = now()
WHERE id = %(id)s AND finish_time IS NULL RETURNING task_id, answer_id, agent_id, attempt, create_time, finish_time
"""

_WAIT = """
UPDATE chat_jobs SET status = 'WAITING', wait_time = now() WHERE id = %s AND finish_time IS NULL RETURNING task_id
"""

# Held until somebody decides, or until it is too late to, and a while longer for whoever says so; for work that was
# handed on, longer than anybody takes.
_HOLD = """
UPDATE messages SET lease_until = greatest(
    lease_until, coalesce(%(until)s::timestamptz + interval '1 h', now() + interval '100 days')
)
WHERE id = %(answer_id)s AND state = 'IN_PROGRESS'
"""

_LEFT = """
UPDATE chat_jobs SET usage = %(usage)s WHERE id = %(id)s AND status = 'CANCELLED' RETURNING id
"""

_USAGE = "SELECT usage FROM chat_jobs WHERE id = %s AND status = 'CANCELLED' FOR UPDATE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What each tenant may take in a month; None: as much as it likes."""

    tokens: int | None = None
    cost_micros: int | None = None


class _DecidedMeanwhile(Exception):
    """Somebody decided or delivered what the run does not know of yet."""


class PostgresRuns:
    """The tables `steps` and `spending`; see ports.RunWork."""

    def __init__(self, *, database: Database, allowance: Allowance, callers: WaitingCallers) -> None:
        self._database = database
        self._allowance = allowance
        self._callers = callers

    @property
    def reserves(self) -> bool:
        """See ports.RunWork."""
        return self._allowance != Allowance()

    async def recorded(self, job: Job) -> Recorded:
        """See ports.RunWork."""
        async with self._database.transaction() as connection:
            await check(connection, job)
            return Recorded(
                steps=await postgres_steps.read(connection, job.id),
                approvals=await postgres_approvals.of_run(connection, job.id),
                delegations=await postgres_delegations.of_run(connection, job.id),
            )

    async def commit(self, job: Job, change: Change, *, answer_id: str, attempt: int) -> None:
        """See ports.RunWork."""
        try:
            async with self._database.pipeline() as connection:
                ours = await held(connection, job)
                await self._keep(connection, job, change, answer_id=answer_id, attempt=attempt)
                await confirm(ours, job)
        except ForeignKeyViolation:
            # Its conversation was deleted, and the job with it.
            raise FenceLost(job.id) from None

    async def park(self, job: Job, change: Change, waiting: WaitingFor, *, answer_id: str, attempt: int) -> bool:
        """See ports.RunWork."""
        try:
            async with self._database.transaction() as connection:
                # First: whoever decides or delivers at this moment waits for us, or we see what came of it.
                await jobs.park(connection, job)
                await _check_pending(connection, job)
                await self._keep(connection, job, change, answer_id=answer_id, attempt=attempt)
                await postgres_delegations.hand_on(connection, job.id, waiting.delegations)
                for each in waiting.questions:
                    await _ask(connection, job, each)
                standing = await postgres_approvals.of_run(connection, job.id)
                pending = [each for each in standing if each.state is ApprovalState.PENDING]
                told = [Waiting(each.id, each.question, each.due_time) for each in pending]
                await append(connection, job, told, answer_id=answer_id, attempt=attempt)
                until = max((each.due_time for each in pending), default=None)
                await connection.execute(_HOLD, {"answer_id": answer_id, "until": until})
                row = await (await connection.execute(_WAIT, [job.id])).fetchone()
                await task_facts.tell(connection, task_facts.WAITING, task_id=row["task_id"] if row else None)
        except _DecidedMeanwhile:
            job.progress.completed = False
            return False
        return True

    async def finish(self, job: Job, change: Change, finished: FinishedTurn, *, answer_id: str, attempt: int) -> None:
        """See ports.RunWork."""
        async with self._database.pipeline() as connection:
            completed = await jobs.completion(connection, job)
            await self._write(connection, job, change, answer_id=answer_id, attempt=attempt)
            await forget_steps(connection, job.id, answer_id)
            ended = await connection.execute(_FINISH, {**_kept(job, change), "state": finished.state})
            is_kept = await write_end(connection, answer_id, finished)
            await jobs.confirm(completed, job)
            if not is_kept:
                raise FenceLost(job.id)
            row = await ended.fetchone() or {"task_id": None}
            if job.progress.known is None:
                # A run of one attempt that never waited has asked nobody.
                await postgres_approvals.cancel_of_run(connection, job.id)
            if row["task_id"] is None:
                await go_on_with_next(connection, job.subject_id)
            elif not self._callers.tells(connection, row["task_id"], _ended(job, row, finished)):
                await task_facts.tell(connection, task_facts.FINISHED, task_id=row["task_id"])

    async def leave(self, job: Job, step: Step) -> None:
        """See ports.RunWork."""
        async with self._database.transaction() as connection:
            row = await (await connection.execute(_USAGE, [job.id])).fetchone()
            if row is None:
                return
            taken = step.usage or NOTHING
            usage = added(postgres_steps.usage_of(row["usage"]) or NOTHING, taken)
            await connection.execute(_LEFT, {"id": job.id, "usage": Jsonb(asdict(usage))})
            await postgres_steps.write(connection, job.id, [step])
            await postgres_steps.spend(connection, taken)

    async def _keep(
        self, connection: AsyncConnection[Row], job: Job, change: Change, *, answer_id: str, attempt: int
    ) -> None:
        """Of a run that goes on."""
        if change.usage or change.record is not None:
            await connection.execute(_KEEP, _kept(job, change))
        await self._write(connection, job, change, answer_id=answer_id, attempt=attempt)

    async def _write(
        self, connection: AsyncConnection[Row], job: Job, change: Change, *, answer_id: str, attempt: int
    ) -> None:
        reserved = sum((step.reserved.input_tokens + step.reserved.output_tokens for step in change.steps), 0)
        for step in change.steps:
            if reserved and step.state is StepState.STARTED and step.kind is StepKind.MODEL:
                limits = self._allowance
                await postgres_steps.reserve(
                    connection, step.reserved, tokens=limits.tokens, cost_micros=limits.cost_micros
                )
        await postgres_steps.write(connection, job.id, change.steps)
        await postgres_steps.spend(connection, change.taken)
        await append(connection, job, change.happened, answer_id=answer_id, attempt=attempt)


def _kept(job: Job, change: Change) -> dict[str, Any]:
    return {
        "id": job.id,
        "usage": Jsonb(asdict(change.usage)) if change.usage else None,
        "record": Jsonb(dict(change.record)) if change.record is not None else None,
    }


def _ended(job: Job, row: Row, finished: FinishedTurn) -> ChatJob:
    """The job as it reads once this is committed."""
    answer = Answer(
        text=finished.content,
        run_id=job.id,
        conversation_id=job.subject_id,
        message_id=row["answer_id"],
        finish_reason=finished.finish_reason or FinishReason.STOP,
        grounded=finished.grounded,
        sources=tuple(finished.sources),
        usage=finished.usage,
        model=finished.model,
    )
    return ChatJob(
        id=job.id,
        status=Status(finished.state),
        conversation_id=job.subject_id,
        attempt=row["attempt"],
        create_time=row["create_time"],
        finish_time=row["finish_time"],
        answer=answer,
        agent_id=row["agent_id"],
        usage=finished.usage,
    )


async def _check_pending(connection: AsyncConnection[Row], job: Job) -> None:
    """Raise _DecidedMeanwhile unless all that the run still waits for is undecided and undelivered."""
    asked = await postgres_steps.read(connection, job.id)
    open_ = {step.name for step in asked if step.kind is StepKind.APPROVAL and not step.output}
    standing = await postgres_approvals.of_run(connection, job.id)
    if any(each.state is not ApprovalState.PENDING for each in standing if each.id in open_):
        raise _DecidedMeanwhile
    if await postgres_delegations.is_unheard(connection, job.id):
        raise _DecidedMeanwhile


async def _ask(connection: AsyncConnection[Row], job: Job, question: Asking) -> None:
    new = question.new
    step = Step(
        number=question.number,
        kind=StepKind.APPROVAL,
        state=StepState.STARTED,
        name=await postgres_approvals.ask(connection, new),
        input={
            "kind": new.kind,
            "call_id": question.call_id,
            "limit": question.limit,
            "tool": new.tool_name,
            "arguments": dict(new.arguments),
            "question": new.question,
        },
    )
    await postgres_steps.write(connection, job.id, [step])
