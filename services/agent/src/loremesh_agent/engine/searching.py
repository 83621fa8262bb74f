"""Passages for a question."""

import asyncio

from loremesh_agent.domain.agents import Agent
from loremesh_agent.domain.passages import Found, merged
from loremesh_agent.domain.questions import Question
from loremesh_agent.ports import PassageIndex


async def search(index: PassageIndex, query: str, *, question: Question, agent: Agent) -> Found:
    """The best passages of the stores that the question names, or the agent; raises as PassageIndex.search."""
    top_k = agent.top_k if question.top_k is None else question.top_k
    if not top_k:
        return Found()
    try:
        async with asyncio.TaskGroup() as group:
            searches = [
                group.create_task(index.search(query, vector_store_id=each, top_k=top_k, filter_=question.filter_))
                for each in question.vector_store_ids or agent.vector_store_ids
            ]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return merged([search.result() for search in searches], top_k=top_k)
