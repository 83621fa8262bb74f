"""Which answers are runs with a journal."""

from loremesh_agent.domain.agents import Agent
from loremesh_agent.domain.definitions import Limits
from loremesh_agent.domain.questions import Question


def needs_run(agent: Agent, question: Question) -> bool:
    """Whether answering takes more than one search and one question to a model."""
    return bool(
        agent.tools
        or agent.memory
        or agent.response_schema is not None
        or agent.limits != Limits()
        or question.limits
        or question.attachments
        # Without documents there is only the question.
        or not (question.top_k or agent.top_k)
    )
