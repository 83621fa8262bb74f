"""Runs in Postgres, as their workers write them: every transaction begins by asking whether the job is theirs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from loremesh_kit import jobs
from loremesh_kit.jobs import FenceLost, Job, complete
from loremesh_kit.postgres import Database, Row
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from loremesh_agent.adapters import postgres_approvals, postgres_steps
from loremesh_agent.adapters.postgres_chat_jobs import go_on_with_next
from loremesh_agent.adapters.postgres_chat_work import END, append, check
from loremesh_agent.adapters.postgres_quotations import forget_steps
from loremesh_agent.adapters.postgres_turns import write_end
from loremesh_agent.domain.approvals import Approval
from loremesh_agent.domain.approvals import State as ApprovalState
from loremesh_agent.domain.budgets import NOTHING, added
from loremesh_agent.domain.events import Waiting
from loremesh_agent.domain.steps import Change, Step, StepKind, StepState
from loremesh_agent.ports import Asking, FinishedTurn

_KEEP = """
UPDATE chat_jobs SET usage = coalesce(%(usage)s, usage), record = coalesce(%(record)s, record) WHERE id = %(id)s
"""

_WAIT = "UPDATE chat_jobs SET status = 'WAITING', wait_time = now() WHERE id = %s AND finish_time IS NULL"

# Held until somebody decides, or until it is too late to, and a while longer for whoever says so.
_HOLD = """
UPDATE messages SET lease_until = greatest(lease_until, %(until)s + interval '1 h')
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
    """Somebody decided what the run does not know of yet."""


class PostgresRuns:
    """The tables `steps` and `spending`; see ports.RunWork."""

    def __init__(self, *, database: Database, allowance: Allowance) -> None:
        self._database = database
        self._allowance = allowance

    async def steps(self, job: Job) -> tuple[Sequence[Step], Sequence[Approval]]:
        """See ports.RunWork."""
        async with self._database.transaction() as connection:
            await check(connection, job)
            return await postgres_steps.read(connection, job.id), await postgres_approvals.of_run(connection, job.id)

    async def commit(self, job: Job, change: Change, *, answer_id: str, attempt: int) -> None:
        """See ports.RunWork."""
        # In few round trips: what is told here is waited for between any two steps.
        async with self._database.transaction() as connection, connection.pipeline():
            await check(connection, job)
            await self._write(connection, job, change, answer_id=answer_id, attempt=attempt)

    async def park(
        self, job: Job, change: Change, questions: Sequence[Asking], *, answer_id: str, attempt: int
    ) -> bool:
        """See ports.RunWork."""
        try:
            async with self._database.transaction() as connection:
                # First: whoever decides at this moment waits for us, or we see what was decided.
                await jobs.park(connection, job)
                await _check_pending(connection, job)
                await self._write(connection, job, change, answer_id=answer_id, attempt=attempt)
                for each in questions:
                    await _ask(connection, job, each)
                standing = await postgres_approvals.of_run(connection, job.id)
                pending = [each for each in standing if each.state is ApprovalState.PENDING]
                waiting = [Waiting(each.id, each.question, each.due_time) for each in pending]
                await append(connection, job, waiting, answer_id=answer_id, attempt=attempt)
                until = max(each.due_time for each in pending)
                await connection.execute(_HOLD, {"answer_id": answer_id, "until": until})
                await connection.execute(_WAIT, [job.id])
        except _DecidedMeanwhile:
            job.progress.completed = False
            return False
        return True

    async def finish(self, job: Job, change: Change, finished: FinishedTurn, *, answer_id: str, attempt: int) -> None:
        """See ports.RunWork."""
        async with self._database.transaction() as connection:
            # What counts rows cannot be in a pipeline, which does not know them yet.
            await complete(connection, job)
            async with connection.pipeline():
                await self._write(connection, job, change, answer_id=answer_id, attempt=attempt)
                await postgres_approvals.cancel_of_run(connection, job.id)
                await connection.execute(END, {"id": job.id, "state": finished.state})
                if not await write_end(connection, answer_id, finished):
                    raise FenceLost(job.id)
                await forget_steps(connection, job.id, answer_id)
            await go_on_with_next(connection, job.subject_id)

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
        if change.usage or change.record is not None:
            values = {
                "id": job.id,
                "usage": Jsonb(asdict(change.usage)) if change.usage else None,
                "record": Jsonb(dict(change.record)) if change.record is not None else None,
            }
            await connection.execute(_KEEP, values)
        await append(connection, job, change.happened, answer_id=answer_id, attempt=attempt)


async def _check_pending(connection: AsyncConnection[Row], job: Job) -> None:
    """Raise _DecidedMeanwhile unless all that the run still waits for is undecided."""
    asked = await postgres_steps.read(connection, job.id)
    open_ = {step.name for step in asked if step.kind is StepKind.APPROVAL and not step.output}
    standing = await postgres_approvals.of_run(connection, job.id)
    if any(each.state is not ApprovalState.PENDING for each in standing if each.id in open_):
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
