"""What was decided is done: jobs that carry out commands, and tell the run what came of them."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

import structlog
from loremesh_kit import jobs
from loremesh_kit.clock import Clock
from loremesh_kit.errors import DependencyUnavailable, ServiceError
from loremesh_kit.jobs import Handler, Job
from loremesh_kit.postgres import Database, Row
from psycopg import AsyncConnection, OperationalError

from loremesh_crew.domain.deciding import remembering
from loremesh_crew.domain.machine import (
    AnswerDelegation,
    CancelAsked,
    CancelTask,
    ChildEnded,
    Command,
    Event,
    PauseAsked,
    ResumeAsked,
    RunStatus,
    StartChild,
    StartTask,
    StartTimer,
    SteerChild,
    TaskEnded,
    TaskOutcome,
    TaskStatus,
    TimerFired,
)
from loremesh_crew.engine.hearing import news
from loremesh_crew.engine.running import Running
from loremesh_crew.errors import EngineVersionUnknown, RunNotFound, TaskRefused
from loremesh_crew.ports import AgentTasks, Errand, NewRecord, RunRecord, RunStore, RunViews, WantedTask

# What a child run is to be made of; raises a ServiceError that is not retryable where it cannot be.
MakeChild = Callable[[RunRecord, StartChild], Awaitable[NewRecord]]
_CANCEL = "cancel-task"
# Given up, they may leave a task behind which nobody waits for.
_MAY_LEAVE_A_TASK = frozenset({"start-task", "answer-delegation"})
# A task that ends sooner is one transaction of its run, and no fact tells of it.
_WAIT_SECONDS = 2.0
_CANCELLED = TaskOutcome(status=TaskStatus.CANCELLED)
_log = structlog.get_logger(__name__)
_STEERS: Mapping[str, type[Event]] = {"cancel": CancelAsked, "pause": PauseAsked, "resume": ResumeAsked}


class Errands:
    """The handlers of a run's jobs. Each may be done twice: effects are idempotent, decisions ignore what they know."""

    def __init__(
        self,
        *,
        database: Database,
        store: RunStore,
        views: RunViews,
        running: Running,
        tasks: AgentTasks,
        make_child: MakeChild,
        clock: Clock,
    ) -> None:
        self._database = database
        self._store = store
        self._views = views
        self._running = running
        self._tasks = tasks
        self._make_child = make_child
        self._clock = clock

    def handlers(self) -> Mapping[str, Handler]:
        """By kind of job."""
        handlers: dict[str, Handler] = {
            "start-task": self._start_task,
            _CANCEL: self._cancel_task,
            "answer-delegation": self._answer,
            "timer": self._timer,
            "start-child": self._start_child,
            "steer-child": self._steer_child,
            "tell-parent": self._tell_parent,
            "forget-run": self._forget,
        }
        return {kind: _patient(handler) for kind, handler in handlers.items()}

    async def give_up(self, connection: AsyncConnection[Row], job: Job, error: ServiceError) -> None:
        """Tell the run that what was decided cannot be done, so that it waits for nothing that never comes."""
        try:
            async with connection.transaction():
                run_id, event = await self._what_came_of(job, error)
                if event:
                    await self._running.apply_in(connection, run_id, [event])
                if job.kind in _MAY_LEAVE_A_TASK:
                    await jobs.enqueue(connection, kind=_CANCEL, payload=job.payload, subject_id=run_id)
        except (ServiceError, OperationalError):
            # It is given up again.
            raise
        except Exception:  # noqa: BLE001 - one run that cannot be decided is no reason not to give up its job
            _log.exception("a run was not told of a job that was given up", subject_id=job.subject_id)

    async def _what_came_of(self, job: Job, error: ServiceError) -> tuple[str, Event | None]:
        """Whom to tell of a job that was given up, and what: of what needs nobody else, as if it were done."""
        if job.kind == "tell-parent":
            return await self._end_of(job)
        if job.kind == "forget-run":
            return "", None
        command, now = await self._store.command(_errand(job)), self._clock.now()
        if isinstance(command, SteerChild):
            return command.child_run_id, _STEERS[command.action](time=now)
        return job.payload["run_id"], _instead(command, error, now=now)

    async def _start_task(self, job: Job) -> None:
        task = await self._wanted(job)
        if task is None:
            await self._done(job)
            return
        task_id, now = task.command.task_id, self._clock.now
        if not task.wanted:
            # An attempt before this one may have begun it all the same.
            await self._tasks.cancel(task_id)
            await self._done(job)
            return
        try:
            standing = await self._tasks.create(
                task_id, task.command.request, root_run_id=task.root_run_id, wait=_WAIT_SECONDS
            )
        except TaskRefused as refusal:
            outcome = _failed(refusal.reason, refusal.message)
            ended = TaskEnded(time=now(), task_id=task_id, outcome=outcome)
            await self._running.apply(job.payload["run_id"], [ended], job=job)
            return
        async with self._database.pipeline() as connection:
            if events := news(standing, now=now()):
                await self._running.apply_in(connection, job.payload["run_id"], events)
            # Also one that waits already: nobody would ask after it otherwise.
            if standing.outcome is None and not await self._store.begun(connection, task_id):
                # It was cancelled while it was begun, or is finished already.
                await self._tasks.cancel(task_id)
            await jobs.complete(connection, job)

    async def _wanted(self, job: Job) -> WantedTask | None:
        if isinstance(known := job.progress.known, WantedTask):
            return known
        return await self._store.wanted(_errand(job))

    async def _command(self, job: Job) -> Command | None:
        return job.progress.known or await self._store.command(_errand(job))

    async def _cancel_task(self, job: Job) -> None:
        command = await self._command(job)
        if not isinstance(command, CancelTask | StartTask | AnswerDelegation):
            await self._done(job)
            return
        # First, so that whoever begins it at this moment sees it and cancels it, too.
        await self._store.cancelled(command.task_id)
        await self._tasks.cancel(command.task_id)
        standing = await self._tasks.get(command.task_id)
        now = self._clock.now()
        if standing is None:
            events: list[Event] = [TaskEnded(time=now, task_id=command.task_id, outcome=_CANCELLED)]
        else:
            events = news(standing, now=now)
        await self._running.apply(job.payload["run_id"], events, job=job)

    async def _answer(self, job: Job) -> None:
        command = await self._command(job)
        if isinstance(command, AnswerDelegation):
            await self._tasks.answer(
                command.task_id, command.delegation_id, output=command.output, reason=command.reason
            )
        await self._done(job)

    async def _timer(self, job: Job) -> None:
        command = await self._command(job)
        if not isinstance(command, StartTimer):
            await self._done(job)
            return
        fired = TimerFired(time=self._clock.now(), timer=command.timer)
        await self._running.apply(job.payload["run_id"], [fired], job=job)

    async def _start_child(self, job: Job) -> None:
        errand = _errand(job)
        command = await self._command(job)
        if not isinstance(command, StartChild):
            await self._done(job)
            return
        parent = await self._views.get(errand.run_id)
        new = await self._make_child(parent, command)
        async with self._database.joined_transaction() as connection:
            # Whoever steers the child meanwhile waits here, and then finds it; who was sooner is seen in the parent.
            await self._store.meet(connection, command.child_run_id)
            status, _ = await self._views.standing(errand.run_id)
            if await self._running.begin(connection, new):
                await self._follow(connection, command.child_run_id, status)
            await jobs.complete(connection, job)

    async def _follow(self, connection: AsyncConnection[Row], child_run_id: str, status: RunStatus) -> None:
        now = self._clock.now()
        if status is RunStatus.CANCELLING or status.finished:
            await self._running.apply_in(connection, child_run_id, [CancelAsked(time=now)])
        elif status is RunStatus.INTERRUPTED:
            await self._running.apply_in(connection, child_run_id, [PauseAsked(time=now)])

    async def _steer_child(self, job: Job) -> None:
        command = await self._command(job)
        async with self._database.transaction() as connection:
            if isinstance(command, SteerChild):
                await self._store.meet(connection, command.child_run_id)
                event = _STEERS[command.action](time=self._clock.now())
                await self._running.apply_in(connection, command.child_run_id, [event])
            await jobs.complete(connection, job)

    async def _tell_parent(self, job: Job) -> None:
        parent_run_id, ended = await self._end_of(job)
        await self._running.apply(parent_run_id, [ended] if ended else [], job=job)

    async def _end_of(self, job: Job) -> tuple[str, ChildEnded | None]:
        """Whom to tell how a child run ended, and that; nobody where it is gone."""
        try:
            child = await self._views.get(job.payload["run_id"])
        except RunNotFound:
            return "", None
        view = self._running.machine(child).view(child.pinned, child.state)
        return child.parent_run_id, ChildEnded(
            time=self._clock.now(),
            child_run_id=child.id,
            status=view.status,
            output=view.output,
            output_json=view.output_json,
            usage=view.usage,
            reason=view.reason,
            message=view.message,
        )

    async def _forget(self, job: Job) -> None:
        root = job.payload["run_id"]
        agents = dict.fromkeys(each for crew in await self._views.crews(root) for each in remembering(crew))
        await self._tasks.forget(root, agent_ids=tuple(agents))
        await self._done(job)

    async def _done(self, job: Job) -> None:
        async with self._database.transaction() as connection:
            await jobs.complete(connection, job)


