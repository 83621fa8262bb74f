import pytest
from loremesh_kit.testing import caller
from loremesh_retrieval.adapters.memory_peers import FixedLiveness, FixedStore
from loremesh_retrieval.directory import RememberedGenerations
from loremesh_retrieval.domain.liveness import Generation
from loremesh_retrieval.errors import VectorStoreNotFound

pytestmark = pytest.mark.unit


class CountingLiveness(FixedLiveness):
    """Counts what it is asked."""

    asked = 0

    async def resolve(self, vector_store_id, **what):
        self.asked += 1
        return await super().resolve(vector_store_id, **what)


@pytest.fixture
def store():
    return FixedStore(models={1: "small", 2: "large"})


@pytest.fixture
def behind(store):
    return CountingLiveness({("acme", "manuals"): store})


@pytest.fixture
def directory(behind):
    with caller():
        yield RememberedGenerations(behind=behind)


async def test_the_first_guess_asks_and_later_ones_do_not(directory, behind):
    assert [await directory.guess("manuals") for _ in range(3)] == [Generation(1, "small")] * 3
    assert behind.asked == 1


async def test_each_answer_about_the_live_generation_corrects_the_guess(directory, store):
    await directory.guess("manuals")
    store.live = 2
    await directory.resolve("manuals", generation=1)
    assert await directory.guess("manuals") == Generation(1, "small")
    await directory.resolve("manuals")
    assert await directory.guess("manuals") == Generation(2, "large")


async def test_what_is_forgotten_is_asked_for_again(directory, store):
    await directory.guess("manuals")
    store.live = 2
    directory.forget("manuals")
    assert await directory.guess("manuals") == Generation(2, "large")


async def test_that_a_store_is_unknown_is_not_remembered(directory, behind, store):
    with pytest.raises(VectorStoreNotFound):
        await directory.guess("new")
    behind.stores["acme", "new"] = store
    assert await directory.guess("new") == Generation(1, "small")


async def test_another_tenants_store_of_the_same_id_is_another_store(directory):
    await directory.guess("manuals")
    with caller(tenant="rival"), pytest.raises(VectorStoreNotFound):
        await directory.guess("manuals")


async def test_only_so_many_stores_are_remembered(behind, store):
    behind.stores |= {("acme", name): store for name in "abc"}
    directory = RememberedGenerations(behind=behind, capacity=2)
    with caller():
        for name in "abc":
            await directory.guess(name)
        behind.asked = 0
        await directory.guess("c")
        assert behind.asked == 0
        await directory.guess("a")
        assert behind.asked == 1
