"""What happens in a run, on its way into the run's log and journal: text in groups, the rest as it comes."""

import asyncio
import time
from dataclasses import replace

from loremesh_kit.jobs import Job

from loremesh_agent.domain.events import Payload, TextDelta
from loremesh_agent.domain.steps import Change, Step, joined
from loremesh_agent.ports import AskedInBackground, FinishedTurn, RunWork, WaitingFor


class Telling:
    """Writes for one attempt, one transaction after the other, so that all is told in its order."""

    def __init__(self, job: Job, asked: AskedInBackground, *, work: RunWork, seconds: float) -> None:
        """Text waits for at most `seconds`."""
        self._job = job
        self._work = work
        self._seconds = seconds
        self._answer_id, self._attempt = asked.turn.answer_id, asked.attempt
        self._pending: list[Payload] = []
        self._intended = Change()
        self._intended_at = 0.0
        self._written_at = time.monotonic()
        self._due = asyncio.Event()
        self._writing = asyncio.Lock()

    def add(self, happened: Payload) -> None:
        """Tell it soon."""
        last = self._pending[-1] if self._pending else None
        match happened, last:
            case TextDelta(text, block), TextDelta(before, same) if same == block:
                self._pending[-1] = TextDelta(before + text, block)
            case _:
                self._pending.append(happened)
        if time.monotonic() - self._written_at >= self._seconds:
            self._due.set()

    def intend(self, change: Change) -> None:
        """Write it soon, and at the latest with what comes of it."""
        before, self._intended_at = self._intended, time.monotonic()
        record = before.record if change.record is None else change.record
        self._intended = replace(change, steps=[*before.steps, *change.steps], record=record)

    def left(self, step: Step) -> Step:
        """A step that is let go of, as it is written outside of what is told here."""
        return next(iter(joined(self._intended.steps, [step], age=time.monotonic() - self._intended_at)))

    async def run(self) -> None:
        """Write what waits, for as long as nobody cancels it; raises FenceLost."""
        while True:
            await self._wait()
            if self._pending or self._intended != Change():
                await self.commit(Change())

    async def commit(self, change: Change) -> None:
        """Write the change and what waits; raises FenceLost, TenantBudgetExhausted."""
        async with self._writing:
            whole = self._whole(change)
            await self._work.commit(self._job, whole, answer_id=self._answer_id, attempt=self._attempt)

    async def park(self, change: Change, waiting: WaitingFor) -> bool:
        """Write the change and what waits, and park the job; see ports.RunWork."""
        async with self._writing:
            whole = self._whole(change)
            parked = await self._work.park(self._job, whole, waiting, answer_id=self._answer_id, attempt=self._attempt)
            if not parked:
                self._pending[:0] = whole.happened
            return parked

    async def finish(self, change: Change, finished: FinishedTurn) -> None:
        """Write the change and what waits, and the end."""
        async with self._writing:
            whole = self._whole(change)
            await self._work.finish(self._job, whole, finished, answer_id=self._answer_id, attempt=self._attempt)

    def _whole(self, change: Change) -> Change:
        """The change, with what waits and what is intended."""
        intended, self._intended = self._intended, Change()
        age = time.monotonic() - self._intended_at
        return replace(
            change,
            steps=joined(intended.steps, change.steps, age=age),
            happened=[*self._taken(), *change.happened],
            usage=change.usage or intended.usage,
            record=intended.record if change.record is None else change.record,
        )

    def _taken(self) -> list[Payload]:
        """What waits: from here on it is being written, and nothing is joined to it."""
        taken, self._pending = self._pending, []
        self._written_at = time.monotonic()
        self._due.clear()
        return taken

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await self._due.wait()
        except TimeoutError:
            pass
