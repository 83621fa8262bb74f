"""Answers a job's message: as a run with a journal, or as the chat engine does, told into the job's log."""

import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from loremesh_kit.errors import ServiceError
from loremesh_kit.jobs import Job

from loremesh_agent.domain.conversations import Exchange
from loremesh_agent.domain.events import Failed, Heartbeat, Payload, TextDelta
from loremesh_agent.domain.questions import Question
from loremesh_agent.domain.runs import needs_run
from loremesh_agent.domain.tasks import TaskOrder
from loremesh_agent.engine.chat import ChatEngine
from loremesh_agent.engine.orders import Orders
from loremesh_agent.engine.running import Running
from loremesh_agent.errors import GivenUp, ProviderError
from loremesh_agent.ports import AgentDirectory, AskedInBackground, ChatWork, FinishedTurn, NewTurn, TurnStore

# How often a provider may fail; a worker may die oftener. A task may have changed something and is then not begun anew:
# to go on is its only way.
_PROVIDER_ATTEMPTS = 4
_PROVIDER_ATTEMPTS_OF_TASKS = 8


class Answering:
    """The handler of chat jobs."""

    def __init__(
        self,
        *,
        work: ChatWork,
        agents: AgentDirectory,
        orders: Orders,
        running: Running,
        engine: Callable[[TurnStore], ChatEngine],
        read: Callable[[bytes], Question],
        read_order: Callable[[bytes], TaskOrder],
        group_seconds: float,
    ) -> None:
        """`running` takes the runs with a journal; `engine` makes one for the turns of the rest.

        `read` reads requests of chats, `read_order` those of tasks; text is written each `group_seconds`.
        """
        self._work = work
        self._agents = agents
        self._orders = orders
        self._running = running
        self._engine = engine
        self._read = read
        self._read_order = read_order
        self._group_seconds = group_seconds

    async def __call__(self, job: Job) -> None:
        """See jobs.Handler."""
        asked = await self._work.begin(job)
        try:
            if asked.task_id:
                await self._do(job, asked)
                return
            question = self._read(asked.request)
            agent = None if asked.record is not None else await self._agents.get(question.agent_id)
            if agent is None or needs_run(agent, question):
                await self._running(job, asked, question, agent)
            else:
                await self._answer(job, asked, question)
        except ServiceError as error:
            raise _final(error, job, is_task=bool(asked.task_id)) from error

    async def _do(self, job: Job, asked: AskedInBackground) -> None:
        """A task: always a run with a journal."""
        order = asked.order or self._read_order(asked.request)
        agent = None
        if asked.record is None:
            agent = await self._orders.agent(order, revision=asked.turn.agent_revision)
        await self._running(job, replace(asked, order=order), Question(text=order.message), agent)

    async def _answer(self, job: Job, asked: AskedInBackground, question: Question) -> None:
        turns = _HeldTurns(history=asked.history)
        journal = _Journal(job, asked, work=self._work, seconds=self._group_seconds)
        async with aclosing(self._engine(turns).stream(question, turn=asked.turn)) as events:
            async for event in events:
                if isinstance(event.payload, Failed):
                    await journal.flush()
                    raise event.payload.error
                if event.terminal and turns.finished:
                    await journal.finish(event.payload, turns.finished)
                else:
                    await journal.add(event.payload)


class _Journal:
    """Events of one attempt on their way into the log, text in groups: a transaction for each token is too much."""

    def __init__(self, job: Job, asked: AskedInBackground, *, work: ChatWork, seconds: float) -> None:
        self._job = job
        self._asked = asked
        self._work = work
        self._seconds = seconds
        self._pending: list[Payload] = []
        self._written_at = 0.0

    async def add(self, happened: Payload) -> None:
        """Write it soon; a heartbeat is a chance to."""
        last = self._pending[-1] if self._pending else None
        match happened, last:
            case Heartbeat(), _:
                pass
            case TextDelta(text, block), TextDelta(before, same) if same == block:
                self._pending[-1] = TextDelta(before + text, block)
            case _:
                self._pending.append(happened)
        if time.monotonic() - self._written_at >= self._seconds:
            await self.flush()

    async def flush(self) -> None:
        """Write what is waiting."""
        if self._pending:
            await self._work.tell(
                self._job, self._pending, answer_id=self._asked.turn.answer_id, attempt=self._asked.attempt
            )
            self._pending = []
            self._written_at = time.monotonic()

    async def finish(self, terminal: Payload, finished: FinishedTurn) -> None:
        """Write what is waiting and the end, with the answer."""
        await self._work.finish(
            self._job,
            [*self._pending, terminal],
            finished,
            answer_id=self._asked.turn.answer_id,
            attempt=self._asked.attempt,
        )


class _HeldTurns:
    """A TurnStore for a turn which its job has begun: its end is held, to be committed together with the job's."""

    def __init__(self, *, history: Sequence[Exchange]) -> None:
        self._history = history
        self.finished: FinishedTurn | None = None

    async def begin(self, turn: NewTurn) -> Sequence[Exchange]:
        """What was said before."""
        del turn
        return self._history

    async def keep(self, turn: NewTurn, content: str) -> None:
        """Nothing: the log keeps it."""

    async def finish(self, turn: NewTurn, finished: FinishedTurn) -> None:
        """Hold it."""
        del turn
        self.finished = finished

    async def withdraw(self, turn: NewTurn) -> None:
        """Nothing: the job decides what becomes of its turn."""


def _final(error: ServiceError, job: Job, *, is_task: bool) -> ServiceError:
    """The failure, as one that is not tried again where it was often enough."""
    attempts = _PROVIDER_ATTEMPTS_OF_TASKS if is_task else _PROVIDER_ATTEMPTS
    spent = isinstance(error, ProviderError) and job.attempt >= attempts
    return GivenUp(error) if spent and error.retryable else error
