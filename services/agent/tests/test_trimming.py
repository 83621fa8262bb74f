"""Long histories of tools, made to fit."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loremesh_agent.domain.prompts import PromptMessage
from loremesh_agent.domain.tools import ToolCall
from loremesh_agent.domain.trimming import size, trimmed
from loremesh_agent.domain.untrusted import framed

pytestmark = pytest.mark.unit

QUESTION = [PromptMessage("system", "Be brief."), PromptMessage("user", "How high is it? " * 20)]


def call(number: int, content: str) -> list[PromptMessage]:
    made = ToolCall(id=f"c{number}", name="read", arguments='{"x": "a"}')
    return [
        PromptMessage("assistant", "", tool_calls=(made,)),
        PromptMessage("tool", content, tool_call_id=f"c{number}"),
    ]


def history(*contents: str) -> list[PromptMessage]:
    return [*QUESTION, *(message for number, content in enumerate(contents) for message in call(number, content))]


def test_what_fits_stays_as_it_is() -> None:
    messages = history("a " * 500, "b " * 500)
    assert trimmed(messages, tokens=size(messages)) == tuple(messages)


def test_the_oldest_results_give_way_first_and_only_as_many_as_must() -> None:
    messages = history("a " * 1000, "b " * 1000, "c " * 1000)
    fitting = trimmed(messages, tokens=size(messages) - 1200)
    assert size(fitting) <= size(messages) - 1200
    assert [len(after.content) < len(before.content) for before, after in zip(messages, fitting, strict=True)] == [
        False, False, False, True, False, True, False, False,
    ]  # fmt: skip
    assert len(fitting[3].content) < len(fitting[5].content)
    assert "left out" in fitting[3].content
    assert fitting[3].tool_call_id == "c0"


def test_a_question_that_is_too_long_itself_is_left_alone() -> None:
    messages = history("a " * 1000)
    fitting = trimmed(messages, tokens=1)
    assert fitting[:3] == tuple(messages[:3])
    assert len(fitting[3].content) < 400


def test_what_is_marked_as_a_strangers_stays_marked() -> None:
    passages = (
        '<passage number="1" title="A">\n' + "word " * 300 + '</passage>\n<passage number="2" title="B">\nb</passage>'
    )
    content = framed("read", "x").replace("x\n", passages + "\n")
    (*_, told) = trimmed(history(content), tokens=300)
    assert told.content.startswith('<tool_result tool="read">\n<passage number="1"')
    assert told.content.endswith("left out: there is no room for it any more.]\n</tool_result>")
    assert told.content.count("<passage ") == told.content.count("</passage>")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=3000), max_size=6), st.integers(min_value=0, max_value=3000))
def test_whatever_there_is_only_results_change_and_none_grows(contents: list[str], tokens: int) -> None:
    messages = history(*contents)
    fitting = trimmed(messages, tokens=tokens)
    assert len(fitting) == len(messages)
    for before, after in zip(messages, fitting, strict=True):
        assert before == after or (before.role == "tool" and len(after.content) < len(before.content))
        assert before.tool_call_id == after.tool_call_id
