"""Tasks of crews and flows: accepted, looked at, cancelled."""

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from loremesh_kit import identity
from loremesh_kit.clock import Clock
from loremesh_kit.errors import ServiceError

from loremesh_agent.domain import delegation, prompts, validation
from loremesh_agent.domain.agents import Agent
from loremesh_agent.domain.definitions import AgentDefinition
from loremesh_agent.domain.delegation import Delivered
from loremesh_agent.domain.tasks import Invocation, Task, TaskOrder
from loremesh_agent.domain.tools import ToolCall, ToolSpec
from loremesh_agent.engine.orders import Orders
from loremesh_agent.engine.quoting import Quoting
from loremesh_agent.engine.vetting import Vetting
from loremesh_agent.errors import ToolArgumentsInvalid, ToolNameClash, ToolNotFound
from loremesh_agent.ports import DelegationStore, NewTask, TaskCallers, TaskStore, Toolbox, Tools

# An agent without faults has none for so long: a crew asks for the same ones again and again.
_VETTED_SECONDS = 60.0
_MOST_VETTED = 10_000


class Tasks:
    """The use cases of TaskService."""

    def __init__(
        self,
        *,
        store: TaskStore,
        delegations: DelegationStore,
        orders: Orders,
        vetting: Vetting,
        toolbox: Toolbox,
        tools: Tools,
        quoting: Quoting,
        callers: TaskCallers,
        clock: Clock,
    ) -> None:
        self._store = store
        self._callers = callers
        self._delegations = delegations
        self._orders = orders
        self._vetting = vetting
        self._toolbox = toolbox
        self._tools = tools
        self._quoting = quoting
        self._vetted = _Vetted(clock)

    async def create(
        self, order: TaskOrder, *, request: bytes, request_hash: bytes, worker_hash: bytes, wait: float = 0.0
    ) -> Task:
        """Accept a task; the same request again is the same task, whatever has become of its agent since.

        `worker_hash` is the same for the same agents, `wait` how many seconds its end is waited for. Raises what is
        wrong with the agent, AgentNotFound, AgentRevisionNotFound, ToolNotFound, ToolArgumentsInvalid, ToolNameClash,
        MessageTooLong, QueueFull, IdempotencyConflict.
        """
        try:
            agent = await self._checked(order, worker_hash)
        except ServiceError:
            known = await self._store.known(order.task_id, request_hash=request_hash)
            if known is None:
                raise
            return await self._shown(known)
        new = NewTask(
            order=order,
            request=request,
            request_hash=request_hash,
            agent_id=agent.id,
            agent_revision=agent.revision,
        )
        return await self._shown(await self._accepted(new, wait) if wait else await self._store.create(new))

    async def get(self, task_id: str) -> Task:
        """Raises TaskNotFound."""
        return await self._shown(await self._store.get(task_id))

    async def cancel(self, task_id: str) -> Task:
        """The task as it is then; raises TaskNotFound."""
        await self._store.cancel(task_id)
        return await self.get(task_id)

    async def deliver(self, task_id: str, delegation_id: str, delivered: Delivered) -> None:
        """Tell a task what came of work it handed on; raises TaskNotFound."""
        await self._delegations.deliver(task_id, delegation_id, delivered)

    async def _accepted(self, new: NewTask, wait: float) -> Task:
        """As TaskStore.create, and how it ended where it does soon."""
        with self._callers.waiting(new.order.task_id) as call:
            made = await self._store.create(new)
            if made.job.finish_time:
                return made
            if ended := await call.wait(wait):
                return replace(made, job=ended)
        # Whoever ends it from here on tells it by a fact; who did before is seen.
        return await self._store.get(new.order.task_id)

    async def _checked(self, order: TaskOrder, worker_hash: bytes) -> Agent:
        if order.invocation:
            await self._check_call(order.invocation)
            return await self._orders.agent(order)
        definition = await self._orders.definition(order)
        revision = definition.revision if definition else 0
        # What was vetted when it was saved is, without changes, not vetted again.
        if definition and (isinstance(order.worker, AgentDefinition) or order.changes):
            await self._vet(order, definition, key=(identity.current().tenant, worker_hash, revision))
        agent = await self._orders.ready(order, definition)
        if order.coworkers:
            _check_names(agent)
        prompts.check(agent, question=order.message)
        return agent

    async def _vet(self, order: TaskOrder, definition: AgentDefinition, *, key: tuple[str, bytes, int]) -> None:
        if key in self._vetted:
            return
        if found := await self._vetting.faults(definition):
            raise validation.refusal(found, beside=order.changes)
        self._vetted.add(key)

    async def _check_call(self, call: Invocation) -> None:
        spec = _named(call.use.name, await self._toolbox.specs())
        try:
            self._tools.check(spec, ToolCall(id="", name=spec.name, arguments=json.dumps(dict(call.arguments))))
        except ToolArgumentsInvalid as error:
            field = "invocation.arguments"
            raise ToolArgumentsInvalid(spec.name, problem=error.problem, field=field) from None

    async def _shown(self, task: Task) -> Task:
        if task.job.answer is None:
            return task
        return replace(task, job=replace(task.job, answer=await self._quoting.answer(task.job.answer)))


class _Vetted:
    """Agents that had no faults a moment ago."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: OrderedDict[tuple[str, bytes, int], float] = OrderedDict()

    def __contains__(self, key: tuple[str, bytes, int]) -> bool:
        return self._until.get(key, 0.0) > self._clock.monotonic()

    def add(self, key: tuple[str, bytes, int]) -> None:
        self._until[key] = self._clock.monotonic() + _VETTED_SECONDS
        self._until.move_to_end(key)
        if len(self._until) > _MOST_VETTED:
            self._until.popitem(last=False)


def _check_names(agent: Agent) -> None:
    """Raise ToolNameClash where the agent has a tool of its own that is called as those it hands work on with."""
    for use in agent.tools:
        if use.name in delegation.TOOLS:
            raise ToolNameClash(use.name)


def _named(name: str, specs: Sequence[ToolSpec]) -> ToolSpec:
    for spec in specs:
        if spec.name == name:
            return spec
    raise ToolNotFound(name)
