"""An agent service in memory: does as it is told, and remembers what it was asked."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from loremesh_crew.domain.machine import TaskOutcome, TaskRequest, TaskStatus
from loremesh_crew.errors import TaskRefused
from loremesh_crew.ports import AskedDelegation, TaskStanding

# What comes of a task at once; None: it is at work until somebody finishes it.
Script = Callable[[str, TaskRequest], TaskOutcome | TaskRefused | None]


def at_work(task_id: str, request: TaskRequest) -> None:
    """Nothing comes of it yet."""
    del task_id, request


@dataclass(kw_only=True)
class MemoryTasks:
    """See ports.AgentTasks. `script` says what comes of tasks at once, `failures` are raised before anything else."""

    script: Script = at_work
    failures: list[Exception] = field(default_factory=list)
    requests: dict[str, TaskRequest] = field(default_factory=dict)
    standings: dict[str, TaskStanding] = field(default_factory=dict)
    roots: dict[str, str] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    answers: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    forgotten: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    created: int = 0

    async def create(self, task_id: str, request: TaskRequest, *, root_run_id: str, wait: float = 0.0) -> TaskStanding:
        """See ports.AgentTasks."""
        del wait
        self.created += 1
        self._fail()
        if task_id not in self.standings:
            outcome = self.script(task_id, request)
            if isinstance(outcome, TaskRefused):
                raise outcome
            self.requests[task_id], self.roots[task_id] = request, root_run_id
            self.standings[task_id] = TaskStanding(task_id=task_id, agent_run_id=f"job-{task_id}", outcome=outcome)
        return self.standings[task_id]

    async def get(self, task_id: str) -> TaskStanding | None:
        """See ports.AgentTasks."""
        self._fail()
        return self.standings.get(task_id)

    async def cancel(self, task_id: str) -> None:
        """See ports.AgentTasks."""
        self._fail()
        self.cancelled.append(task_id)
        standing = self.standings.get(task_id)
        if standing and standing.outcome is None:
            self.finish(task_id, TaskOutcome(status=TaskStatus.CANCELLED))

    async def answer(self, task_id: str, delegation_id: str, *, output: str, reason: str) -> None:
        """See ports.AgentTasks."""
        self._fail()
        self.answers.setdefault((task_id, delegation_id), (output, reason))

    async def forget(self, run_id: str, *, agent_ids: Collection[str]) -> None:
        """See ports.AgentTasks."""
        self._fail()
        self.forgotten.append((run_id, tuple(sorted(agent_ids))))

    def finish(self, task_id: str, outcome: TaskOutcome) -> None:
        """It is done; nobody is told."""
        self.standings[task_id] = replace(self.standings[task_id], outcome=outcome, waits=False, approval_id="")

    def wait(self, task_id: str, *, approval_id: str = "", delegations: tuple[AskedDelegation, ...] = ()) -> None:
        """It waits; nobody is told."""
        self.standings[task_id] = replace(
            self.standings[task_id], waits=True, approval_id=approval_id, delegations=delegations
        )

    def resume(self, task_id: str) -> None:
        """It goes on; nobody is told."""
        self.standings[task_id] = replace(self.standings[task_id], waits=False, approval_id="", delegations=())

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)
