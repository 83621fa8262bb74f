"""The job worker: told that there is work it claims some, runs it under a lease, and always says how it ended."""

import asyncio
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import Context, copy_context
from datetime import UTC, datetime

import structlog
from opentelemetry.trace import SpanKind

from loremesh_kit import deadline, identity
from loremesh_kit.consumer import Consumer
from loremesh_kit.errors import AttemptsExhausted, DeadlineExceeded, DependencyUnavailable, Internal, ServiceError
from loremesh_kit.events import Bus, Message, stream_of, subject
from loremesh_kit.jobs import CANCELLED, FenceLost, Handler, Job
from loremesh_kit.leases import Leases, OnDead
from loremesh_kit.loops import repeat, unless
from loremesh_kit.postgres import Database
from loremesh_kit.sweeper import JOBS_CONSUMER, Sweeper
from loremesh_kit.telemetry import metrics, traces

_HEARTBEATS_PER_LEASE = 3
_FIRST_RETRY_SECONDS = 1.0
# Within so long of the return of what was away the work goes on.
_LAST_RETRY_SECONDS = 30.0
# What needs something that is away waits for it: most of a day.
_MOST_ATTEMPTS = 2880
_NAK_SECONDS = 5.0
_CONTENDED_SECONDS = 0.1
_CANCEL_SECONDS = 3.0
_log = structlog.get_logger(__name__)


