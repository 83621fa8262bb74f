"""What the agent service says of tasks comes to their runs, and who is silent is asked."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime

import structlog
from loremesh_kit import identity
from loremesh_kit.clock import Clock
from loremesh_kit.errors import ServiceError
from loremesh_kit.ids import new_id
from loremesh_kit.loops import background, repeat, unless

from loremesh_crew.domain.machine import (
    DelegationAsked,
    Event,
    TaskEnded,
    TaskOutcome,
    TaskResumes,
    TaskStatus,
    TaskWaits,
)
from loremesh_crew.engine.running import Running
from loremesh_crew.ports import AgentTasks, RunStore, TaskStanding

_AT_ONCE = 100
_LOST = TaskOutcome(
    status=TaskStatus.FAILED,
    reason="DEPENDENCY_UNAVAILABLE",
    message="The agent service does not know the task any more.",
    retryable=True,
)
_log = structlog.get_logger(__name__)


def run_of(task_id: str) -> str:
    """The run a task is of; empty where it is of none."""
    return task_id.rpartition(".")[0]


def news(standing: TaskStanding, *, now: datetime, resumed: bool = False) -> list[Event]:
    """What a run is to know of how its task stands; with `resumed` that it waits for nothing, too."""
    task_id = standing.task_id
    if standing.outcome:
        return [TaskEnded(time=now, task_id=task_id, outcome=standing.outcome)]
    events: list[Event] = [
        DelegationAsked(
            time=now,
            task_id=task_id,
            delegation_id=each.id,
            coworker=each.coworker,
            description=each.description,
            context=each.context,
        )
        for each in standing.delegations
    ]
    if standing.waits and standing.approval_id:
        approval_id, agent_run_id = standing.approval_id, standing.agent_run_id
        events.append(TaskWaits(time=now, task_id=task_id, approval_id=approval_id, agent_run_id=agent_run_id))
    elif resumed and not standing.waits:
        events.append(TaskResumes(time=now, task_id=task_id))
    return events


class Hearing:
    """Brings what the agent service says of tasks to their runs."""

    def __init__(self, *, running: Running, tasks: AgentTasks, clock: Clock) -> None:
        self._running = running
        self._tasks = tasks
        self._clock = clock

    async def hear(self, task_ids: Iterable[str], *, begun: bool = False) -> None:
        """Ask how tasks stand, all of the caller's tenant, and tell their runs.

        `begun` ones that the agent service does not know are lost. Raises DependencyUnavailable.
        """
        of_run: dict[str, list[str]] = defaultdict(list)
        for task_id in dict.fromkeys(task_ids):
            of_run[run_of(task_id)].append(task_id)
        for run_id, ids in of_run.items():
            async with background() as group:
                asked = [group.create_task(self._news(task_id, begun=begun)) for task_id in ids]
            if events := [event for each in asked for event in each.result()]:
                await self._running.apply(run_id, events)

    async def _news(self, task_id: str, *, begun: bool) -> Sequence[Event]:
        standing = await self._tasks.get(task_id)
        if standing:
            return news(standing, now=self._clock.now(), resumed=True)
        return [TaskEnded(time=self._clock.now(), task_id=task_id, outcome=_LOST)] if begun else []


class Inquiry:
    """Asks after tasks nobody said anything of for a while: a fact that was lost costs time, never a run."""

    def __init__(self, *, store: RunStore, hearing: Hearing, seconds: float) -> None:
        """`seconds` is after how long."""
        self._store = store
        self._hearing = hearing
        self._seconds = seconds

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until `stop`."""

        async def step() -> None:
            if await self.ask() < _AT_ONCE:
                await unless(stop, asyncio.sleep(self._seconds / 4))

        await repeat(step, stop=stop, name="silent tasks")

    async def ask(self) -> int:
        """Ask after those that are due, and return how many these were."""
        tasks = await self._store.unheard(seconds=self._seconds, limit=_AT_ONCE)
        for task in tasks:
            with identity.scope(identity.Identity(tenant=task.tenant, principal=task.principal, request_id=new_id())):
                try:
                    await self._hearing.hear([task.id], begun=True)
                except ServiceError as error:
                    _log.warning("will ask again", task_id=task.id, reason=error.reason)
                except Exception:  # noqa: BLE001 - one run that cannot be decided must not hold up others
                    _log.exception("will ask again", task_id=task.id)
        return len(tasks)
