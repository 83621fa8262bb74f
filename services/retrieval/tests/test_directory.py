import asyncio

import pytest
from loremesh_kit.clock import ManualClock
from loremesh_retrieval.adapters.memory_peers import FixedVectorStores
from loremesh_retrieval.directory import RememberedDirectory
from loremesh_retrieval.domain.scope import Scope
from loremesh_retrieval.errors import VectorStoreNotFound

pytestmark = pytest.mark.unit

STORE = Scope("acme", "manuals")


class CountingVectorStores(FixedVectorStores):
    """Counts what it is asked, and may be held up."""

    def __init__(self, models):
        super().__init__(models)
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()

    async def embedding_model(self, scope):
        self.asked += 1
        model = await super().embedding_model(scope)
        await self.open.wait()
        return model


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def behind():
    return CountingVectorStores({STORE: "small"})


@pytest.fixture
def directory(behind, clock):
    return RememberedDirectory(behind=behind, clock=clock)


async def test_a_model_is_asked_for_once_in_thirty_seconds(directory, behind, clock):
    assert [await directory.embedding_model(STORE) for _ in range(3)] == ["small"] * 3
    await clock.advance(29.9)
    await directory.embedding_model(STORE)
    assert behind.asked == 1
    await clock.advance(0.1)
    await directory.embedding_model(STORE)
    assert behind.asked == 2


async def test_that_a_store_is_unknown_is_not_remembered(directory, behind):
    other = Scope("acme", "new")
    with pytest.raises(VectorStoreNotFound):
        await directory.embedding_model(other)
    behind.models[other] = "large"
    assert await directory.embedding_model(other) == "large"


async def test_another_tenants_store_of_the_same_id_is_another_store(directory):
    await directory.embedding_model(STORE)
    with pytest.raises(VectorStoreNotFound):
        await directory.embedding_model(Scope("rival", STORE.vector_store_id))


async def test_a_removed_store_is_forgotten_at_once(directory, behind):
    await directory.embedding_model(STORE)
    del behind.models[STORE]
    directory.forget(STORE)
    with pytest.raises(VectorStoreNotFound):
        await directory.embedding_model(STORE)


async def test_an_answer_under_way_does_not_bring_a_removed_store_back(directory, behind):
    behind.open.clear()
    asking = asyncio.ensure_future(directory.embedding_model(STORE))
    await asyncio.sleep(0)
    del behind.models[STORE]
    directory.forget(STORE)
    behind.open.set()
    assert await asking == "small"
    with pytest.raises(VectorStoreNotFound):
        await directory.embedding_model(STORE)


async def test_a_writer_with_another_model_makes_the_next_search_ask_again(directory, behind):
    await directory.embedding_model(STORE)
    behind.models[STORE] = "large"
    directory.contradict(STORE, "small")
    assert await directory.embedding_model(STORE) == "small"
    directory.contradict(STORE, "large")
    assert await directory.embedding_model(STORE) == "large"


async def test_only_so_many_stores_are_remembered(behind, clock):
    directory = RememberedDirectory(behind=behind, clock=clock, capacity=2)
    behind.models |= {Scope("acme", name): "small" for name in "abc"}
    for name in "abc":
        await directory.embedding_model(Scope("acme", name))
    behind.asked = 0
    await directory.embedding_model(Scope("acme", "c"))
    assert behind.asked == 0
    await directory.embedding_model(Scope("acme", "a"))
    assert behind.asked == 1
