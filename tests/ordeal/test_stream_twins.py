"""A provider is cut at every word: no answer is said to be whole that is not, unless the adapter is credulous."""

import itertools
import re
from contextlib import aclosing

import pytest
from loremesh_agent import prompts
from loremesh_agent.adapters.memory import MemoryAgents, MemoryDocuments, MemoryIndex, MemoryRecords, MemoryTurns
from loremesh_agent.adapters.openai import OpenAIProvider
from loremesh_agent.domain.agents import Agent, Window
from loremesh_agent.domain.events import Completed, FinishReason
from loremesh_agent.domain.passages import Found, Passage
from loremesh_agent.domain.questions import Question
from loremesh_agent.domain.relevance import Floors
from loremesh_agent.engine.asking import Patience, PatientProvider
from loremesh_agent.engine.chat import ChatEngine, Pace
from loremesh_agent.engine.quoting import Quoting
from loremesh_agent.errors import ProviderStreamCut
from loremesh_agent.ports import ModelFinish
from loremesh_kit.clock import SystemClock
from loremesh_kit.testing import caller

from tests.ordeal.checker import Wrong, judge, leaks
from tests.ordeal.ledger import Ledger, Outcome
from tests.ordeal.provider import WORDS, Fate, Script, scripted
from tests.ordeal.stores import Stores

pytestmark = [pytest.mark.steelthread, pytest.mark.timeout(120)]

CANARY = "canary-of-the-provider"
TEXT = "The lighthouse of Genoa is 77 metres high. It was built in 1128."


class Told(Script):
    """An answer goes as the test says."""

    def __init__(self) -> None:
        super().__init__(seed=0, canary=CANARY)
        self.told = (Fate.WHOLE, 0)

    def next(self) -> tuple[Fate, int]:
        return self.told


class Credulous:
    """A provider's adapter that takes the end of a stream for the end of the answer."""

    name = "credulous"

    def __init__(self, provider):
        self._provider = provider

    async def stream(self, request):
        try:
            async with aclosing(self._provider.stream(request)) as events:
                async for event in events:
                    yield event
        except ProviderStreamCut:
            yield ModelFinish(reason=FinishReason.STOP)


def engine(provider) -> ChatEngine:
    passage = Passage(
        document_id="d", chunk_id="c", vector_store_id="default", title="Lighthouse", content=TEXT, score=1.0,
        attributes={}, start_char=0, end_char=len(TEXT), page=None, heading_path=(),
    )  # fmt: skip
    agent = Agent(
        id="default",
        model="scripted",
        wording=prompts.load("full"),
        window=Window(context_tokens=4096, prompt_tokens=2048),
        max_output_tokens=256,
        top_k=4,
    )
    return ChatEngine(
        agents=MemoryAgents(default=agent),
        index=MemoryIndex({"default": Found(passages=(passage,), similarity=0.9)}),
        provider=PatientProvider(provider=provider, patience=Patience(first_token=5, idle=5, total=10, attempts=1)),
        quoting=Quoting(documents=MemoryDocuments()),
        turns=MemoryTurns(records=MemoryRecords(clock=SystemClock()), lease=10),
        clock=SystemClock(),
        floors=Floors(),
        pace=Pace(heartbeat=10, keep=5),
    )


async def chat(provider, ledger: Ledger, *, key: str) -> str:
    """Ask once, and note what was streamed; everything that was said."""
    events, text, said = [], "", []
    with caller():
        async for event in engine(provider).stream(Question(text="How high is the lighthouse of Genoa?")):
            kind = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event.payload).__name__).lower()
            if kind != "heartbeat":
                events.append((event.seq, kind))
            said.append(str(event))
            if isinstance(event.payload, Completed):
                text = event.payload.answer.text
    ledger.note("chat", Outcome.OK, sent=0.0, key=key, events=events, text=text)
    return "\n".join(said)


async def ordeal(wrap) -> tuple[Ledger, str]:
    """Every fate, cut after every number of words."""
    ledger, script, said = Ledger(), Told(), []
    with scripted(script) as url:
        opened = OpenAIProvider.open(name="scripted", base_url=url, api_key=CANARY, connect_seconds=5)
        async with opened as provider:
            for script.told in itertools.product(Fate, range(WORDS + 1)):
                said.append(await chat(wrap(provider), ledger, key=str(script.told)))
    return ledger, "\n".join(said)


async def test_a_cut_answer_is_never_said_to_be_whole():
    ledger, said = await ordeal(lambda provider: provider)
    assert judge(ledger.entries, Stores()) == []
    assert {entry.events[-1][1] for entry in ledger.entries} == {"completed", "failed"}
    assert not list(leaks([CANARY], {"events": said}))


async def test_an_adapter_that_takes_a_cut_for_an_end_is_found_out():
    ledger, _ = await ordeal(Credulous)
    assert {finding.wrong for finding in judge(ledger.entries, Stores())} == {Wrong.UNTRUE}
