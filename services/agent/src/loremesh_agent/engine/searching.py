"""Passages for a question, sought while its agent is still looked up where that can be."""

import asyncio
from dataclasses import dataclass

from loremesh_kit import identity
from loremesh_kit.errors import ServiceError

from loremesh_agent.domain.agents import Agent
from loremesh_agent.domain.passages import Found, merged
from loremesh_agent.domain.questions import Question
from loremesh_agent.ports import PassageIndex

_CAPACITY = 10_000


@dataclass(frozen=True, slots=True)
class _Places:
    """The vector stores that are searched, and how many passages are wanted of all of them together."""

    vector_store_ids: tuple[str, ...]
    top_k: int


@dataclass(frozen=True, slots=True)
class Ahead:
    """A search under way that somebody may want."""

    places: _Places
    task: asyncio.Task[Found | ServiceError]


async def search(index: PassageIndex, query: str, *, question: Question, agent: Agent) -> Found:
    """The best passages of the stores that the question names, or the agent; raises as PassageIndex.search."""
    return await _search(index, query, question, _places(question, agent))


class LookingAhead:
    """Remembers agents as they were, so that a search can begin beside the question how they are."""

    def __init__(self, *, index: PassageIndex) -> None:
        self._index = index
        self._agents: dict[tuple[str, str], Agent] = {}

    def begin(self, query: str, *, question: Question, group: asyncio.TaskGroup) -> Ahead | None:
        """Search as the agent was last; None where nobody knows. A failure waits for whoever wants what was found."""
        if (agent := self._agents.get(_key(question))) is None:
            return None
        places = _places(question, agent)
        return Ahead(places, group.create_task(_attempt(self._index, query, question, places)))

    async def found(self, query: str, *, question: Question, agent: Agent, ahead: Ahead | None) -> Found:
        """See `search`; what was begun ahead with the same query, where it is as the agent has it."""
        self._remember(question, agent)
        if ahead is None or ahead.places != _places(question, agent):
            self.leave(ahead)
            return await search(self._index, query, question=question, agent=agent)
        found = await ahead.task
        if isinstance(found, ServiceError):
            raise found
        return found

    def leave(self, ahead: Ahead | None) -> None:
        """Nobody wants it."""
        if ahead is not None:
            ahead.task.cancel()

    def forget(self, question: Question) -> None:
        """Its agent answers without a search of its own."""
        self._agents.pop(_key(question), None)

    def _remember(self, question: Question, agent: Agent) -> None:
        key = _key(question)
        if key not in self._agents and len(self._agents) >= _CAPACITY:
            del self._agents[next(iter(self._agents))]
        self._agents[key] = agent


async def _search(index: PassageIndex, query: str, question: Question, places: _Places) -> Found:
    if not places.top_k:
        return Found()
    try:
        async with asyncio.TaskGroup() as group:
            searches = [
                group.create_task(
                    index.search(query, vector_store_id=each, top_k=places.top_k, filter_=question.filter_)
                )
                for each in places.vector_store_ids
            ]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return merged([search.result() for search in searches], top_k=places.top_k)


async def _attempt(index: PassageIndex, query: str, question: Question, places: _Places) -> Found | ServiceError:
    try:
        return await _search(index, query, question, places)
    except ServiceError as error:
        return error


def _places(question: Question, agent: Agent) -> _Places:
    top_k = agent.top_k if question.top_k is None else question.top_k
    return _Places(question.vector_store_ids or agent.vector_store_ids, top_k)


def _key(question: Question) -> tuple[str, str]:
    return identity.current().tenant, question.agent_id
