"""What lets an answer's first words come soon: a search before all is known, and words told before all are there."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

import pytest
from loremesh_agent.adapters.memory import (
    MemoryAgents,
    MemoryDocuments,
    MemoryIndex,
    MemoryRecords,
    MemoryTurns,
)
from loremesh_agent.domain.agents import Agent
from loremesh_agent.domain.events import Answer, FinishReason, TextDelta
from loremesh_agent.domain.passages import Found
from loremesh_agent.domain.questions import Question
from loremesh_agent.domain.relevance import Floors
from loremesh_agent.engine.asking import Patience, PatientProvider
from loremesh_agent.engine.chat import ChatEngine, NeedsRun, Pace
from loremesh_agent.engine.quoting import Quoting
from loremesh_agent.errors import VectorStoreNotFound
from loremesh_agent.ports import ModelFinish, ModelRequest, ModelText
from loremesh_kit.clock import SystemClock
from loremesh_kit.filters import Filter

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("who")]

QUESTION = "How high is the lighthouse of Genoa?"


class TellingIndex(MemoryIndex):
    """Tells when it is asked."""

    asked: asyncio.Event

    async def search(self, query: str, *, vector_store_id: str, top_k: int, filter_: Filter | None) -> Found:
        self.asked.set()
        return await super().search(query, vector_store_id=vector_store_id, top_k=top_k, filter_=filter_)


class SlowAgents(MemoryAgents):
    """Waits with its answer for `go`, and takes its time."""

    go: asyncio.Event

    async def get(self, agent_id: str, *, revision: int = 0, prompt_version: int = 0) -> Agent:
        await self.go.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        return await super().get(agent_id, revision=revision, prompt_version=prompt_version)


class AtOnce:
    """A provider whose answer is there as a whole; `read` is how much of it was taken."""

    name = "scripted"
    pieces = 50

    def __init__(self) -> None:
        self.read = 0

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelText | ModelFinish, None]:
        del request
        for number in range(1, self.pieces + 1):
            self.read = number
            yield ModelText(f"{number} metres ")
        yield ModelFinish(reason=FinishReason.STOP)


class House:
    """A chat engine that has answered once."""

    def __init__(self, agent: Agent, found: Found) -> None:
        self.agent, self.found = agent, found
        self.index = TellingIndex({"default": found, "empty": Found()})
        self.agents = SlowAgents(default=agent)
        self.index.asked, self.agents.go = asyncio.Event(), asyncio.Event()
        self.records = MemoryRecords(clock=SystemClock())
        self.provider = AtOnce()
        patience = Patience(first_token=5, idle=5, total=10, attempts=1)
        self.engine = ChatEngine(
            agents=self.agents,
            index=self.index,
            provider=PatientProvider(provider=self.provider, patience=patience),
            turns=MemoryTurns(records=self.records, lease=10),
            quoting=Quoting(documents=MemoryDocuments()),
            clock=SystemClock(),
            floors=Floors(),
            pace=Pace(heartbeat=10, keep=5),
        )

    async def ask(self) -> Answer:
        return await self.engine.answer(Question(text=QUESTION))

    async def begin(self) -> None:
        self.agents.go.set()
        await self.ask()
        self.index.queries.clear()
        self.index.asked.clear()


@pytest.fixture
async def house(found: Found, make_agent: Callable[..., Agent]) -> House:
    made = House(make_agent(), found)
    await made.begin()
    return made


async def test_an_agent_known_from_before_is_searched_for_while_it_is_looked_up(house: House) -> None:
    house.agents.go.clear()
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(house.ask())
        await house.index.asked.wait()
        assert len(house.records.conversations) == 1
        house.agents.go.set()
    assert asking.result().sources
    assert house.index.queries == [QUESTION]


async def test_an_agent_that_changed_since_is_searched_for_as_it_is_now(house: House) -> None:
    house.agents.default = replace(house.agent, vector_store_ids=("empty",))
    answer = await house.ask()
    assert (answer.grounded, answer.sources) == (False, ())


async def test_a_search_ahead_that_failed_fails_whoever_wants_what_it_found_and_nobody_else(house: House) -> None:
    del house.index.stores["default"]
    with pytest.raises(VectorStoreNotFound):
        await house.ask()
    house.index.stores["moved"] = house.found
    house.agents.default = replace(house.agent, vector_store_ids=("moved",))
    assert (await house.ask()).sources


async def test_an_agent_that_takes_a_run_with_a_journal_begins_nothing_here(house: House) -> None:
    house.agents.default = replace(house.agent, top_k=0)
    for searches in (1, 0):
        house.index.queries.clear()
        with pytest.raises(NeedsRun):
            await house.ask()
        assert len(house.index.queries) == searches
    assert len(house.records.conversations) == 1


async def test_the_first_words_of_an_answer_that_comes_at_once_are_told_before_all_of_it_is_read(house: House) -> None:
    read = [
        house.provider.read
        async for event in house.engine.stream(Question(text=QUESTION))
        if isinstance(event.payload, TextDelta)
    ]
    assert read[0] < house.provider.pieces / 5