def _patient(handler: Handler) -> Handler:
    async def handle(job: Job) -> None:
        try:
            await handler(job)
        except EngineVersionUnknown as error:
            # While a new version is rolled out, other replicas have it.
            raise DependencyUnavailable("engine") from error

    return handle


def _errand(job: Job) -> Errand:
    return Errand(run_id=job.payload["run_id"], number=job.payload["number"], index=job.payload["index"])


def _failed(reason: str, message: str) -> TaskOutcome:
    return TaskOutcome(status=TaskStatus.FAILED, reason=reason, message=message)


def _instead(command: Command | None, error: ServiceError, *, now: datetime) -> Event | None:
    match command:
        # Whoever waits for an answer that never comes is waited for no longer.
        case StartTask(task_id=task_id) | AnswerDelegation(task_id=task_id):
            return TaskEnded(time=now, task_id=task_id, outcome=_failed(error.reason, error.message))
        case CancelTask(task_id=task_id):
            return TaskEnded(time=now, task_id=task_id, outcome=_CANCELLED)
        case StartChild(child_run_id=child_run_id):
            return _childless(child_run_id, error, now=now)
        case StartTimer(timer=timer):
            return TimerFired(time=now, timer=timer)
    return None


def _childless(child_run_id: str, error: ServiceError, *, now: datetime) -> ChildEnded:
    return ChildEnded(
        time=now, child_run_id=child_run_id, status=RunStatus.FAILED, reason=error.reason, message=error.message
    )
