"""Chat: a question in, a run's events out."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from loremesh_kit.clock import Clock
from loremesh_kit.errors import ServiceError
from loremesh_kit.ids import new_id
from loremesh_kit.loops import background

from loremesh_agent.domain import prompts
from loremesh_agent.domain.agents import Agent
from loremesh_agent.domain.events import Answer, Completed, Event, Failed, FinishReason, Heartbeat, Incomplete, Payload
from loremesh_agent.domain.followups import search_text
from loremesh_agent.domain.journal import answer_of
from loremesh_agent.domain.questions import Question
from loremesh_agent.domain.relevance import Floors, is_relevant
from loremesh_agent.domain.runs import needs_run
from loremesh_agent.engine.quoting import Quoting
from loremesh_agent.engine.run import Run, Task
from loremesh_agent.engine.searching import LookingAhead, search
from loremesh_agent.engine.settling import settle
from loremesh_agent.ports import (
    AgentDirectory,
    AnsweredBefore,
    Claim,
    ModelProvider,
    NewTurn,
    PassageIndex,
    TurnStore,
)

_F = TypeVar("_F")
_S = TypeVar("_S")
_log = structlog.get_logger(__name__)


class NeedsRun(Exception):
    """To be answered in a run with a journal, by this agent."""

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent.id)
        self.agent = agent


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds of silence after which a stream says that it lives, and between keeping what there is of an answer."""

    heartbeat: float = 10.0
    keep: float = 5.0


class ChatEngine:
    """Answers questions from the documents."""

    def __init__(
        self,
        *,
        agents: AgentDirectory,
        index: PassageIndex,
        provider: ModelProvider,
        turns: TurnStore,
        quoting: Quoting,
        clock: Clock,
        floors: Floors,
        pace: Pace,
    ) -> None:
        self._agents = agents
        self._index = index
        self._provider = provider
        self._turns = turns
        self._quoting = quoting
        self._clock = clock
        self._floors = floors
        self._pace = pace
        self._looking_ahead = LookingAhead(index=index)

    async def answer(self, question: Question, *, claim: Claim | None = None) -> Answer:
        """The whole answer, or what there was when a limit cut it; raises what a stream would end with.

        `claim` as in `stream`.
        """
        async with aclosing(self.stream(question, claim=claim)) as events:
            async for event in events:
                match event.payload:
                    case Completed(answer) | Incomplete(answer):
                        return answer
                    case Failed(error):
                        raise error
        raise AssertionError("unreachable: a stream has a terminal event")

    async def check(self, question: Question) -> Agent:
        """The agent that would answer; raises as AgentDirectory does, and MessageTooLong."""
        if question.conversation_id is None:
            agent = await self._agents.get(question.agent_id)
        else:
            agent = await self._agents.held(question.conversation_id, agent_id=question.agent_id)
        prompts.check(agent, question=question.text, max_output_tokens=question.max_output_tokens)
        return agent

    async def stream(
        self,
        question: Question,
        *,
        claim: Claim | None = None,
        turn: NewTurn | None = None,
    ) -> AsyncGenerator[Event, None]:
        """What happens while the question is answered, as `turn` if that is given; leaving early cancels the run.

        Without a turn raises NeedsRun, and has begun nothing, where the answer takes more than this.

        With a claim that was answered before, the answer of then is the one event; raises ConversationBusy while it is
        being answered, and IdempotencyConflict.

        Raises, before the first event, MessageTooLong, AgentNotFound, ConversationNotFound, ConversationBusy,
        VectorStoreNotFound, FilterInvalid, DependencyUnavailable and DeadlineExceeded; later failures are events.
        """
        try:
            async with background() as group:
                task = await self._begin(question, turn, claim, group)
        except AnsweredBefore as before:
            answer = await self._quoting.answer(answer_of(before.message))
            payload = Completed(answer) if answer.finish_reason is FinishReason.STOP else Incomplete(answer)
            yield Event(run_id=answer.run_id, seq=1, time=self._clock.now(), payload=payload)
            return
        happened = _Happened(run_id=task.turn.run_id, clock=self._clock)
        run = Run(
            task,
            emit=happened.add,
            provider=self._provider,
            turns=self._turns,
            quoting=self._quoting,
            keep_seconds=self._pace.keep,
        )
        # The run never raises, so that this group never cancels whoever holds the generator between two events.
        async with background() as group:
            group.create_task(run.write())
            while True:
                event = await happened.next(silence=self._pace.heartbeat)
                yield event
                if event.terminal:
                    break

    async def _begin(
        self, question: Question, turn: NewTurn | None, claim: Claim | None, group: asyncio.TaskGroup
    ) -> Task:
        ahead, query = None, search_text(question.text, ())
        if turn is None and question.conversation_id is None:
            ahead = self._looking_ahead.begin(query, question=question, group=group)
        agent = await self.check(question)
        if turn is None and needs_run(agent, question):
            self._looking_ahead.forget(question)
            raise NeedsRun(agent)
        turn = turn or new_turn(question, agent, claim=claim)
        try:
            if turn.conversation_id is None:
                searching = self._looking_ahead.found(query, question=question, agent=agent, ahead=ahead)
                # The search first: it takes longer.
                found, history = await _both(searching, self._turns.begin(turn))
            else:
                history = await self._turns.begin(turn)
                query = search_text(question.text, history if agent.rewrite_questions else ())
                searching = search(self._index, query, question=question, agent=agent)
                found, history = await _both(searching, self._quoting.history(history))
            prompt = None
            if is_relevant(query, found, self._floors):
                prompt = prompts.build(
                    agent,
                    question=question.text,
                    passages=found.passages,
                    history=history,
                    max_output_tokens=question.max_output_tokens,
                )
        except BaseException:
            await self._withdraw(turn)
            raise
        return Task(
            turn=turn,
            agent=agent,
            prompt=prompt,
            temperature=question.temperature,
            search_text=query,
            generations=found.generations,
        )

    async def _withdraw(self, turn: NewTurn) -> None:
        try:
            await settle(lambda: self._turns.withdraw(turn))
        except (ServiceError, TimeoutError) as error:
            _log.warning("a refused turn could not be withdrawn", run_id=turn.run_id, error=str(error))


