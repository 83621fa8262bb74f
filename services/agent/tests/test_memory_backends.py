"""Memories: both backends keep, find and forget them alike."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from loremesh_agent.adapters.memory_index import PostgresRecallIndex
from loremesh_agent.adapters.memory_memories import MemoryMemories
from loremesh_agent.adapters.postgres_conversations import PostgresConversations
from loremesh_agent.adapters.postgres_memories import PostgresMemories
from loremesh_agent.adapters.postgres_memory_receipts import FORGET, PostgresMemoryWork
from loremesh_agent.domain.memories import Kind, Memory, NewMemory, Ranked
from loremesh_agent.engine.memories import Memories
from loremesh_agent.engine.memory_jobs import Embedding, Forgetting
from loremesh_agent.errors import (
    ConversationNotFound,
    MemoryFull,
    MemoryInvalid,
    MemoryNotFound,
    MemoryReceiptNotFound,
    ScopeRequired,
)
from loremesh_agent.ports import Embedded, Fact, MemoryStore, MemoryWork, RecallIndex, Scope
from loremesh_kit import identity
from loremesh_kit.clock import SystemClock
from loremesh_kit.errors import DependencyUnavailable
from loremesh_kit.ids import new_id
from loremesh_kit.jobs import FenceLost, Job
from loremesh_kit.leases import Leases
from loremesh_kit.pages import Position
from loremesh_kit.postgres import Database, open_database
from loremesh_kit.settings import ServiceSettings
from loremesh_kit.testing import DatabaseUrls, caller

from .conftest import agent_database
from .memory_doubles import MeaningDouble

pytestmark = pytest.mark.conformance

LIMIT = 6
ADA, BOB = Scope(user_id="ada"), Scope(user_id="bob")
SCOUT = Scope(agent_id="scout")


@dataclass
class Backend:
    store: MemoryStore
    index: RecallIndex
    work: MemoryWork
    converse: Callable[[], Awaitable[str]]
    end: Callable[[str], Awaitable[None]]
    owed: Callable[[], Awaitable[list[Job]]]
    meaning: MeaningDouble = field(default_factory=MeaningDouble)

    def __post_init__(self) -> None:
        self.memories = Memories(
            store=self.store, index=self.index, embedder=self.meaning, clock=SystemClock(), floor=0.3
        )

    async def say(self, content: str, scope: Scope = ADA, **more: Any) -> Memory:
        kept, _ = await self.said(content, scope, **more)
        return kept

    async def said(self, content: str, scope: Scope = ADA, **more: Any) -> tuple[Memory, bool]:
        ttl = more.pop("ttl", None)
        place = {"user_id": scope.user_id, "agent_id": scope.agent_id, "conversation_id": scope.conversation_id}
        return await self.memories.create(NewMemory(content=content, **place, **more), ttl=ttl)

    async def find(self, query: str, scope: Scope = ADA, **more: Any) -> list[str]:
        return [each.memory.content for each in await self.ranked(query, scope, **more)]

    async def ranked(self, query: str, scope: Scope = ADA, **more: Any) -> list[Ranked]:
        given = {"top_k": 9, "kinds": (), "words_only": False} | more
        return list(await self.memories.search(query, scope=scope, **given))

    async def listed(self, scope: Scope | None = None, **more: Any) -> list[str]:
        given = {"kind": None, "show_past": False, "after": None, "limit": 99} | more
        return [each.content for each in await self.memories.page(scope, **given)]

    async def embed(self) -> None:
        await Embedding(index=self.index, embedder=self.meaning, work=_Completing())(_job(""))

    async def work_off(self) -> None:
        for job in await self.owed():
            await Forgetting(work=self.work)(job)
            assert job.progress.completed


class _Completing:
    """The effect without the job."""

    async def remove_vectors(self, job: Job) -> None: ...
    async def remove_memories(self, job: Job) -> None: ...
    async def complete(self, job: Job) -> None: ...


def _job(receipt_id: str) -> Job:
    return Job(
        id=new_id(), tenant=identity.current().tenant, principal="ada", request_id="r", kind=FORGET, payload={},
        attempt=1, fence=1, max_attempts=9, subject_id=receipt_id,
    )  # fmt: skip


def in_process() -> Backend:
    kept = MemoryMemories(clock=SystemClock(), limit=LIMIT)

    async def converse() -> str:
        kept.conversations.add(made := new_id())
        return made

    async def end(conversation_id: str) -> None:
        kept.forget_conversation(conversation_id)

    async def owed() -> list[Job]:
        found, kept.owed = [_job(receipt_id) for receipt_id in kept.owed], []
        return found

    return Backend(kept, kept, kept, converse, end, owed)


def on_postgres(database: Database) -> Backend:
    conversations = PostgresConversations(database=database)

    async def converse() -> str:
        made = new_id()
        await conversations.create(made, title="", agent_id="default", attributes={})
        return made

    async def owed() -> list[Job]:
        jobs = await Leases(database=database, seconds=9).claim(500)
        return [job for job in jobs if job.kind == FORGET and job.tenant == identity.current().tenant]

    return Backend(
        PostgresMemories(database=database, limit=LIMIT, embeds=True),
        PostgresRecallIndex(database=database),
        PostgresMemoryWork(database=database),
        converse,
        conversations.delete,
        owed,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_urls(postgres_url: str) -> AsyncIterator[DatabaseUrls]:
    """One database for all tests: each is a tenant of its own."""
    async with agent_database(postgres_url) as urls:
        yield urls


@pytest.fixture(params=["memory", "postgres"])
async def backend(request: pytest.FixtureRequest, shared_urls: DatabaseUrls) -> AsyncIterator[Backend]:
    with caller(tenant=new_id()):
        if request.param == "memory":
            yield in_process()
            return
        async with open_database(ServiceSettings(database_url=shared_urls.plain)) as database:
            yield on_postgres(database)


def user(name: str) -> AbstractContextManager[identity.Identity]:
    return caller(tenant=identity.current().tenant, principal=name)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await holds():  # noqa: ASYNC110 - it is seen by asking
            await asyncio.sleep(0.02)


async def test_a_fact_is_kept_with_all_that_was_said_of_it(backend: Backend) -> None:
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    since = datetime(2020, 5, 1, tzinfo=UTC)
    made = await backend.say(
        " She lives in Genoa.\x00 ", Scope(user_id="ada", agent_id="scout"), subject="Ada", attribute="home",
        kind=Kind.ENTITY, confidence=0.5, valid_from=since, valid_until=later, run_id="r", message_id="m", seq=7,
    )  # fmt: skip
    assert await backend.memories.get(made.id) == made
    assert (made.content, made.subject, made.attribute, made.kind) == (
        "She lives in Genoa.", "Ada", "home", Kind.ENTITY,
    )  # fmt: skip
    assert (made.user_id, made.agent_id, made.conversation_id) == ("ada", "scout", "")
    assert (made.confidence, made.valid_from, made.valid_until) == (0.5, since, later)
    assert (made.run_id, made.message_id, made.seq, made.supersedes, made.superseded_by) == ("r", "m", 7, "", "")


async def test_what_is_said_again_holds_as_long_as_was_said_either_time(backend: Backend) -> None:
    hour, day = timedelta(hours=1), timedelta(days=1)
    first = await backend.say("Ada likes tea.", ttl=hour)
    longer, is_new = await backend.said("Ada likes tea.", ttl=day)
    assert (longer.id, is_new) == (first.id, False)
    assert first.valid_until
    assert longer.valid_until
    assert longer.valid_until - first.valid_until > timedelta(hours=22)
    assert (await backend.said("Ada likes tea.", ttl=hour)) == (longer, False)
    for_good = [await backend.say("Ada likes tea.", ttl=ttl) for ttl in (None, hour)][-1]
    assert (for_good.id, for_good.valid_until) == (first.id, None)


async def test_what_is_known_adds_nothing(backend: Backend) -> None:
    first, is_new = await backend.said("Ada likes tea.")
    assert is_new
    for again in ("Ada likes tea.", "  ada  likes TEA ", "Ada likes tea!"):
        assert await backend.said(again) == (first, False)
    assert await backend.listed() == ["Ada likes tea."]
    for other in ("Ada likes tea, black.", "Ada likes C++", "Ada likes C"):
        assert (await backend.said(other))[1]
    assert (await backend.said("Ada likes tea.", SCOUT))[1]


async def test_of_many_who_say_the_same_at_once_one_is_kept(backend: Backend) -> None:
    async with asyncio.TaskGroup() as group:
        said = [group.create_task(backend.said("Ada likes tea.")) for _ in range(8)]
    assert len({task.result()[0].id for task in said}) == 1
    assert sum(task.result()[1] for task in said) == 1


async def test_of_many_who_contradict_each_other_at_once_one_stands(backend: Backend) -> None:
    cities = ("Genoa", "Pisa", "Rome", "Milan")
    async with asyncio.TaskGroup() as group:
        for city in cities:
            group.create_task(backend.say(f"She lives in {city}", subject="Ada", attribute="home"))
    assert len(await backend.listed()) == 1
    assert len(await backend.listed(show_past=True)) == len(cities)


async def test_what_contradicts_takes_the_place_of_what_was_known(backend: Backend) -> None:
    old = await backend.say("She lives in Genoa.", subject="Ada", attribute="home")
    middle = await backend.say("She lives in Pisa.", subject="ADA ", attribute="Home")
    new = await backend.say("She lives in Rome.", subject="Ada", attribute="home")
    assert (middle.supersedes, new.supersedes) == (old.id, middle.id)
    assert await backend.find("Where does Ada live?") == ["She lives in Rome."]
    assert await backend.listed() == ["She lives in Rome."]
    assert await backend.listed(show_past=True) == [each.content for each in (new, middle, old)]
    told = await backend.memories.explain(middle.id)
    assert told.memory.superseded_by == new.id
    assert (told.superseded_by, [each.id for each in told.superseded]) == (new, [old.id])
    assert told.standing == "superseded"
    told = await backend.memories.explain(new.id)
    assert ([each.id for each in told.superseded], told.superseded_by) == ([middle.id, old.id], None)
    assert told.standing == "valid"


async def test_facts_contradict_only_about_one_thing_in_one_scope(backend: Backend) -> None:
    await backend.say("It is blue.", subject="Ada", attribute="favourite colour")
    for scope, subject, attribute in (
        (ADA, "Bob", "favourite colour"),
        (ADA, "Ada", "colour of eyes"),
        (ADA, "Ada", ""),
        (Scope(), "Ada", "favourite colour"),
        (Scope(user_id="ada", agent_id="scout"), "Ada", "favourite colour"),
    ):
        await backend.say("It is red.", scope, subject=subject, attribute=attribute)
    assert len(await backend.listed()) == 6


async def test_what_was_true_comes_back_when_it_is_said_again(backend: Backend) -> None:
    first = await backend.say("She lives in Genoa.", subject="Ada", attribute="home")
    await backend.say("She lives in Pisa.", subject="Ada", attribute="home")
    again, is_new = await backend.said("She lives in Genoa.", subject="Ada", attribute="home")
    assert is_new
    assert again.id != first.id
    assert await backend.listed() == ["She lives in Genoa."]


async def test_a_run_that_is_resumed_does_not_say_again_what_is_out_of_date(backend: Backend) -> None:
    old = await backend.say("She lives in Genoa.", subject="Ada", attribute="home", run_id="r", seq=3)
    await backend.say("She lives in Pisa.", subject="Ada", attribute="home")
    again, is_new = await backend.said("She lives in Genoa.", subject="Ada", attribute="home", run_id="r", seq=3)
    assert (again.id, is_new) == (old.id, False)
    assert await backend.listed() == ["She lives in Pisa."]


async def test_what_will_be_true_supersedes_nothing_yet(backend: Backend) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    now = await backend.say("She lives in Genoa.", subject="Ada", attribute="home")
    then = await backend.say("She lives in Pisa.", subject="Ada", attribute="home", valid_from=tomorrow)
    assert (await backend.memories.explain(then.id)).standing == "not yet valid"
    assert (await backend.memories.explain(now.id)).standing == "valid"
    assert await backend.find("Ada's home") == ["She lives in Genoa."]


async def test_what_will_be_true_supersedes_when_its_time_has_come(backend: Backend) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.3)
    before = await backend.say("She lives in Genoa.", subject="Ada", attribute="home")
    await backend.say("She lives in Pisa.", subject="Ada", attribute="home", valid_from=soon)
    await until(lambda: _is(backend.find("Ada's home"), ["She lives in Pisa."]))
    assert (await backend.memories.explain(before.id)).standing == "superseded"


async def test_what_will_be_true_is_overtaken_by_what_is_said_after_it(backend: Backend) -> None:
    soon = datetime.now(UTC) + timedelta(days=1)
    await backend.say("She lives in Genoa.", subject="Ada", attribute="home")
    await backend.say("She lives in Pisa.", subject="Ada", attribute="home", valid_from=soon)
    await backend.say("She lives in Rome.", subject="Ada", attribute="home")
    assert await backend.find("Ada's home") == ["She lives in Rome."]


async def _is(found: Awaitable[object], wanted: object) -> bool:
    return await found == wanted


async def test_what_has_expired_is_not_found_and_may_be_said_again(backend: Backend) -> None:
    gone = await backend.say("Ada is in Genoa.", ttl=timedelta(seconds=0.3))
    await until(lambda: _is(backend.find("Where is Ada?"), []))
    assert await backend.listed() == []
    assert await backend.listed(show_past=True) == ["Ada is in Genoa."]
    assert (await backend.memories.explain(gone.id)).standing == "expired"
    again, is_new = await backend.said("Ada is in Genoa.")
    assert is_new
    assert again.supersedes == gone.id
    assert await backend.find("Where is Ada?") == ["Ada is in Genoa."]


async def test_a_scope_holds_as_many_as_it_may(backend: Backend) -> None:
    known = [await backend.say(f"Fact {number}.") for number in range(LIMIT)]
    with pytest.raises(MemoryFull) as refused:
        await backend.say("One more.")
    assert refused.value.metadata == {"limit": str(LIMIT)}
    assert await backend.said("Fact 0.") == (known[0], False)
    await backend.say("One more.", SCOUT)
    await backend.memories.forget(memory_id=known[0].id, scope=None)
    await backend.say("One more.")


async def test_a_search_finds_what_is_of_the_scope_and_around_it_and_nothing_else(backend: Backend) -> None:
    scopes = {
        "tenant": Scope(),
        "ada": ADA,
        "scout": SCOUT,
        "ada with scout": Scope(user_id="ada", agent_id="scout"),
        "chef": Scope(agent_id="chef"),
        "ada with chef": Scope(user_id="ada", agent_id="chef"),
    }
    for name, scope in scopes.items():
        await backend.say(f"The lighthouse of {name}.", scope)
    for words_only in (True, False):
        for scope, names in (
            (Scope(), {"tenant"}),
            (ADA, {"tenant", "ada"}),
            (SCOUT, {"tenant", "scout"}),
            (scopes["ada with scout"], {"tenant", "ada", "scout", "ada with scout"}),
            (Scope(user_id="bob", agent_id="scout"), {"tenant", "scout"}),
        ):
            found = await backend.find("lighthouse", scope, words_only=words_only)
            assert set(found) == {f"The lighthouse of {name}." for name in names}
        await backend.embed()


async def test_a_user_sees_and_touches_nothing_of_other_users(backend: Backend) -> None:
    mine = await backend.say("Ada likes tea.")
    both = await backend.say("Everybody likes tea.", Scope())
    with user("bob"):
        with pytest.raises(MemoryNotFound):
            await backend.memories.get(mine.id)
        with pytest.raises(MemoryNotFound):
            await backend.memories.explain(mine.id)
        with pytest.raises(MemoryInvalid):
            await backend.say("Ada likes poison.", ADA)
        assert await backend.listed() == ["Everybody likes tea."]
        assert await backend.listed(ADA) == []
        assert await backend.find("tea", ADA) == ["Everybody likes tea."]
        assert (await backend.memories.forget(memory_id=mine.id, scope=None)).memories == 0
        assert (await backend.memories.forget(memory_id="", scope=ADA)).memories == 0
        forgotten = await backend.memories.forget(memory_id=both.id, scope=None)
        assert forgotten.memories == 1
    with pytest.raises(MemoryReceiptNotFound):
        await backend.memories.receipt(forgotten.id)
    assert await backend.listed() == ["Ada likes tea."]
    with user(""):
        assert await backend.listed() == ["Ada likes tea."]
        assert await backend.memories.receipt(forgotten.id) == forgotten


async def test_whom_nobody_knows_sees_and_touches_nothing_of_any_user(backend: Backend) -> None:
    mine = await backend.say("Ada likes tea.")
    await backend.say("Everybody likes tea.", Scope())
    with user("ada"):
        receipt = await backend.memories.forget(memory_id="none", scope=None)
    with user("anonymous"):
        assert await backend.listed() == ["Everybody likes tea."]
        assert await backend.listed(ADA) == []
        assert await backend.find("tea", ADA) == ["Everybody likes tea."]
        for look in (backend.memories.get, backend.memories.explain):
            with pytest.raises(MemoryNotFound):
                await look(mine.id)
        with pytest.raises(MemoryReceiptNotFound):
            await backend.memories.receipt(receipt.id)
        with pytest.raises(MemoryInvalid):
            await backend.say("Ada likes poison.", ADA)
        assert (await backend.memories.forget(memory_id=mine.id, scope=None)).memories == 0
        assert (await backend.memories.forget(memory_id="", scope=ADA)).memories == 0
        forgotten = await backend.memories.forget(memory_id="", scope=Scope())
        assert await backend.memories.receipt(forgotten.id) == forgotten
    assert await backend.listed() == ["Ada likes tea."]


async def test_what_is_of_a_conversation_is_found_in_it_alone_and_goes_with_it(backend: Backend) -> None:
    one, other = await backend.converse(), await backend.converse()
    for each in (one, other):
        await backend.say("She is in a hurry.", Scope(user_id="ada", conversation_id=each), kind=Kind.SHORT_TERM)
    await backend.embed()
    assert await backend.find("hurry", ADA) == []
    assert await backend.find("hurry", Scope(user_id="ada", conversation_id=one)) == ["She is in a hurry."]
    await backend.end(one)
    assert await backend.find("hurry", Scope(user_id="ada", conversation_id=one)) == []
    assert await backend.listed() == ["She is in a hurry."]
    with pytest.raises(ConversationNotFound):
        await backend.say("She waits.", Scope(user_id="ada", conversation_id=one), kind=Kind.SHORT_TERM)


async def test_kinds_are_told_apart(backend: Backend) -> None:
    for kind in (Kind.LONG_TERM, Kind.ENTITY, Kind.EPISODIC):
        await backend.say(f"A {kind} lighthouse.", kind=kind)
    assert await backend.listed(kind=Kind.EPISODIC) == ["A EPISODIC lighthouse."]
    assert set(await backend.find("lighthouse", kinds=[Kind.ENTITY, Kind.LONG_TERM])) == {
        "A ENTITY lighthouse.", "A LONG_TERM lighthouse.",
    }  # fmt: skip


async def test_what_means_the_same_is_found_once_it_has_a_vector(backend: Backend) -> None:
    await backend.say("Ada owns a feline.")
    await backend.say("Ada owns a boat.")
    assert await backend.find("cat") == []
    await backend.embed()
    (found,) = await backend.ranked("cat")
    assert found.memory.content == "Ada owns a feline."
    assert 0 < found.score <= 1
    assert await backend.find("cat", words_only=True) == []


async def test_without_embeddings_what_is_remembered_is_found_by_its_words(backend: Backend) -> None:
    backend.meaning.failure = DependencyUnavailable("embedding")
    await backend.say("Ada owns a feline.")
    with pytest.raises(DependencyUnavailable):
        await backend.embed()
    assert await backend.find("Does Ada own a feline?") == ["Ada owns a feline."]
    backend.meaning.failure = None
    await backend.embed()
    assert await backend.find("cat") == ["Ada owns a feline."]


async def test_vectors_of_another_model_are_not_compared_but_made_anew(backend: Backend) -> None:
    await backend.say("Ada owns a feline.")
    await backend.embed()
    backend.meaning.model, backend.meaning.turn = "another-model", 1
    assert await backend.find("cat") == []
    await backend.say("Ada owns a boat.")
    await backend.embed()
    assert await backend.find("cat") == ["Ada owns a feline."]
    before = backend.meaning.texts
    await backend.embed()
    assert backend.meaning.texts == before


async def test_more_than_one_batch_is_embedded(backend: Backend) -> None:
    for number in range(90):
        await backend.say("Ada owns a feline.", Scope(user_id="ada", agent_id=f"agent-{number}"))
    await backend.embed()
    assert await backend.index.pending("", limit=9) == {}
    assert await backend.find("cat", Scope(user_id="ada", agent_id="agent-89")) == ["Ada owns a feline."]


async def test_scripts_without_spaces_are_found_by_their_words(backend: Backend) -> None:
    await backend.say("อลิซอาศัยอยู่ในกรุงเทพ")
    await backend.say("彼女は東京に住んでいます")
    assert await backend.find("กรุงเทพ", words_only=True) == ["อลิซอาศัยอยู่ในกรุงเทพ"]
    assert await backend.find("東京", words_only=True) == ["彼女は東京に住んでいます"]


async def test_a_forgotten_memory_is_gone_at_once_and_then_from_every_store(backend: Backend) -> None:
    kept = await backend.say("Ada owns a boat.")
    gone = await backend.say("Ada owns a feline.")
    await backend.embed()
    receipt = await backend.memories.forget(memory_id=gone.id, scope=None)
    assert (receipt.memories, receipt.stores, receipt.finish_time) == (1, {"index": 0, "postgres": 0}, None)
    assert await backend.find("feline") == await backend.find("cat") == []
    assert await backend.listed(show_past=True) == ["Ada owns a boat."]
    with pytest.raises(MemoryNotFound):
        await backend.memories.get(gone.id)
    await backend.work_off()
    done = await backend.memories.receipt(receipt.id)
    assert (done.memories, done.stores) == (1, {"index": 1, "postgres": 1})
    assert done.finish_time
    assert await backend.memories.get(kept.id) == kept
    assert (await backend.said("Ada owns a feline."))[1]


async def test_forgetting_twice_forgets_nothing_the_second_time(backend: Backend) -> None:
    gone = await backend.say("Ada owns a boat.")
    await backend.memories.forget(memory_id=gone.id, scope=None)
    for again in (gone.id, "nothing"):
        receipt = await backend.memories.forget(memory_id=again, scope=None)
        assert (receipt.memories, receipt.stores) == (0, {"index": 0, "postgres": 0})
        assert receipt.finish_time
        assert await backend.memories.receipt(receipt.id) == receipt


async def test_a_whole_scope_is_forgotten_and_no_other(backend: Backend) -> None:
    await backend.say("She lives in Genoa.", subject="Ada", attribute="home")
    await backend.say("She lives in Pisa.", subject="Ada", attribute="home")
    await backend.say("Ada likes tea.", Scope(user_id="ada", agent_id="scout"))
    await backend.say("It rains.", Scope())
    receipt = await backend.memories.forget(memory_id="", scope=ADA)
    assert receipt.memories == 2
    assert await backend.listed(show_past=True) == ["It rains.", "Ada likes tea."]
    await backend.work_off()
    assert (await backend.memories.receipt(receipt.id)).stores == {"index": 0, "postgres": 2}
    with pytest.raises(ScopeRequired):
        await backend.memories.forget(memory_id="", scope=None)


async def test_a_worker_that_dies_between_two_stores_is_followed_by_one_that_counts_right(backend: Backend) -> None:
    for number in range(3):
        await backend.say(f"Ada owns boat {number}.")
    await backend.embed()
    receipt = await backend.memories.forget(memory_id="", scope=ADA)
    (job,) = await backend.owed()
    await backend.work.remove_vectors(job)
    half = await backend.memories.receipt(receipt.id)
    assert (half.stores, half.finish_time) == ({"index": 3, "postgres": 0}, None)
    await Forgetting(work=backend.work)(job)
    done = await backend.memories.receipt(receipt.id)
    assert done.stores == {"index": 3, "postgres": 3}
    assert done.finish_time


async def test_forgetting_the_new_does_not_bring_back_the_old(backend: Backend) -> None:
    old = await backend.say("She lives in Genoa.", subject="Ada", attribute="home")
    new = await backend.say("She lives in Pisa.", subject="Ada", attribute="home")
    await backend.memories.forget(memory_id=new.id, scope=None)
    assert await backend.find("Ada's home") == []
    told = await backend.memories.explain(old.id)
    assert (told.standing, told.superseded_by) == ("superseded", None)


async def test_a_vector_that_comes_after_the_forgetting_is_not_kept(backend: Backend) -> None:
    gone = await backend.say("Ada owns a feline.")
    receipt = await backend.memories.forget(memory_id=gone.id, scope=None)
    await backend.index.keep([gone.id, "nothing"], Embedded("m", [(1.0, 0.0), (0.0, 1.0)]))
    await backend.work_off()
    assert (await backend.memories.receipt(receipt.id)).stores == {"index": 0, "postgres": 1}


async def test_memories_come_in_pages_newest_first(backend: Backend) -> None:
    for number in range(5):
        await backend.say(f"Fact {number}.")
    found: list[str] = []
    after = None
    while page := await backend.memories.page(ADA, kind=None, show_past=False, after=after, limit=2):
        found += [each.content for each in page]
        after = Position(sort_key=page[-1].create_time.isoformat(), id=page[-1].id)
    assert found == [f"Fact {number}." for number in reversed(range(5))]


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("content", {"content": " \x00\n"}),
        ("content", {"content": "x" * 4001}),
        ("subject", {"content": "x", "subject": "x" * 201}),
        ("confidence", {"content": "x", "confidence": float("nan")}),
        ("confidence", {"content": "x", "confidence": -1.0}),
        ("scope.conversation_id", {"content": "x", "kind": "SHORT_TERM"}),
        ("scope.user_id", {"content": "x", "scope": BOB}),
        ("kind", {"content": "x", "kind": "ETERNAL"}),
        ("valid_until", {"content": "x", "ttl_seconds": -1.0}),
        ("valid_until", {"content": "x", "ttl_seconds": float("nan")}),
        ("valid_until", {"content": "x", "ttl_seconds": 1e300}),
        ("valid_until", {"content": "x", "ttl_seconds": 8e13}),
    ],
)
async def test_what_cannot_be_remembered_says_why(field: str, given: dict[str, Any]) -> None:
    with caller(), pytest.raises(MemoryInvalid) as refused:
        await in_process().memories.remember(Fact(**{"scope": ADA, **given}))
    assert refused.value.violations[0].field == f"memory.{field}"


async def test_remembering_twice_is_once_for_tools_and_loop(backend: Backend) -> None:
    fact = Fact(content="Ada likes tea.", scope=ADA, run_id="r", seq=2)
    first = await backend.memories.remember(fact)
    assert await backend.memories.remember(fact) == first
    (recalled,) = await backend.memories.recall("tea?", scope=ADA, top_k=3)
    assert (recalled.memory_id, recalled.content) == (first, "Ada likes tea.")
    # What stays is of no conversation, though it was said in one.
    kept = await backend.memories.remember(
        Fact(content="Ada has a boat.", scope=Scope(user_id="ada", conversation_id="c"))
    )
    assert (await backend.memories.get(kept)).conversation_id == ""


async def test_a_job_that_went_to_another_worker_purges_nothing(postgres_url: str) -> None:
    async with (
        agent_database(postgres_url) as urls,
        open_database(ServiceSettings(database_url=urls.plain)) as database,
    ):
        with caller():
            backend = on_postgres(database)
            await backend.say("Ada owns a boat.")
            await backend.embed()
            receipt = await backend.memories.forget(memory_id="", scope=ADA)
            (job,) = await backend.owed()
            await database.fetch("UPDATE jobs SET fence = fence + 1 WHERE id = %s", [job.id])
            for step in (backend.work.remove_vectors, backend.work.remove_memories, backend.work.complete):
                with pytest.raises(FenceLost):
                    await step(job)
            assert (await backend.memories.receipt(receipt.id)).stores == {"index": 0, "postgres": 0}


async def test_what_expired_long_ago_is_purged_for_every_tenant(postgres_url: str) -> None:
    async with (
        agent_database(postgres_url) as urls,
        open_database(ServiceSettings(database_url=urls.plain)) as database,
    ):
        for tenant in ("acme", "other"):
            with caller(tenant=tenant):
                backend = on_postgres(database)
                await backend.say("Ada owns a boat.")
                for content, age in (("It rains.", "2 hours"), ("It snowed.", "2 days")):
                    made = await backend.say(content, ttl=timedelta(hours=1))
                    for column, table in (("id", "memories"), ("memory_id", "memory_expiries")):
                        update = f"UPDATE {table} SET valid_until = now() - %s::interval WHERE {column} = %s"  # noqa: S608
                        await database.fetch(update, [age, made.id])
                await backend.embed()
                receipt = await backend.memories.forget(memory_id="nothing", scope=None)
                await database.fetch(
                    "UPDATE memory_receipts SET create_time = now() - interval '91 days' WHERE id = %s", [receipt.id]
                )
                with pytest.raises(MemoryReceiptNotFound):
                    await backend.memories.receipt(receipt.id)
        assert await backend.store.purge() == 4
        assert await backend.store.purge() == 0
        for tenant in ("acme", "other"):
            with caller(tenant=tenant):
                assert await on_postgres(database).listed(show_past=True) == ["It rains.", "Ada owns a boat."]
                for table in ("memory_vectors", "memory_receipts"):
                    count = f"SELECT count(*) AS rows FROM {table}"  # noqa: S608
                    assert (await database.fetch(count))[0]["rows"] == (2 if table == "memory_vectors" else 0)


async def test_what_holds_longer_is_purged_later_or_not_at_all(postgres_url: str) -> None:
    async with (
        agent_database(postgres_url) as urls,
        open_database(ServiceSettings(database_url=urls.plain)) as database,
    ):
        with caller():
            backend = on_postgres(database)
            for ttl, purged in ((timedelta(hours=1), 1), (timedelta(hours=2), 1), (None, 0)):
                made = await backend.say("It rains.", ttl=ttl)
                rows = await database.fetch("SELECT valid_until FROM memory_expiries WHERE memory_id = %s", [made.id])
                assert [row["valid_until"] for row in rows] == [made.valid_until] * purged
