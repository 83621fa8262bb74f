"""What the agent service is asked to do for a piece of work."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loremesh_crew.domain import planning, prompting
from loremesh_crew.domain.budgeting import Share
from loremesh_crew.domain.crew_state import Ask, Item, Origin
from loremesh_crew.domain.definitions import Crew, CrewAgent, CrewTask, Process
from loremesh_crew.domain.guardrails import VERDICT
from loremesh_crew.domain.machine import AgentReference, AgentSpec, Pinned, TaskLimits, TaskRequest
from loremesh_crew.domain.prompting import TextTooLong, filled

MAX_DEPTH = 3
_MAX_NAME = 200
_MAX_STEPS = 20
_MAX_ID = 64
_ID = re.compile(r"[^A-Za-z0-9_-]")


class Cast:
    """The crew of a run: who does what, and who may do what."""

    def __init__(self, run: Pinned, crew: Crew) -> None:
        self._run = run
        self._crew = crew
        self._agents = {agent.name: agent for agent in crew.agents}
        self._tasks = {task.name: task for task in crew.tasks}
        self.managed = crew.process is Process.HIERARCHICAL
        if self.managed and not crew.manager:
            own = _manager(self._agents, crew.manager_model)
            self._agents[own.name] = own
            self.manager = own.name
        else:
            self.manager = crew.manager if self.managed else ""

    @property
    def workers(self) -> tuple[CrewAgent, ...]:
        """Those to whom work may be given, the manager left out."""
        return tuple(agent for agent in self._crew.agents if agent.name != self.manager)

    def doer(self, task: CrewTask) -> str:
        """Who does a task of the crew: in a managed one its manager writes the result."""
        return self.manager or task.agent or self._crew.agents[0].name

    def task(self, item: Item) -> CrewTask:
        """The task, or what one would be for what is no task of the crew's own."""
        return self._tasks.get(item.name) or CrewTask(
            name=item.name,
            description=item.description,
            timeout=item.seconds or CrewTask(name="", description="").timeout,
        )

    def verbose(self, item: Item) -> bool:
        """Whether events carry what is asked."""
        return self._crew.verbose or self._agents[item.agent].verbose

    def tools(self, item: Item) -> bool:
        """Whether it may call tools, as far as is known here."""
        agent = self._agents[item.agent]
        if item.ask is Ask.JUDGE or (self.manager and item.agent == self.manager):
            return item.ask is Ask.WORK and bool(self.task(item).tools)
        return bool(agent.agent_id or agent.tools or self.task(item).tools or self.coworkers(item))

    def coworkers(self, item: Item) -> tuple[CrewAgent, ...]:
        """Those to whom its agent may hand work on."""
        agent = self._agents[item.agent]
        if item.ask is Ask.JUDGE or item.depth >= MAX_DEPTH or item.agent == self.manager or not agent.allow_delegation:
            return ()
        return tuple(each for each in self.workers if each.name != item.agent)

    def compose(self, item: Item, items: Mapping[str, Item], share: Share) -> TaskRequest:
        """What the agent service is asked; raises TextTooLong."""
        task, agent = self.task(item), self._agents[item.agent]
        works = item.ask is Ask.WORK and item.origin not in (Origin.PLAN, Origin.CHECK)
        tools = (task.tools or (() if item.agent == self.manager else None)) if works else ()
        spec = None if agent.agent_id else self._spec(agent, remembers=works, tools=tools)
        message = self._message(item, task, items)
        if len(message) > prompting.MAX_MESSAGE or (spec and len(spec.system_prompt) > prompting.MAX_INSTRUCTIONS):
            raise TextTooLong
        shared = works and self._crew.memory and bool(self._crew.id)
        remembers = works and (self._crew.memory or agent.memory is not None)
        return TaskRequest(
            name=item.name[:_MAX_NAME],
            message=message,
            agent=spec,
            reference=self._reference(agent) if agent.agent_id else None,
            tools=tools,
            response_schema=self._schema(item, task),
            limits=self._limits(agent, task, share),
            coworkers=tuple((each.name, prompting.role_of(each, self._run.inputs)) for each in self.coworkers(item)),
            review=task.human_input if works else None,
            memory_agent_id=f"crew.{self._crew.id}" if shared else "",
            memory_run_id=self._run.root_run_id if remembers else "",
            priority=task.priority,
            untrusted=self._untrusted(item),
        )

    def _untrusted(self, item: Item) -> bool:
        """Whether what it is asked holds more than its crew's owner and the run's caller wrote."""
        # What a run below another is given may be an output there.
        if self._run.depth or self.managed or item.origin is not Origin.TASK:
            return True
        return bool(item.depends_on or item.feedback)

    def _spec(self, agent: CrewAgent, *, remembers: bool, tools: Sequence[Any] | None) -> AgentSpec:
        memory = agent.memory if remembers else None
        by_crew = remembers and self._crew.memory and memory is None
        return AgentSpec(
            id=spec_id(self._crew.id, agent.name),
            system_prompt=prompting.instructions(agent, self._run.inputs),
            model=agent.model,
            temperature=agent.temperature,
            tools=agent.tools if tools is None else tuple(tools),
            recall=by_crew or (memory is not None and memory.recall),
            extract=by_crew or (memory is not None and memory.extract),
            max_memories=memory.max_items if memory else 0,
            memory_ttl_seconds=memory.ttl_seconds if memory else None,
            memory_embeddings=memory.embeddings if memory else None,
            # What judges and plans takes what it is given, not the documents.
            top_k_documents=agent.top_k_documents if remembers else 0,
            vector_store_ids=agent.vector_store_ids,
            max_output_tokens=agent.max_output_tokens,
        )

    def _reference(self, agent: CrewAgent) -> AgentReference:
        revision = agent.agent_revision or self._run.pins.get(f"agent:{agent.agent_id}", 0)
        return AgentReference(agent_id=agent.agent_id, revision=revision)

    def _limits(self, agent: CrewAgent, task: CrewTask, share: Share) -> TaskLimits:
        return TaskLimits(
            max_steps=0 if agent.agent_id else agent.max_iter or _MAX_STEPS,
            max_tokens=share.tokens,
            max_cost_micros=share.cost_micros,
            max_tool_calls=share.tool_calls,
            max_seconds=task.timeout,
            max_rpm=0 if agent.agent_id else agent.max_rpm,
        )

    def _schema(self, item: Item, task: CrewTask) -> Mapping[str, Any] | None:
        if item.ask is Ask.JUDGE or item.origin is Origin.CHECK:
            return VERDICT
        if item.origin is Origin.PLAN:
            return planning.schema([agent.name for agent in self.workers])
        return task.output_schema

    def _message(self, item: Item, task: CrewTask, items: Mapping[str, Item]) -> str:
        inputs = self._run.inputs
        if item.ask is Ask.JUDGE:
            # What the crew's owner wrote, or nothing.
            asked = filled(task.description, inputs) if item.origin is Origin.TASK else ""
            return prompting.judge_message(task.guardrails[item.guardrail].criterion, asked, item)
        if item.origin is Origin.PLAN:
            return prompting.plan_message(self._crew, self.workers, item, _of(items, Origin.PLANNED), inputs)
        if item.origin is Origin.CHECK:
            written = [each for each in _of(items, Origin.TASK) if each.held]
            return prompting.check_message(self._crew, written, inputs)
        if item.origin is Origin.DELEGATED:
            return prompting.delegated_message(item)
        return self._work(item, task, items)

    def _work(self, item: Item, task: CrewTask, items: Mapping[str, Item]) -> str:
        material = [items[name] for name in item.depends_on]
        if item.origin is Origin.PLANNED:
            return prompting.planned_message(item, material)
        if self.managed:
            return prompting.written_message(task, item, _of(items, Origin.PLANNED), material, self._run.inputs)
        return prompting.task_message(task, item, material, self._run.inputs)


def spec_id(crew_id: str, name: str) -> str:
    """What memories and records call an agent that nobody keeps: at most 64 letters, digits, `-` and `_`."""
    whole = ".".join(filter(None, ("crew", crew_id, name)))
    plain = _ID.sub("-", whole)
    if len(plain) <= _MAX_ID:
        return plain
    # Two long names are not one.
    told = hashlib.sha256(whole.encode()).hexdigest()[:12]
    return f"{plain[: _MAX_ID - 13]}-{told}"


def _manager(taken: Iterable[str], model: str) -> CrewAgent:
    name, names = "manager", set(taken)
    while name in names:
        name += "_"
    return CrewAgent(
        name=name,
        role="the manager of a crew",
        goal="to have the work done by those who do it best, and to see that the result is what was asked for",
        model=model,
    )


def _of(items: Mapping[str, Item], origin: Origin) -> list[Item]:
    return [item for item in items.values() if item.origin is origin]