async def _both(first: Coroutine[Any, Any, _F], second: Coroutine[Any, Any, _S]) -> tuple[_F, _S]:
    try:
        async with asyncio.TaskGroup() as group:
            one, other = group.create_task(first), group.create_task(second)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return one.result(), other.result()


def new_turn(question: Question, agent: Agent, *, claim: Claim | None = None) -> NewTurn:
    """A turn for the question and who answers it, with ids of its own."""
    return NewTurn(
        run_id=new_id(),
        question_id=new_id(),
        answer_id=new_id(),
        text=question.text,
        agent_id=agent.id,
        agent_revision=agent.revision,
        conversation_id=question.conversation_id,
        new_conversation_id=new_id(),
        claim=claim,
    )


class _Happened:
    """The events of a run between the one who makes them and the one who reads them."""

    def __init__(self, *, run_id: str, clock: Clock) -> None:
        self._run_id = run_id
        self._clock = clock
        self._queue: asyncio.Queue[Event] = asyncio.Queue()
        self._seq = 0

    def add(self, payload: Payload) -> None:
        """The next event."""
        self._seq += 1
        self._queue.put_nowait(self._event(self._seq, payload))

    async def next(self, *, silence: float) -> Event:
        """The next event, or a heartbeat after so many seconds without one."""
        if not self._queue.empty():
            return self._queue.get_nowait()
        try:
            async with asyncio.timeout(silence):
                return await self._queue.get()
        except TimeoutError:
            return self._event(0, Heartbeat())

    def _event(self, seq: int, payload: Payload) -> Event:
        return Event(run_id=self._run_id, seq=seq, time=self._clock.now(), payload=payload)