class JobWorker:
    """Runs up to `concurrency` jobs at once, and the sweeper that finds the jobs of dead workers."""

    def __init__(
        self,
        *,
        database: Database,
        bus: Bus,
        service: str,
        handlers: Mapping[str, Handler],
        on_dead: OnDead,
        concurrency: int,
        lease: float = 15.0,
        grace: float = 10.0,
        attempt_seconds: float = 3600.0,
    ) -> None:
        """Take what a worker needs; `on_dead` runs in the transaction that writes the dead letter.

        `lease` is how many seconds a silent worker keeps its jobs, `grace` how many they get to finish at a stop,
        `attempt_seconds` how many one attempt may take.
        """
        self._bus = bus
        self._handlers = handlers
        self._on_dead = on_dead
        self._concurrency = concurrency
        self._grace = grace
        self._attempt_seconds = attempt_seconds
        self._database = database
        self._leases = Leases(database=database, seconds=lease)
        self._sweeper = Sweeper(database=database, bus=bus, service=service)
        self._consumer = Consumer(
            bus=bus,
            stream=stream_of(service),
            durable=JOBS_CONSUMER,
            subjects=[subject(service, "jobs.>")],
        )
        self._group: asyncio.TaskGroup | None = None
        self._context = Context()
        self._in_hand: dict[asyncio.Task[None], Job] = {}
        self._slot_free = asyncio.Event()
        # Of transactions of this process under way, each a job to be begun.
        self._reserved = 0
        # Whether nobody waited when this worker looked last, and it has had room since.
        self._idle = False

    @property
    def lease(self) -> float:
        """See postgres.Taker."""
        return self._leases.seconds

    def reserve(self) -> bool:
        """See postgres.Taker. Whoever waits comes first: in the order of tenants and priorities, which claims keep."""
        if self._room() <= 0:
            self._idle = False
        if self._idle:
            self._reserved += 1
        return self._idle

    def take(self, job: Job | None) -> None:
        """See postgres.Taker."""
        self._reserved -= 1
        if job is None:
            self._slot_free.set()
        elif self._group is not None:
            self._begin([job], self._group)
        # Else it was committed while this worker went: its lease runs out.

    def _room(self) -> int:
        return self._concurrency - len(self._in_hand) - self._reserved

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then finish what is in hand within the grace period and hand back the rest."""
        finished = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(repeat(lambda: self._heartbeats(finished), stop=finished, name="job heartbeat"))
            group.create_task(self._sweeper.run(stop))
            self._group, self._context = group, copy_context()
            detach = self._database.attach(self)
            try:
                await repeat(lambda: self._fetch(group, stop), stop=stop, name="job fetch")
            finally:
                detach()
            await self._stop_working()
            self._group = None
            finished.set()

    async def _fetch(self, group: asyncio.TaskGroup, stop: asyncio.Event) -> None:
        """Take as many messages as there are free slots, claim a job for each in one statement, and start them."""
        free = self._room()
        if free <= 0:
            self._slot_free.clear()
            await unless(stop, self._slot_free.wait())
            return
        messages = await unless(stop, self._consumer.take(free))
        if not messages:
            self._idle = not stop.is_set()
            return
        # One more than was told of, where there is room, to see whether that was all.
        wanted = min(free, len(messages) + 1)
        try:
            jobs = await self._leases.claim(wanted)
        except ServiceError:
            for message in messages:
                await message.nak(_NAK_SECONDS)
            raise
        self._idle = len(jobs) < wanted
        self._begin(jobs, group)
        await self._answer(messages, claimed=len(jobs))

    def _begin(self, jobs: Sequence[Job], group: asyncio.TaskGroup) -> None:
        for job in jobs:
            # Not in the context of whoever accepted it: neither their deadline nor their identity is its own.
            task = group.create_task(self._work(job), name=f"job {job.kind} {job.id}", context=self._context.copy())
            self._in_hand[task] = job
            task.add_done_callback(self._let_go)
        metrics.JOBS_IN_HAND.set(len(self._in_hand))

    async def _answer(self, messages: Sequence[Message], *, claimed: int) -> None:
        """Acknowledge what led to a claim, which is committed: from here on the lease stands for the message.

        A message says that there is work, not which. One left over is spent when there is none; else somebody was
        faster at all that this worker could see, and it comes again.
        """
        for message in messages[:claimed]:
            await message.ack()
        if spare := messages[claimed:]:
            is_spent = not await self._leases.any_due()
            for message in spare:
                await (message.ack() if is_spent else message.nak(_CONTENDED_SECONDS))

    def _let_go(self, task: asyncio.Task[None]) -> None:
        self._in_hand.pop(task)
        self._slot_free.set()
        metrics.JOBS_IN_HAND.set(len(self._in_hand))

    async def _heartbeats(self, finished: asyncio.Event) -> None:
        """A heartbeat from time to time, and at once when some job was cancelled, which may be one of ours."""
        async with self._bus.nudges(CANCELLED) as cancelled:
            while not finished.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._leases.seconds / _HEARTBEATS_PER_LEASE):
                        await unless(finished, cancelled.wait())
                cancelled.clear()
                await self._heartbeat()

    async def _heartbeat(self) -> None:
        """Extend all leases in one statement, and stop the work on jobs that are no longer ours."""
        running = {task: job for task, job in self._in_hand.items() if not job.progress.completed}
        if not running:
            return
        ours = await self._leases.extend(running.values())
        for task, job in running.items():
            if job.id not in ours and not job.progress.completed:
                _log.info("job lost", job_id=job.id, kind=job.kind)
                task.cancel()

    async def _work(self, job: Job) -> None:
        started = time.perf_counter()
        with _in_force(job):
            outcome = await self._outcome(job)
            seconds = time.perf_counter() - started
            metrics.JOBS_FINISHED.labels(job.kind, outcome).inc()
            metrics.JOB_SECONDS.labels(job.kind).observe(seconds)
            _log.info("job", outcome=outcome, attempt=job.attempt, milliseconds=round(seconds * 1000, 2))

    async def _outcome(self, job: Job) -> str:
        try:
            error = await self._attempt(job)
            return "succeeded" if error is None else await self._fail(job, error)
        except FenceLost:
            return "lost"
        except ServiceError as failure:
            # Not even the failure could be written: the lease runs out and another worker takes over.
            _log.warning("job left to its lease", reason=failure.reason)
            return "left"
        except Exception:  # noqa: BLE001 - the outermost edge: a defect of one job must not end the others
            _log.exception("job left to its lease")
            return "left"

    async def _attempt(self, job: Job) -> ServiceError | None:
        """Run the handler; what went wrong, if anything. Raises FenceLost."""
        if job.attempt > job.max_attempts:
            return AttemptsExhausted(attempts=job.max_attempts)
        if _seconds_to(job.deadline) == 0:
            return DeadlineExceeded()
        try:
            await self._handle(job)
        except FenceLost:
            raise
        except ServiceError as error:
            return error
        except Exception:  # noqa: BLE001 - the outermost edge
            _log.exception("job handler failed")
            return Internal(request_id=job.request_id)
        if job.progress.completed:
            return None
        _log.error("job handler returned without completing the job")
        return Internal(request_id=job.request_id)

    async def _handle(self, job: Job) -> None:
        seconds = min(self._attempt_seconds, _seconds_to(job.deadline))
        with deadline.scope(seconds):
            try:
                async with asyncio.timeout(seconds):
                    await self._handlers[job.kind](job)
            except TimeoutError as error:
                if deadline.remaining() == 0:
                    raise DeadlineExceeded from error
                raise

    async def _fail(self, job: Job, error: ServiceError) -> str:
        """Have the job tried again, or give it up when that is of no use; raises FenceLost."""
        waits = error.reason == DependencyUnavailable.reason and job.attempt < _MOST_ATTEMPTS
        if error.retryable and (waits or job.attempt < job.max_attempts) and _seconds_to(job.deadline) > 0:
            await self._leases.retry(job, error, delay=_backoff(job, error), counts=not waits)
            return "retried"
        await self._leases.give_up(job, error, self._on_dead)
        _log.warning("job given up", reason=error.reason, error=error.message, subject_id=job.subject_id)
        return "dead"

    async def _stop_working(self) -> None:
        with suppress(ServiceError):
            await self._consumer.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CANCEL_SECONDS):
                await self._reservations_end()
        if self._in_hand:
            await asyncio.wait(self._in_hand, timeout=self._grace)
        late = dict(self._in_hand)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=_CANCEL_SECONDS)
            with suppress(ServiceError):
                await self._leases.hand_back(late.values())
            _log.info("jobs handed back", jobs=len(late))

    async def _reservations_end(self) -> None:
        while self._reserved:
            self._slot_free.clear()
            await self._slot_free.wait()


@contextmanager
def _in_force(job: Job) -> Iterator[None]:
    """The job's identity, log context and trace."""
    caller = identity.Identity(tenant=job.tenant, principal=job.principal, request_id=job.request_id)
    carrier = {traces.TRACEPARENT: job.traceparent}
    attributes = {"job.id": job.id, "job.kind": job.kind}
    with (
        identity.scope(caller),
        structlog.contextvars.bound_contextvars(job_id=job.id, kind=job.kind),
        traces.span(f"job {job.kind}", kind=SpanKind.CONSUMER, carrier=carrier, attributes=attributes),
    ):
        yield


def _seconds_to(instant: datetime | None) -> float:
    return math.inf if instant is None else max(0.0, (instant - datetime.now(UTC)).total_seconds())


def _backoff(job: Job, error: ServiceError) -> float:
    longest = min(_LAST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2.0 ** (job.attempt - 1))
    jittered = longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries
    return max(error.retry_after or 0.0, jittered)
