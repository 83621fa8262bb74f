"""Who does a task: an agent that nobody keeps, one that is kept, or nobody but a tool."""

from loremesh_agent.domain.agents import Agent, Window
from loremesh_agent.domain.definitions import AgentDefinition, Limits
from loremesh_agent.domain.tasks import AgentReference, Invocation, TaskOrder
from loremesh_agent.domain.wording import Wording
from loremesh_agent.engine.directory import Directory

_WORDLESS = Wording(
    system="",
    user="$question",
    passage="$text",
    multiline=True,
    stop=(),
    refusal="",
    unsupported="",
    quotation="",
    ends_at_repetition=False,
)


class Orders:
    """Makes those ready who do tasks, as `Directory` does for chats."""

    def __init__(self, *, directory: Directory) -> None:
        self._directory = directory

    async def definition(self, order: TaskOrder, *, revision: int = 0) -> AgentDefinition | None:
        """The agent as the task has it, `revision` in place of the current one; None for a call of a tool.

        Raises AgentNotFound, AgentRevisionNotFound.
        """
        match order.worker:
            case AgentDefinition() as definition:
                return order.changed(definition)
            case AgentReference(agent_id=agent_id, revision=asked_for):
                kept = await self._directory.definition(agent_id, revision=asked_for or revision)
                return order.changed(kept)
        return None

    async def agent(self, order: TaskOrder, *, revision: int = 0, prompt_version: int = 0) -> Agent:
        """The same, ready; raises as AgentDirectory.get."""
        definition = await self.definition(order, revision=revision)
        return await self.ready(order, definition, prompt_version=prompt_version)

    async def ready(self, order: TaskOrder, definition: AgentDefinition | None, *, prompt_version: int = 0) -> Agent:
        """What `definition` gave of it, ready."""
        if definition is None:
            return _caller(order)
        return await self._directory.ready(definition, prompt_version=prompt_version)


def _caller(order: TaskOrder) -> Agent:
    """Whoever calls a tool and asks no model."""
    uses = (order.worker.use,) if isinstance(order.worker, Invocation) else ()
    return Agent(
        id="",
        model="",
        wording=_WORDLESS,
        window=Window(context_tokens=0, prompt_tokens=0),
        max_output_tokens=0,
        top_k=0,
        revision=0,
        tools=uses,
        limits=Limits(**order.limits),
    )
