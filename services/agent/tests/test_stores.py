"""Conversations and turns: the fake keeps them as Postgres does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import psycopg
import pytest
from loremesh_agent.adapters.memory import MemoryConversations, MemoryRecords, MemoryTurns
from loremesh_agent.adapters.postgres_conversations import PostgresConversations
from loremesh_agent.adapters.postgres_turns import PostgresTurns
from loremesh_agent.domain.conversations import Exchange, Feedback, Rating, Role, State, Usage
from loremesh_agent.domain.events import FinishReason
from loremesh_agent.domain.passages import Passage, numbered
from loremesh_agent.errors import ConversationBusy, ConversationNotFound, MessageNotFound
from loremesh_agent.ports import (
    AnsweredBefore,
    Claim,
    ConversationChange,
    ConversationStore,
    FinishedTurn,
    NewTurn,
    TurnStore,
)
from loremesh_kit.clock import SystemClock
from loremesh_kit.errors import EtagMismatch, IdempotencyConflict
from loremesh_kit.ids import new_id
from loremesh_kit.pages import Position
from loremesh_kit.postgres import open_database
from loremesh_kit.settings import ServiceSettings
from loremesh_kit.testing import DatabaseUrls, caller

from .conftest import agent_database

pytestmark = pytest.mark.conformance

LEASE = 1.5


@dataclass(frozen=True)
class Stores:
    turns: TurnStore
    conversations: ConversationStore


@pytest.fixture(params=["memory", "postgres"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    if request.param == "memory":
        records = MemoryRecords(clock=SystemClock())
        with caller():
            yield Stores(MemoryTurns(records=records, lease=LEASE), MemoryConversations(records=records))
        return
    async with (
        agent_database(request.getfixturevalue("postgres_url")) as urls,
        open_database(ServiceSettings(database_url=urls.plain)) as database,
    ):
        with caller():
            yield Stores(PostgresTurns(database=database, lease=LEASE), PostgresConversations(database=database))


def turn(conversation_id: str | None = None, text: str = "How high is it?") -> NewTurn:
    return NewTurn(
        run_id=new_id(),
        question_id=new_id(),
        answer_id=new_id(),
        text=text,
        agent_id="default",
        conversation_id=conversation_id,
        new_conversation_id=new_id(),
    )


def claimed(conversation_id: str | None = None, request: bytes = b"1") -> NewTurn:
    return replace(turn(conversation_id), claim=Claim(key="k", method="Chat", request_hash=request))


def done(text: str = "77 metres [1].", state: State = State.COMPLETED) -> FinishedTurn:
    return FinishedTurn(content=text, state=state)


async def test_a_turn_makes_a_conversation_and_is_kept_whole(
    stores: Stores, make_passage: Callable[..., Passage]
) -> None:
    first = turn()
    assert list(await stores.turns.begin(first)) == []
    conversation = await stores.conversations.get(first.new_conversation_id)
    assert (conversation.title, conversation.message_count, conversation.agent_id) == ("How high is it?", 2, "default")
    asked, said = await stores.conversations.messages(conversation.id, after=0, limit=9)
    assert (asked.role, asked.content, asked.state, asked.position) == (Role.USER, first.text, State.COMPLETED, 1)
    assert (said.role, said.content, said.state, said.position) == (Role.AGENT, "", State.IN_PROGRESS, 2)
    await stores.turns.keep(first, "77 met")
    assert (await stores.conversations.messages(conversation.id, after=1, limit=9))[0].content == "77 met"
    other = make_passage(name="b", page=None, attributes={"n": [1.5, True, "x"]})
    finished = replace(
        done(),
        sources=numbered([make_passage(), other], cited={2}),
        usage=Usage(input_tokens=3, output_tokens=4),
        model="m",
        grounded=True,
    )  # fmt: skip
    await stores.turns.finish(first, finished)
    said = (await stores.conversations.messages(conversation.id, after=1, limit=9))[0]
    assert (said.id, said.run_id, said.content, said.state) == (
        first.answer_id, first.run_id, "77 metres [1].", State.COMPLETED,
    )  # fmt: skip
    assert (said.sources, said.usage, said.model, said.grounded) == (finished.sources, finished.usage, "m", True)


async def test_the_next_turn_is_told_what_was_said(stores: Stores) -> None:
    first = turn()
    await stores.turns.begin(first)
    await stores.turns.finish(first, done())
    for state in (State.FAILED, State.CANCELLED, State.INCOMPLETE):
        following = turn(first.new_conversation_id, text=f"asked {state}")
        await stores.turns.begin(following)
        await stores.turns.finish(following, done(f"said {state}", state))
    history = await stores.turns.begin(turn(first.new_conversation_id))
    assert list(history) == [
        Exchange(question="How high is it?", answer="77 metres [1]."),
        Exchange(question="asked INCOMPLETE", answer="said INCOMPLETE"),
    ]


async def test_a_conversation_holds_one_turn_at_a_time(stores: Stores) -> None:
    first = turn()
    await stores.turns.begin(first)
    with pytest.raises(ConversationBusy) as refused:
        await stores.turns.begin(turn(first.new_conversation_id))
    assert 0 < (refused.value.retry_after or 0) <= LEASE
    assert (await stores.conversations.get(first.new_conversation_id)).message_count == 2


async def test_of_two_turns_at_once_one_wins(stores: Stores) -> None:
    first = turn()
    await stores.turns.begin(first)
    await stores.turns.finish(first, done())
    tries = [asyncio.ensure_future(stores.turns.begin(turn(first.new_conversation_id))) for _ in range(5)]
    await asyncio.wait(tries)
    failures = [each.exception() for each in tries]
    assert sum(failure is None for failure in failures) == 1
    assert sum(isinstance(failure, ConversationBusy) for failure in failures) == 4


async def test_a_lost_turn_is_taken_over_and_may_not_write_any_more(stores: Stores) -> None:
    lost = turn()
    await stores.turns.begin(lost)
    await asyncio.sleep(LEASE * 1.1)
    following = turn(lost.new_conversation_id)
    await stores.turns.begin(following)
    for write in (stores.turns.keep(lost, "late"), stores.turns.finish(lost, done("late"))):
        with pytest.raises(ConversationBusy):
            await write
    await stores.turns.finish(following, done())
    messages = await stores.conversations.messages(lost.new_conversation_id, after=0, limit=9)
    assert [(each.content, each.state) for each in messages[1::2]] == [
        ("", State.FAILED),
        ("77 metres [1].", State.COMPLETED),
    ]


async def test_telling_of_a_turn_keeps_it(stores: Stores) -> None:
    first = turn()
    await stores.turns.begin(first)
    for _ in range(3):
        await asyncio.sleep(LEASE * 0.6)
        await stores.turns.keep(first, "still")
    with pytest.raises(ConversationBusy):
        await stores.turns.begin(turn(first.new_conversation_id))


async def test_a_withdrawn_turn_was_never_there(stores: Stores) -> None:
    first = turn()
    await stores.turns.begin(first)
    await stores.turns.withdraw(first)
    with pytest.raises(ConversationNotFound):
        await stores.conversations.get(first.new_conversation_id)
    second = turn()
    await stores.turns.begin(second)
    await stores.turns.finish(second, done())
    third = turn(second.new_conversation_id)
    await stores.turns.begin(third)
    await stores.turns.withdraw(third)
    await stores.turns.withdraw(third)
    assert (await stores.conversations.get(second.new_conversation_id)).message_count == 2
    fourth = turn(second.new_conversation_id)
    await stores.turns.begin(fourth)
    messages = await stores.conversations.messages(second.new_conversation_id, after=0, limit=9)
    assert [each.position for each in messages] == [1, 2, 3, 4]


async def test_withdrawing_what_never_began_does_nothing(stores: Stores) -> None:
    await stores.turns.withdraw(turn("no-such-conversation"))


async def test_there_is_no_turn_in_a_conversation_that_is_not_there(stores: Stores) -> None:
    with pytest.raises(ConversationNotFound):
        await stores.turns.begin(turn("no-such-conversation"))
    first = turn()
    await stores.turns.begin(first)
    await stores.conversations.delete(first.new_conversation_id)
    for write in (stores.turns.keep(first, "x"), stores.turns.finish(first, done())):
        with pytest.raises(ConversationNotFound):
            await write


async def test_a_claimed_turn_is_begun_once_and_then_is_the_answer(stores: Stores) -> None:
    first = claimed()
    await stores.turns.begin(first)
    with pytest.raises(ConversationBusy):
        await stores.turns.begin(claimed())
    with pytest.raises(IdempotencyConflict):
        await stores.turns.begin(claimed(request=b"2"))
    with caller(tenant="other"):
        await stores.turns.begin(claimed(request=b"2"))
    limit = replace(done(), state=State.INCOMPLETE, finish_reason=FinishReason.LENGTH)
    await stores.turns.finish(first, limit)
    with pytest.raises(AnsweredBefore) as before:
        await stores.turns.begin(claimed())
    assert before.value.message == (await stores.conversations.messages(first.new_conversation_id, after=1, limit=9))[0]
    assert before.value.message.finish_reason == "LENGTH"
    assert len(await stores.conversations.page(after=None, limit=9)) == 1


@pytest.mark.parametrize("ending", ["failed", "withdrawn", "lost"])
@pytest.mark.parametrize("goes_on", [False, True])
async def test_a_claimed_turn_that_failed_is_replaced(stores: Stores, ending: str, goes_on: bool) -> None:
    conversation_id = None
    if goes_on:
        await stores.conversations.create("c", title="", agent_id="default", attributes={})
        await stores.turns.begin(earlier := turn("c"))
        await stores.turns.finish(earlier, done())
        conversation_id = "c"
    failed = claimed(conversation_id)
    await stores.turns.begin(failed)
    match ending:
        case "failed":
            await stores.turns.finish(failed, done("77", State.FAILED))
        case "withdrawn":
            await stores.turns.withdraw(failed)
        case "lost":
            await asyncio.sleep(LEASE * 1.1)
    again = claimed(conversation_id)
    await stores.turns.begin(again)
    await stores.turns.finish(again, done())
    (conversation,) = await stores.conversations.page(after=None, limit=9)
    messages = await stores.conversations.messages(conversation.id, after=0, limit=9)
    assert conversation.message_count == len(messages) == (4 if goes_on else 2)
    assert messages[-1].id == again.answer_id
    with pytest.raises(AnsweredBefore):
        await stores.turns.begin(claimed(conversation_id))


async def test_history_says_from_which_documents_an_answer_is(
    stores: Stores, make_passage: Callable[..., Passage]
) -> None:
    first = turn()
    await stores.turns.begin(first)
    sources = numbered([make_passage(), make_passage(name="b"), make_passage(name="b")], cited={2})
    await stores.turns.finish(first, replace(done(), sources=sources))
    (exchange,) = await stores.turns.begin(turn(first.new_conversation_id))
    assert exchange.document_ids == {"document-lighthouse", "document-b"}


async def test_conversations_are_made_changed_and_deleted(stores: Stores) -> None:
    conversations = stores.conversations
    await conversations.create("c", title="", agent_id="default", attributes={"a": [1.0, "x", True]})
    made = await conversations.get("c")
    assert (made.title, made.attributes, made.message_count) == ("", {"a": [1.0, "x", True]}, 0)
    changed = await conversations.update("c", ConversationChange(title="T"), etag=made.etag)
    assert (changed.title, changed.attributes) == ("T", made.attributes)
    assert changed.etag != made.etag
    with pytest.raises(EtagMismatch):
        await conversations.update("c", ConversationChange(title="U"), etag=made.etag)
    await conversations.update("c", ConversationChange(attributes={}), etag="")
    assert (await conversations.get("c")).attributes == {}
    await conversations.delete("c")
    for gone in (
        conversations.get("c"),
        conversations.update("c", ConversationChange(title="U"), etag=""),
        conversations.delete("c"),
        conversations.messages("c", after=0, limit=9),
    ):
        with pytest.raises(ConversationNotFound):
            await gone


async def test_a_first_message_gives_the_title_where_there_is_none(stores: Stores) -> None:
    for id_, title, then in (("c", "", "How high is it?"), ("d", "Mine", "Mine")):
        await stores.conversations.create(id_, title=title, agent_id="default", attributes={})
        await stores.turns.begin(turn(id_))
        assert (await stores.conversations.get(id_)).title == then


async def test_conversations_are_paged_by_their_last_change(stores: Stores) -> None:
    conversations = stores.conversations
    for id_ in "abcde":
        await conversations.create(id_, title="", agent_id="default", attributes={})
    await conversations.update("b", ConversationChange(title="now"), etag="")
    found: list[str] = []
    after: Position | None = None
    while page := await conversations.page(after=after, limit=2):
        found += [each.id for each in page]
        after = Position(sort_key=page[-1].update_time.isoformat(), id=page[-1].id)
    assert found == ["b", "e", "d", "c", "a"]


async def test_an_answer_is_rated_and_rated_again(stores: Stores) -> None:
    first = turn()
    await stores.turns.begin(first)
    good = Feedback(rating=Rating.GOOD, comment="yes")
    assert (await stores.conversations.rate(first.answer_id, good)).feedback == good
    remark = Feedback(rating=None, comment="hm")
    assert (await stores.conversations.rate(first.answer_id, remark)).feedback == remark
    assert (await stores.conversations.rate(first.answer_id, None)).feedback is None
    for id_ in (first.question_id, "no-such-message"):
        with pytest.raises(MessageNotFound):
            await stores.conversations.rate(id_, good)


async def test_another_tenant_sees_and_touches_nothing(stores: Stores) -> None:
    first = turn()
    await stores.turns.begin(first)
    id_ = first.new_conversation_id
    with caller(tenant="other"):
        assert not await stores.conversations.page(after=None, limit=9)
        await stores.turns.withdraw(first)
        for probe in (
            stores.conversations.get(id_),
            stores.conversations.delete(id_),
            stores.conversations.update(id_, ConversationChange(title="mine"), etag=""),
            stores.conversations.messages(id_, after=0, limit=9),
            stores.turns.begin(turn(id_)),
            stores.turns.keep(first, "mine"),
            stores.turns.finish(first, done()),
        ):
            with pytest.raises(ConversationNotFound):
                await probe
        with pytest.raises(MessageNotFound):
            await stores.conversations.rate(first.answer_id, None)
    assert len(await stores.conversations.messages(id_, after=0, limit=9)) == 2


async def test_the_database_itself_keeps_tenants_apart(database_urls: DatabaseUrls) -> None:
    async with open_database(ServiceSettings(database_url=database_urls.plain)) as database:
        with caller():
            await PostgresTurns(database=database, lease=9).begin(turn())
    async with await psycopg.AsyncConnection.connect(database_urls.plain) as connection:
        for table in ("conversations", "messages", "chat_jobs", "quotations", "quoted_documents"):
            assert await (await connection.execute(f"SELECT * FROM agent.{table}")).fetchall() == []  # noqa: S608
