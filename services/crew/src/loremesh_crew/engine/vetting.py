"""What is wrong with a crew that is to be kept, by the agent service's word too."""

import asyncio
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from loremesh_kit import deadline
from loremesh_kit.errors import DependencyUnavailable, FieldViolation

from loremesh_crew.domain import crew_checks
from loremesh_crew.domain.definitions import Crew, CrewAgent, CrewTask, Process, ToolUse
from loremesh_crew.ports import AgentRegistry

_SECONDS = 10.0
_AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the agent service is asked, once for all that are alike."""

    agent: CrewAgent
    tools: tuple[ToolUse, ...] = ()
    # As JSON, which can be a key.
    output_schema: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question, and which of the fields that are found wrong count; all of them where none are named."""

    # What stands before them in the crew.
    prefix: str
    question: Question
    fields: tuple[str, ...] = ()


class Vetting:
    """Finds all faults of a crew at once."""

    def __init__(self, *, agents: AgentRegistry) -> None:
        self._agents = agents

    async def faults(self, crew: Crew) -> list[FieldViolation]:
        """Every one there is; raises DependencyUnavailable."""
        # Compiling what a large one holds takes seconds, which others shall not wait for.
        found = await asyncio.to_thread(lambda: list(crew_checks.faults(crew)))
        return [*found, *await self.answered(_questions(crew))]

    async def answered(self, asked: Iterable[Asked]) -> list[FieldViolation]:
        """What the agent service finds, in the order of what is asked; raises DependencyUnavailable."""
        asked = list(asked)
        answers = await self._answers({each.question: None for each in asked})
        return [
            replace(fault, field=f"{each.prefix}{fault.field}")
            for each in asked
            for fault in answers[each.question]
            if not each.fields or fault.field.startswith(each.fields)
        ]

    async def _answers(self, questions: Iterable[Question]) -> dict[Question, Sequence[FieldViolation]]:
        answers: dict[Question, Sequence[FieldViolation]] = {}
        places = asyncio.Semaphore(_AT_ONCE)

        async def ask(question: Question) -> None:
            async with places:
                answers[question] = await self._answer(question)

        try:
            async with asyncio.timeout(deadline.within(_SECONDS)), asyncio.TaskGroup() as group:
                for question in questions:
                    group.create_task(ask(question))
        except TimeoutError:
            raise DependencyUnavailable("agent") from None
        except BaseExceptionGroup as failures:
            # One speaks for all: they asked the same service.
            raise failures.exceptions[0] from None
        return answers

    async def _answer(self, question: Question) -> Sequence[FieldViolation]:
        agent = question.agent
        if not agent.agent_id:
            schema = json.loads(question.output_schema) if question.output_schema else None
            return await self._agents.faults(agent, tools=question.tools, output_schema=schema)
        if await self._agents.revision(agent.agent_id, revision=agent.agent_revision) is not None:
            return ()
        which = f"revision {agent.agent_revision} of the agent" if agent.agent_revision else "agent"
        return (FieldViolation("agent_id", f"There is no {which} {agent.agent_id!r}.", "AGENT_UNKNOWN"),)


def about_agent(agent: CrewAgent, *, prefix: str) -> Asked:
    """Whether it is there, or could be."""
    if agent.agent_id:
        named = CrewAgent(name="agent", agent_id=agent.agent_id, agent_revision=agent.agent_revision)
    else:
        named = replace(agent, name="agent", allow_delegation=False, verbose=False)
    return Asked(prefix=prefix, question=Question(agent=named))


def about_task(task: CrewTask, *, prefix: str) -> Iterator[Asked]:
    """Whether there are its tools, and answers of its form: of an agent without anything else to find wrong."""
    if not task.tools and task.output_schema is None:
        return
    schema = "" if task.output_schema is None else json.dumps(task.output_schema, sort_keys=True)
    question = Question(agent=CrewAgent(name="agent"), tools=task.tools, output_schema=schema)
    yield Asked(prefix=prefix, question=question, fields=("tools", "output_schema"))


def _questions(crew: Crew) -> Iterator[Asked]:
    for i, agent in enumerate(crew.agents):
        yield about_agent(agent, prefix=f"agents[{i}].")
    for i, task in enumerate(crew.tasks):
        yield from about_task(task, prefix=f"tasks[{i}].")
    if crew.process is Process.HIERARCHICAL and crew.manager_model:
        manager = CrewAgent(name="agent", model=crew.manager_model)
        yield Asked(prefix="manager_", question=Question(agent=manager), fields=("model",))
