"""Chats over fakes: what is told, what is kept, and what happens when something fails."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import pytest
from loremesh_agent import prompts
from loremesh_agent.adapters.memory import (
    MemoryAgents,
    MemoryConversations,
    MemoryDocuments,
    MemoryIndex,
    MemoryRecords,
    MemoryTurns,
    Pause,
    ScriptedProvider,
)
from loremesh_agent.domain.agents import Agent
from loremesh_agent.domain.conversations import Message, State, Usage
from loremesh_agent.domain.definitions import GroundingPolicy
from loremesh_agent.domain.events import (
    Completed,
    Event,
    Failed,
    FinishReason,
    Heartbeat,
    Incomplete,
    RunStarted,
    SourcesFound,
    TextDelta,
    TextFinish,
    TextStart,
)
from loremesh_agent.domain.passages import Found, Passage
from loremesh_agent.domain.questions import Question
from loremesh_agent.domain.relevance import Floors
from loremesh_agent.engine.asking import Patience, PatientProvider
from loremesh_agent.engine.chat import ChatEngine, Pace
from loremesh_agent.engine.quoting import Quoting
from loremesh_agent.errors import (
    ConversationBusy,
    ConversationNotFound,
    MessageTooLong,
    ProviderStreamCut,
    ProviderTimeout,
    ProviderUnavailable,
    VectorStoreNotFound,
)
from loremesh_agent.ports import FinishedTurn, ModelFinish, ModelText, NewTurn
from loremesh_kit import deadline
from loremesh_kit.clock import SystemClock
from loremesh_kit.errors import DependencyUnavailable, ServiceError

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("who")]

QUESTION = "How high is the lighthouse of Genoa?"
DONE = ModelFinish(reason=FinishReason.STOP, usage=Usage(input_tokens=9, output_tokens=3))
NAMES = {"provider": "scripted", "model": "a-model"}


@dataclass
class House:
    """A chat engine and everything around it."""

    agent: Agent
    found: Found
    provider: ScriptedProvider = field(default_factory=lambda: ScriptedProvider(words("It is 77 metres high [1].")))
    patience: Patience = field(default_factory=lambda: Patience(first_token=5, idle=5, total=10, attempts=1))
    pace: Pace = field(default_factory=lambda: Pace(heartbeat=10, keep=5))
    lease: float = 10

    def __post_init__(self) -> None:
        self.index = MemoryIndex({"default": self.found, "empty": Found()})
        self.records = MemoryRecords(clock=SystemClock())
        self.turns = MemoryTurns(records=self.records, lease=self.lease)
        self.conversations = MemoryConversations(records=self.records)
        self.documents = MemoryDocuments()

    @property
    def engine(self) -> ChatEngine:
        return ChatEngine(
            agents=MemoryAgents(default=self.agent),
            index=self.index,
            provider=PatientProvider(provider=self.provider, patience=self.patience),
            turns=self.turns,
            quoting=Quoting(documents=self.documents),
            clock=SystemClock(),
            floors=Floors(),
            pace=self.pace,
        )

    async def ask(self, text: str = QUESTION, **fields: object) -> list[Event]:
        return [event async for event in self.engine.stream(Question(text=text, **fields))]  # type: ignore[arg-type]

    async def kept(self) -> list[Message]:
        (conversation,) = await self.conversations.page(after=None, limit=9)
        return list(await self.conversations.messages(conversation.id, after=0, limit=99))


@pytest.fixture
def house(found: Found, make_agent: Callable[..., Agent]) -> House:
    return House(agent=make_agent(), found=found)


def words(text: str, finish: ModelFinish = DONE) -> list[ModelText | ModelFinish | Pause | Exception]:
    return [*(ModelText(piece) for piece in text.replace(" ", "\0 ").split("\0")), finish]


def text_of(events: Sequence[Event]) -> str:
    return "".join(event.payload.text for event in events if isinstance(event.payload, TextDelta))


def check_shape(events: Sequence[Event]) -> None:
    """What every stream keeps to: numbered without gaps, one terminal event, and that one last."""
    told = [event for event in events if not isinstance(event.payload, Heartbeat)]
    assert [event.seq for event in told] == list(range(1, len(told) + 1))
    assert [event.terminal for event in told] == [False] * (len(told) - 1) + [True]
    assert len({event.run_id for event in events}) == 1


async def test_an_answer_is_told_in_order_and_kept_as_it_was_told(house: House) -> None:
    events = await house.ask()
    check_shape(events)
    kinds = [type(event.payload) for event in events]
    assert kinds[:3] == [RunStarted, SourcesFound, TextStart]
    assert kinds[3:-2] == [TextDelta] * len(kinds[3:-2])
    assert kinds[-2:] == [TextFinish, Completed]
    answer = events[-1].payload.answer  # type: ignore[union-attr]
    assert (answer.text, answer.grounded, answer.model) == ("It is 77 metres high [1].", True, "a-model")
    assert text_of(events) == answer.text
    assert [(source.number, source.cited) for source in answer.sources] == [(1, True)]
    asked, said = await house.kept()
    assert (asked.content, asked.state) == (QUESTION, State.COMPLETED)
    assert (said.content, said.state, said.usage) == (answer.text, State.COMPLETED, DONE.usage)
    assert (said.id, said.run_id, said.sources) == (answer.message_id, answer.run_id, answer.sources)


@pytest.mark.parametrize(
    ("policy", "told", "grounded"),
    [
        (GroundingPolicy.ANNOTATE, "It is 77 metres high [1]. It was painted red by an emperor [2].", True),
        (GroundingPolicy.DROP, "It is 77 metres high [1].", True),
        (GroundingPolicy.ABSTAIN, prompts.load("full").refusal, False),
    ],
)
async def test_what_a_policy_does_not_let_pass_is_neither_told_nor_kept(
    house: House, policy: GroundingPolicy, told: str, grounded: bool
) -> None:
    house.provider = ScriptedProvider(words("It is 77 metres high [1]. It was painted red by an emperor [2]."))
    house.agent = replace(house.agent, grounding=policy)
    events = await house.ask()
    check_shape(events)
    answer = events[-1].payload.answer  # type: ignore[union-attr]
    assert (text_of(events), answer.text, answer.grounded) == (told, told, grounded)
    assert (await house.kept())[1].content == told


async def test_what_was_held_back_of_an_answer_that_broke_off_is_not_kept(house: House) -> None:
    house.provider = ScriptedProvider([ModelText("It is red."), ProviderStreamCut("cut", **NAMES)])
    house.agent = replace(house.agent, grounding=GroundingPolicy.DROP)
    events = await house.ask()
    assert isinstance(events[-1].payload, Failed)
    assert (text_of(events), (await house.kept())[1].content) == ("", "")


async def test_chat_gives_what_the_stream_ends_with(house: House) -> None:
    answer = await house.engine.answer(Question(text=QUESTION))
    assert answer.text == "It is 77 metres high [1]."


async def test_the_model_is_asked_as_agent_and_caller_say(house: House) -> None:
    await house.ask(temperature=0.0, max_output_tokens=7)
    (request,) = house.provider.requests
    assert (request.model, request.temperature, request.max_output_tokens) == ("a-model", 0.0, 7)


async def test_where_the_model_cites_nothing_the_support_is_looked_up_and_streamed(house: House) -> None:
    house.provider = ScriptedProvider(words("The lighthouse of Genoa is 77 metres high."))
    events = await house.ask()
    answer = events[-1].payload.answer  # type: ignore[union-attr]
    assert text_of(events) == answer.text == "The lighthouse of Genoa is 77 metres high. [1]"
    assert [source.number for source in answer.sources if source.cited] == [1]


async def test_what_no_passage_supports_is_not_cited_and_says_so(house: House) -> None:
    house.provider = ScriptedProvider(words("It was painted green by sailors who loved the opera."))
    events = await house.ask()
    answer = events[-1].payload.answer  # type: ignore[union-attr]
    assert answer.text.endswith(house.agent.wording.unsupported)
    assert text_of(events) == answer.text
    assert not answer.grounded
    assert not any(source.cited for source in answer.sources)


async def test_a_small_models_fabrication_is_answered_with_a_quotation(house: House) -> None:
    house.agent = replace(house.agent, wording=prompts.load("compact"))
    house.provider = ScriptedProvider(words("It was painted green by sailors who loved the opera."))
    events = await house.ask()
    answer = events[-1].payload.answer  # type: ignore[union-attr]
    assert answer.text.endswith("“The lighthouse of Genoa is 77 metres high.” [1]")
    assert not answer.grounded
    assert [source.number for source in answer.sources] == [1]


async def test_a_small_model_that_goes_round_in_circles_is_stopped(house: House) -> None:
    house.agent = replace(house.agent, wording=prompts.load("compact"))
    house.provider = ScriptedProvider(words("The lighthouse is 77 metres high. " * 50))
    events = await house.ask()
    check_shape(events)
    answer = events[-1].payload.answer  # type: ignore[union-attr]
    assert answer.text == "The lighthouse is 77 metres high. The lighthouse is 77 metres high. [1]"
    assert answer.usage.output_tokens > 0
    assert house.provider.closed == 1


async def test_citations_of_nothing_are_removed_before_they_are_streamed(house: House) -> None:
    house.provider = ScriptedProvider([ModelText("It is red [7"), ModelText("][1]"), ModelText("[9"), DONE])
    assert text_of(await house.ask()) == "It is red[1][9"


async def test_a_refusal_of_the_models_is_not_grounded(house: House) -> None:
    house.provider = ScriptedProvider(words(house.agent.wording.refusal))
    events = await house.ask()
    answer = events[-1].payload.answer  # type: ignore[union-attr]
    assert (answer.text, answer.grounded) == (house.agent.wording.refusal, False)


@pytest.mark.parametrize("similarity", [0.1, None])
async def test_without_relevant_passages_no_model_is_asked(house: House, similarity: float | None) -> None:
    house.index.stores["default"] = Found(passages=house.found.passages if similarity else (), similarity=similarity)
    events = await house.ask()
    check_shape(events)
    answer = events[-1].payload.answer  # type: ignore[union-attr]
    assert (answer.grounded, answer.model, answer.sources) == (False, "", ())
    assert text_of(events) == answer.text == house.agent.wording.refusal
    assert house.provider.requests == []


@pytest.mark.parametrize("reason", [FinishReason.LENGTH, FinishReason.CONTENT_FILTER])
async def test_an_answer_cut_by_a_limit_is_incomplete(house: House, reason: FinishReason) -> None:
    house.provider = ScriptedProvider(words("The lighthouse", ModelFinish(reason=reason)))
    events = await house.ask()
    check_shape(events)
    assert isinstance(events[-1].payload, Incomplete)
    assert events[-1].payload.answer.finish_reason is reason
    assert (await house.kept())[1].state is State.INCOMPLETE
    assert (await house.engine.answer(Question(text=QUESTION))).finish_reason is reason


@pytest.mark.parametrize("tokens", range(5))
async def test_a_provider_that_fails_after_any_token_fails_the_run(house: House, tokens: int) -> None:
    house.provider = ScriptedProvider([*words("a b c d e")[:tokens], ProviderStreamCut("cut", **NAMES)])
    events = await house.ask()
    check_shape(events)
    assert isinstance(events[-1].payload, Failed)
    assert events[-1].payload.error.reason == "PROVIDER_STREAM_CUT"
    said = (await house.kept())[1]
    assert (said.state, said.content) == (State.FAILED, text_of(events))
    with pytest.raises(ProviderStreamCut):
        await house.engine.answer(Question(text=QUESTION))


async def test_a_stream_that_ends_without_an_end_is_cut(house: House) -> None:
    house.provider = ScriptedProvider([ModelText("The")])
    assert (await house.ask())[-1].payload.error.reason == "PROVIDER_STREAM_CUT"  # type: ignore[union-attr]


async def test_a_defect_of_ours_ends_the_stream_too_and_tells_nothing(house: House) -> None:
    house.provider = ScriptedProvider([ModelText("The"), RuntimeError("canary-secret")])
    events = await house.ask()
    check_shape(events)
    error = events[-1].payload.error  # type: ignore[union-attr]
    assert error.reason == "INTERNAL"
    assert "canary" not in error.message


@pytest.mark.parametrize(
    ("script", "limit"),
    [
        ([Pause(9)], "first_token"),
        ([ModelText("The"), Pause(9)], "idle"),
        ([ModelText("a"), Pause(0.03)] * 999, "total"),
    ],
)
async def test_each_kind_of_slowness_has_its_limit(
    house: House, script: list[ModelText | ModelFinish | Pause | Exception], limit: str
) -> None:
    house.provider = ScriptedProvider(script)
    house.patience = Patience(first_token=0.2, idle=0.5, total=1, attempts=3)
    events = await house.ask()
    check_shape(events)
    error = events[-1].payload.error  # type: ignore[union-attr]
    assert isinstance(error, ProviderTimeout)
    assert error.metadata["limit"] == limit
    assert len(house.provider.requests) == 1
    assert house.provider.closed == 1


async def test_before_the_first_token_a_failure_is_tried_again(house: House) -> None:
    house.provider = ScriptedProvider([ProviderUnavailable("busy", **NAMES)], words("The height [1]."))
    house.patience = Patience(first_token=5, idle=5, total=10, attempts=2)
    events = await house.ask()
    check_shape(events)
    assert isinstance(events[-1].payload, Completed)
    assert len(house.provider.requests) == house.provider.closed == 2


async def test_an_empty_answer_is_none(house: House) -> None:
    house.provider = ScriptedProvider([DONE])
    house.patience = Patience(first_token=5, idle=5, total=10, attempts=2)
    assert (await house.ask())[-1].payload.error.reason == "PROVIDER_UNAVAILABLE"  # type: ignore[union-attr]
    assert len(house.provider.requests) == 2


async def test_a_pause_longer_than_we_wait_is_passed_on(house: House) -> None:
    house.provider = ScriptedProvider([ProviderUnavailable("busy", retry_after=60, **NAMES)])
    house.patience = Patience(first_token=5, idle=5, total=10, attempts=5)
    error = (await house.ask())[-1].payload.error  # type: ignore[union-attr]
    assert error.retry_after == 60
    assert len(house.provider.requests) == 1


async def test_after_the_first_token_nothing_is_tried_again(house: House) -> None:
    house.provider = ScriptedProvider([ModelText("The"), ProviderUnavailable("down", **NAMES)])
    house.patience = Patience(first_token=5, idle=5, total=10, attempts=5)
    await house.ask()
    assert len(house.provider.requests) == 1


async def test_silence_is_filled_with_heartbeats(house: House) -> None:
    house.provider = ScriptedProvider([Pause(0.2), *words("Yes [1].")])
    house.pace = Pace(heartbeat=0.05, keep=5)
    events = await house.ask()
    check_shape(events)
    beats = [event for event in events if isinstance(event.payload, Heartbeat)]
    assert len(beats) >= 2
    assert {beat.seq for beat in beats} == {0}


async def test_leaving_cancels_the_model_and_keeps_what_there_was(house: House) -> None:
    house.provider = ScriptedProvider([ModelText("The lighthouse"), Pause(60), DONE])
    async with asyncio.timeout(1):
        async with aclosing(house.engine.stream(Question(text=QUESTION))) as events:
            async for event in events:
                if isinstance(event.payload, TextDelta):
                    break
    assert house.provider.closed == 1
    said = (await house.kept())[1]
    assert (said.state, said.content) == (State.CANCELLED, "The lighthouse")
    await house.ask(conversation_id=said.conversation_id)


async def test_cancelling_the_caller_does_the_same(house: House) -> None:
    house.provider = ScriptedProvider([ModelText("The lighthouse"), Pause(60), DONE])
    asking = asyncio.ensure_future(house.engine.answer(Question(text=QUESTION)))
    await house.provider.asked.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert house.provider.closed == 1
    assert (await house.kept())[1].state is State.CANCELLED


async def test_a_deadline_is_told_of_before_it_passes(house: House) -> None:
    house.provider = ScriptedProvider([ModelText("The"), Pause(60), DONE])
    with deadline.scope(0.5):
        events = await house.ask()
        assert deadline.remaining() != 0
    check_shape(events)
    assert events[-1].payload.error.reason == "DEADLINE_EXCEEDED"  # type: ignore[union-attr]
    assert (await house.kept())[1].state is State.FAILED


async def test_a_conversation_answers_one_message_at_a_time(house: House) -> None:
    house.provider = ScriptedProvider([ModelText("The"), Pause(60)])
    async with aclosing(house.engine.stream(Question(text=QUESTION))) as events:
        started = (await anext(events)).payload
        assert isinstance(started, RunStarted)
        with pytest.raises(ConversationBusy) as refused:
            await house.ask(conversation_id=started.conversation_id)
        assert refused.value.retry_after is not None
        assert len(await house.kept()) == 2


async def test_a_turn_whose_writer_died_blocks_no_longer_than_its_lease(house: House) -> None:
    house.lease = 0.5
    house.__post_init__()
    turn = NewTurn(
        run_id="r", question_id="q", answer_id="a", text="Hm?", agent_id="default", conversation_id=None,
        new_conversation_id="c",
    )  # fmt: skip
    await house.turns.begin(turn)
    with pytest.raises(ConversationBusy):
        await house.ask(conversation_id="c")
    await asyncio.sleep(0.51)
    check_shape(await house.ask(conversation_id="c"))
    states = [message.state for message in await house.kept()]
    assert states == [State.COMPLETED, State.FAILED, State.COMPLETED, State.COMPLETED]
    with pytest.raises(ConversationBusy):
        await house.turns.finish(turn, FinishedTurn(content="late", state=State.COMPLETED))


async def test_a_live_writer_keeps_its_conversation(house: House) -> None:
    house.lease, house.pace = 1, Pace(heartbeat=10, keep=0.1)
    house.__post_init__()
    house.provider = ScriptedProvider([ModelText("The lighthouse"), Pause(1.6), *words(" is high [1].")])
    asking = asyncio.ensure_future(house.ask())
    await asyncio.sleep(1.3)
    said = (await house.kept())[1]
    assert said.content == "The lighthouse"
    with pytest.raises(ConversationBusy):
        await house.ask(conversation_id=said.conversation_id)
    assert isinstance((await asking)[-1].payload, Completed)


async def test_a_conversation_deleted_meanwhile_is_said_to_be_gone(house: House) -> None:
    house.provider = ScriptedProvider([ModelText("The"), Pause(0.1), *words(" end [1].")])
    events = []
    async for event in house.engine.stream(Question(text=QUESTION)):
        events.append(event)
        if isinstance(event.payload, RunStarted):
            await house.conversations.delete(event.payload.conversation_id)
    check_shape(events)
    assert events[-1].payload.error.reason == "CONVERSATION_NOT_FOUND"  # type: ignore[union-attr]


async def test_an_answer_that_cannot_be_kept_is_not_called_done(house: House) -> None:
    class Broken(MemoryTurns):
        async def finish(self, turn: NewTurn, finished: FinishedTurn) -> None:
            raise DependencyUnavailable("postgres")

    house.turns = Broken(records=house.records, lease=10)
    events = await house.ask()
    check_shape(events)
    assert events[-1].payload.error.reason == "DEPENDENCY_UNAVAILABLE"  # type: ignore[union-attr]


@pytest.mark.parametrize("continued", [False, True])
async def test_a_question_that_is_refused_leaves_nothing_behind(house: House, continued: bool) -> None:
    conversation_id = None
    if continued:
        conversation_id = (await house.engine.answer(Question(text=QUESTION))).conversation_id
    before = list(house.records.messages), dict(house.records.conversations)
    for refusal in (DependencyUnavailable("retrieval"), RuntimeError("a defect")):
        house.index.failure = refusal
        with pytest.raises(type(refusal)):
            await house.ask(conversation_id=conversation_id)
    house.index.failure = None
    with pytest.raises(VectorStoreNotFound):
        await house.ask(conversation_id=conversation_id, vector_store_ids=("default", "none"))
    with pytest.raises(MessageTooLong):
        await house.ask("word " * 9000, conversation_id=conversation_id)
    counts = {key: each.message_count for key, each in house.records.conversations.items()}
    assert list(house.records.messages) == before[0]
    assert counts == {key: each.message_count for key, each in before[1].items()}


async def test_an_unknown_conversation_is_refused_before_anything_is_searched(house: House) -> None:
    with pytest.raises(ConversationNotFound):
        await house.ask(conversation_id="x")
    assert house.index.queries == []


async def test_several_vector_stores_are_searched_and_merged(
    house: House, make_passage: Callable[..., Passage]
) -> None:
    best = make_passage("Genoa's lighthouse is 77 metres high.", name="best", score=3.0)
    house.index.stores["other"] = Found(passages=(best,), similarity=0.9)
    events = await house.ask(vector_store_ids=("default", "other", "empty"), top_k=2)
    found = next(event.payload for event in events if isinstance(event.payload, SourcesFound))
    assert [source.passage.document_id for source in found.sources] == ["document-best", "document-lighthouse"]


async def test_history_is_told_to_the_model_and_leans_the_search(house: House) -> None:
    first = await house.engine.answer(Question(text=QUESTION))
    await house.ask("And who built it?", conversation_id=first.conversation_id)
    request = house.provider.requests[-1]
    assert [message.content for message in request.messages[1:3]] == [QUESTION, "It is 77 metres high."]
    assert house.index.queries[-1] == f"{QUESTION}\nAnd who built it?"


async def test_failed_answers_are_no_history(house: House) -> None:
    house.provider = ScriptedProvider([ModelText("No"), ProviderStreamCut("cut", **NAMES)], words("Yes [1]."))
    events = await house.ask()
    started = events[0].payload
    assert isinstance(started, RunStarted)
    await house.ask(conversation_id=started.conversation_id)
    assert len(house.provider.requests[-1].messages) == 2


async def test_every_failure_a_stream_may_end_with_is_a_public_one(house: House) -> None:
    house.provider = ScriptedProvider([ProviderUnavailable("down", **NAMES)])
    with pytest.raises(ServiceError) as failed:
        await house.engine.answer(Question(text=QUESTION))
    assert failed.value.metadata == NAMES
