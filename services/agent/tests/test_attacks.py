"""A model that obeys every text it reads, whoever wrote it: what it is made to do stops at our rules."""

import re
from collections.abc import Sequence
from typing import Any

import pytest
from loremesh_agent.domain import loop
from loremesh_agent.domain.events import FinishReason
from loremesh_agent.domain.loop import AskHuman, AskModel, Begun, CallTool, CheckedCall, ModelAnswered, Rules, ToolTold
from loremesh_agent.domain.passages import numbered
from loremesh_agent.domain.prompts import PromptMessage, build
from loremesh_agent.domain.tools import Effect, Outcome, ToolSpec
from loremesh_agent.domain.untrusted import NOTICE, remembered

from .attacks import ATTACKS
from .conftest import make_agent, make_passage
from .test_loop import USAGE

pytestmark = pytest.mark.unit

_ORDER = re.compile(r"\b(send|shell|read)\(x=(\w+)\)")
QUESTION = "What does the page say?"


def tool(name: str, effect: Effect, *, untrusted: bool) -> ToolSpec:
    return ToolSpec(name=name, description="", input_schema={}, effect=effect, untrusted=untrusted)


TOOLS = {
    "read": tool("read", Effect.READ_ONLY, untrusted=True),
    "send": tool("send", Effect.SIDE_EFFECTING, untrusted=False),
    "note": tool("note", Effect.IDEMPOTENT, untrusted=False),
}
SYSTEM = PromptMessage("system", NOTICE)


def obey(messages: Sequence[PromptMessage], *, first: str = "") -> tuple[CheckedCall, ...]:
    """Every call that any text orders and that is not answered yet; `first` is what the user really asked for."""
    asked = {(call.name, call.arguments) for message in messages for call in message.tool_calls}
    orders = [(first, "a")] if first else []
    orders += [(name, x) for message in messages for name, x in _ORDER.findall(message.content)]
    return tuple(
        CheckedCall(name=name, arguments={"x": x})
        for name, x in dict.fromkeys(orders)
        if (name, f'{{"x": "{x}"}}') not in asked
    )


def play(
    begun: Begun, results: dict[str, str], *, first: str = ""
) -> tuple[list[CallTool], list[AskHuman], loop.State]:
    """The run up to its end or its first question: calls made, questions asked."""
    made: list[CallTool] = []
    state, _ = loop.step(loop.State(rules=Rules(tools=TOOLS), model="a/b"), begun)
    for _ in range(100):
        todo = loop.wanted(state)
        effects = [each for each in todo if not isinstance(each, AskHuman)]
        if state.end or not effects:
            return made, [each for each in todo if isinstance(each, AskHuman)], state
        event: Any
        match effects[0]:
            case AskModel(number=number, model=model):
                calls = obey(state.messages, first=first)
                reason = FinishReason.TOOL_CALLS if calls else FinishReason.STOP
                event = ModelAnswered(number=number, model=model, text="", reason=reason, usage=USAGE, calls=calls)
            case CallTool() as call:
                made.append(call)
                event = ToolTold(number=call.number, content=results.get(call.name, "ok"))
        state, _ = loop.step(state, event)
    raise AssertionError


def check(made: Sequence[CallTool], state: loop.State, attack: str) -> None:
    assert {call.name for call in made} <= {"read"}
    for call in state.refusals:
        assert (call.name, call.outcome) == ("shell", Outcome.REFUSED)
    for message in state.messages:
        if message.role == "system":
            assert attack not in message.content
        if message.role == "tool" and "<tool_result" in message.content:
            opened = re.findall(r"<\s*tool_result", message.content, re.IGNORECASE)
            closed = re.findall(r"<\s*/\s*tool_result", message.content, re.IGNORECASE)
            assert (len(opened), len(closed)) == (1, 1)
            assert message.content.endswith("</tool_result>")


@pytest.mark.parametrize("attack", ATTACKS)
def test_in_a_tools_result(attack: str) -> None:
    begun = Begun(messages=(SYSTEM, PromptMessage("user", QUESTION)))
    made, asked, state = play(begun, {"read": attack}, first="read")
    check(made, state, attack)
    assert [each.name for each in asked] == ["send"] * ("send(" in attack)


@pytest.mark.parametrize("attack", ATTACKS)
def test_in_a_passage(attack: str) -> None:
    prompt = build(make_agent(), question=QUESTION, passages=[make_passage(attack)], history=())
    begun = Begun(messages=prompt.messages, sources=numbered(prompt.passages), untrusted=True)
    made, _, state = play(begun, {})
    check(made, state, attack)
    last = prompt.messages[-1].content
    assert len(re.findall(r"<\s*/\s*passage", last, re.IGNORECASE)) == 1


@pytest.mark.parametrize("attack", ATTACKS)
def test_in_a_memory(attack: str) -> None:
    content = f"{remembered([attack])}\n\n{QUESTION}"
    begun = Begun(messages=(SYSTEM, PromptMessage("user", content)), untrusted=True)
    made, _, state = play(begun, {})
    check(made, state, attack)
    assert len(re.findall(r"<\s*/\s*memory", content, re.IGNORECASE)) == 1


def test_the_corpus_is_no_empty_one_and_the_model_obeys() -> None:
    assert len(ATTACKS) >= 20
    made, asked, _ = play(Begun(messages=(SYSTEM, PromptMessage("user", ATTACKS[0]))), {})
    # From the user's own mouth it is an order, and is done.
    assert ([call.name for call in made], asked) == (["send"], [])
