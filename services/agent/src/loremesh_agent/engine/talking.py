"""Chat, whatever the agent: answered here and now, or as a run that survives whoever answers."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog
from loremesh_kit.errors import ServiceError

from loremesh_agent.domain.agents import Agent
from loremesh_agent.domain.chat_jobs import Status
from loremesh_agent.domain.events import Answer, Cancelled, Completed, Event, Failed, Incomplete
from loremesh_agent.domain.questions import Question
from loremesh_agent.engine.chat import ChatEngine, NeedsRun
from loremesh_agent.engine.chat_jobs import ChatJobs
from loremesh_agent.engine.settling import settle
from loremesh_agent.errors import RunCancelled
from loremesh_agent.ports import Claim

_log = structlog.get_logger(__name__)


class Talking:
    """The use cases of ChatService."""

    def __init__(self, *, chat: ChatEngine, jobs: ChatJobs) -> None:
        self._chat = chat
        self._jobs = jobs

    async def answer(self, question: Question, *, request: bytes, claim: Claim | None = None) -> Answer:
        """The whole answer, or what there was when a limit cut it; raises what a stream would end with."""
        async with aclosing(self.stream(question, request=request, claim=claim)) as events:
            async for event in events:
                match event.payload:
                    case Completed(answer) | Incomplete(answer):
                        return answer
                    case Failed(error):
                        raise error
                    case Cancelled():
                        break
        raise RunCancelled

    async def stream(
        self, question: Question, *, request: bytes, claim: Claim | None = None
    ) -> AsyncGenerator[Event, None]:
        """What happens while the question is answered; leaving early cancels that, unless it waits for a human.

        Raises as ChatEngine.stream, and QueueFull.
        """
        try:
            async with aclosing(self._chat.stream(question, claim=claim)) as events:
                async for event in events:
                    yield event
                return
        except NeedsRun as needed:
            agent = needed.agent
        async with aclosing(self._run(question, agent, request=request, claim=claim)) as events:
            async for event in events:
                yield event

    async def _run(
        self, question: Question, agent: Agent, *, request: bytes, claim: Claim | None
    ) -> AsyncGenerator[Event, None]:
        job_id, _ = await self._jobs.create(question, request=request, claim=claim, again=True, agent=agent)
        is_over = False
        try:
            async with aclosing(self._jobs.watch(job_id, after_seq=0)) as events:
                async for event in events:
                    is_over = is_over or event.terminal
                    yield event
        finally:
            if not is_over:
                await self._leave(job_id)

    async def _leave(self, job_id: str) -> None:
        async def cancel() -> None:
            if (await self._jobs.get(job_id)).status is not Status.WAITING:
                await self._jobs.cancel(job_id)

        try:
            await settle(cancel)
        except (ServiceError, TimeoutError) as error:
            _log.warning("a run that nobody waits for could not be cancelled", run_id=job_id, error=str(error))
