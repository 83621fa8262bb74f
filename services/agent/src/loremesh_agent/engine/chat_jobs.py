"""Chat in the background: accepted, looked at, watched, cancelled."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from loremesh_kit import eventlog
from loremesh_kit.events import Bus
from loremesh_kit.loops import repeat, unless
from loremesh_kit.pages import Position
from loremesh_kit.postgres import Database

from loremesh_agent.domain.agents import Agent
from loremesh_agent.domain.chat_jobs import ChatJob, Status
from loremesh_agent.domain.events import Event, Heartbeat
from loremesh_agent.domain.journal import payload_of
from loremesh_agent.domain.questions import Question
from loremesh_agent.domain.steps import Step
from loremesh_agent.engine.chat import ChatEngine, new_turn
from loremesh_agent.engine.quoting import Quoting
from loremesh_agent.ports import ChatJobStore, Claim

_PURGE_SECONDS = 60.0
_FREE_SECONDS = 1.0


class ChatJobs:
    """The use cases of ChatJobService."""

    def __init__(
        self,
        *,
        store: ChatJobStore,
        chat: ChatEngine,
        quoting: Quoting,
        database: Database,
        bus: Bus | None,
        heartbeat: float,
    ) -> None:
        """`bus` wakes watchers, `heartbeat` is in seconds."""
        self._store = store
        self._chat = chat
        self._quoting = quoting
        self._database = database
        self._bus = bus
        self._heartbeat = heartbeat

    async def create(
        self,
        question: Question,
        *,
        request: bytes,
        claim: Claim | None,
        again: bool = False,
        agent: Agent | None = None,
    ) -> tuple[str, str]:
        """Ids of the job and of its conversation; `again` as in ChatJobStore.create, `agent` as in ChatEngine.stream.

        Raises as ChatEngine.check and ChatJobStore.create.
        """
        agent = agent or await self._chat.check(question)
        turn = new_turn(question, agent, claim=claim)
        return await self._store.create(turn, request, busy=agent.busy_policy, again=again)

    async def get(self, job_id: str) -> ChatJob:
        """Raises ChatJobNotFound."""
        job = await self._store.get(job_id)
        return replace(job, answer=await self._quoting.answer(job.answer)) if job.answer else job

    async def page(self, *, after: Position | None, limit: int, status: Status | None) -> Sequence[ChatJob]:
        """Newest first, without answers."""
        return await self._store.page(after=after, limit=limit, status=status)

    async def cancel(self, job_id: str) -> ChatJob:
        """The job as it is now; raises ChatJobNotFound."""
        await self._store.cancel(job_id)
        return await self.get(job_id)

    async def steps(self, job_id: str, *, after_number: int, limit: int) -> Sequence[Step]:
        """The steps of its run behind a number, in order; raises ChatJobNotFound."""
        return await self._store.steps(job_id, after_number=after_number, limit=limit)

    async def events(self, job_id: str, *, after_seq: int, limit: int) -> tuple[list[Event], int]:
        """Events up to now, and the number of the last there is; raises ChatJobNotFound, AfterSeqOutOfRange."""
        _, last_seq = await self._store.standing(job_id, after_seq=after_seq)
        events = await self._store.events(job_id, after_seq=after_seq, limit=limit)
        return [await self._shown(event) for event in events], last_seq

    async def watch(self, job_id: str, *, after_seq: int) -> AsyncGenerator[Event, None]:
        """Events past and to come, up to the terminal one; nothing where that was the last one seen.

        Raises, before the first event, AfterSeqOutOfRange, and at any time ChatJobNotFound: a job may be deleted.
        """
        finished, last_seq = await self._store.standing(job_id, after_seq=after_seq)
        if finished and after_seq == last_seq:
            return
        async for kept in eventlog.tail(
            self._database, self._bus, run_id=job_id, after_seq=after_seq, heartbeat=self._heartbeat
        ):
            if isinstance(kept, eventlog.Heartbeat):
                # Its conversation may have been deleted, and nothing more will come.
                await self._store.standing(job_id, after_seq=0)
                yield Event(run_id=job_id, seq=0, time=datetime.now(UTC), payload=Heartbeat())
                continue
            payload = payload_of(kept.kind, kept.payload)
            event = Event(run_id=job_id, seq=kept.seq, time=kept.time, payload=payload, attempt=kept.attempt)
            yield await self._shown(event)
            if event.terminal:
                return

    async def _shown(self, event: Event) -> Event:
        return replace(event, payload=await self._quoting.payload(event.payload))


class Purge:
    """Removes jobs once their days are over; any number may run."""

    def __init__(self, *, store: ChatJobStore) -> None:
        self._store = store

    async def run(self, stop: asyncio.Event) -> None:
        """Purge until `stop`."""

        async def step() -> None:
            if await self._store.purge() == 0:
                await unless(stop, asyncio.sleep(_PURGE_SECONDS))

        await repeat(step, stop=stop, name="chat job purge")


class Queue:
    """Begins turns that waited for a conversation which nobody said was free; any number may run."""

    def __init__(self, *, store: ChatJobStore) -> None:
        self._store = store

    async def run(self, stop: asyncio.Event) -> None:
        """Look until `stop`."""

        async def step() -> None:
            await self._store.free()
            await unless(stop, asyncio.sleep(_FREE_SECONDS))

        await repeat(step, stop=stop, name="queued turns")
