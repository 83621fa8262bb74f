"""Agents that the environment describes."""

from loremesh_agent.domain.agents import Agent
from loremesh_agent.errors import AgentNotFound


class ConfiguredAgents:
    """Knows the default agent and no other."""

    def __init__(self, *, default: Agent) -> None:
        self._default = default

    async def get(self, agent_id: str, *, revision: int = 0) -> Agent:
        """See ports.AgentDirectory."""
        del revision
        if agent_id not in ("", self._default.id):
            raise AgentNotFound(agent_id)
        return self._default
