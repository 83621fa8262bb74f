"""Tools for models that know of none: by a schema of their answer."""

import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from loremesh_agent.adapters.local_tools import LocalTools
from loremesh_agent.adapters.memory import ScriptedProvider
from loremesh_agent.adapters.openai import OpenAIProvider
from loremesh_agent.domain.events import FinishReason
from loremesh_agent.domain.prompts import PromptMessage
from loremesh_agent.domain.tools import Effect, ToolCall, ToolSpec
from loremesh_agent.errors import ModelOutputInvalid
from loremesh_agent.ports import ModelEvent, ModelFinish, ModelProgress, ModelRequest, ModelText, ModelToolCall

pytestmark = pytest.mark.unit

SPECS = (
    ToolSpec(
        name="calculator",
        description="Computes arithmetic.",
        input_schema={
            "type": "object",
            "properties": {"expression": {"type": "string"}},
            "required": ["expression"],
            "additionalProperties": False,
        },
        effect=Effect.READ_ONLY,
    ),
    ToolSpec(
        name="tree",
        description="Plants one.",
        input_schema={"type": "object", "$defs": {"x": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/x"}}},
        effect=Effect.READ_ONLY,
    ),
)
STOP = ModelFinish(reason=FinishReason.STOP)
REQUEST = ModelRequest(
    model="m",
    messages=(PromptMessage("system", "Be brief."), PromptMessage("user", "What is 2+2?")),
    max_output_tokens=40,
    stop=("\n",),
    tools=SPECS,
)


async def heard(*pieces: str, finish: ModelFinish = STOP) -> tuple[str, list[ToolCall], ModelEvent | ModelProgress]:
    source: Any = ScriptedProvider([*map(ModelText, pieces), finish])
    events = [event async for event in LocalTools(source).stream(REQUEST)]
    text = "".join(event.text for event in events if isinstance(event, ModelText))
    return text, [event.call for event in events if isinstance(event, ModelToolCall)], events[-1]


async def test_tools_are_offered_by_a_schema_of_the_answer() -> None:
    source: Any = ScriptedProvider([ModelText('{"answer": "4"}'), STOP])
    assert [event async for event in LocalTools(source).stream(REQUEST)]
    (asked,) = source.requests
    assert (asked.tools, asked.stop) == ((), ())
    assert "- calculator" in asked.messages[0].content
    schema = asked.response_schema
    jsonschema.Draft202012Validator.check_schema(schema)
    fits = jsonschema.Draft202012Validator(schema).is_valid
    assert fits({"answer": "4"})
    assert fits({"tool": "calculator", "arguments": {"expression": "2+2"}})
    assert fits({"tool": "tree", "arguments": {"a": 1}})
    assert not fits({"tool": "calculator", "arguments": {}})
    assert not fits({"tool": "nobody", "arguments": {}})
    assert not fits({"answer": "4", "tool": "calculator"})


async def test_without_tools_nothing_changes() -> None:
    source: Any = ScriptedProvider([ModelText("4"), STOP])
    request = ModelRequest(model="m", messages=REQUEST.messages, max_output_tokens=40, stop=("\n",))
    assert [event async for event in LocalTools(source).stream(request)] == [ModelText("4"), STOP]
    assert source.requests == [request]


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
async def test_an_answer_in_json_comes_out_as_text(size: int) -> None:
    answer = 'It is "four".\n\u2028 ประภาคาร 😀 \\u0041 {"tool": 1}'
    for ascii_ in (True, False):
        reply = json.dumps({"answer": answer}, ensure_ascii=ascii_)
        pieces = [reply[at : at + size] for at in range(0, len(reply), size)]
        assert await heard(*pieces) == (answer, [], STOP)


async def test_an_answer_streams() -> None:
    source: Any = ScriptedProvider([*map(ModelText, ['{"ans', 'wer": "It', " is ", 'four."}']), STOP])
    assert [event async for event in LocalTools(source).stream(REQUEST)] == [
        ModelProgress(),
        ModelText("It"),
        ModelText(" is "),
        ModelText("four."),
        STOP,
    ]


async def test_a_tool_in_json_comes_out_as_a_call() -> None:
    for name in ("calculator", "nobody_knows"):
        reply = f' {{"tool": "{name}", "arguments": {{"expression": "2+2 é"}}}}'
        text, (call,), finish = await heard(reply[:9], reply[9:])
        assert (text, call.name, call.arguments) == ("", name, '{"expression": "2+2 é"}')
        assert call.id
        assert finish == ModelFinish(reason=FinishReason.TOOL_CALLS)


async def test_an_answer_cut_by_the_limit_is_cut_text() -> None:
    length = ModelFinish(reason=FinishReason.LENGTH)
    assert await heard('{"answer": "It is fo\\', finish=length) == ("It is fo", [], length)
    assert await heard('{"tool": "calc', finish=length) == ("", [], length)


@pytest.mark.parametrize("reply", ["It is four.", "[1]", '{"arguments": {}}', '{"tool": 3}', '{"answer": "It'])
async def test_what_is_not_the_json_that_was_asked_for_is_refused(reply: str) -> None:
    with pytest.raises(ModelOutputInvalid):
        await heard(reply)


async def test_calls_and_results_are_told_in_words() -> None:
    source: Any = ScriptedProvider([ModelText('{"answer": {"n": 4}}'), STOP])
    call = ToolCall(id="c1", name="calculator", arguments='{"expression": "2+2"}')
    messages = (
        *REQUEST.messages,
        PromptMessage("assistant", "", tool_calls=(call,)),
        PromptMessage("tool", "4", tool_call_id="c1"),
    )
    request = ModelRequest(
        model="m", messages=messages, max_output_tokens=40, tools=SPECS, response_schema={"type": "object"}
    )
    events = [event async for event in LocalTools(source).stream(request)]
    assert events == [ModelProgress(), ModelText('{"n": 4}'), STOP]
    said = [(message.role, message.content) for message in source.requests[0].messages[2:]]
    assert said == [
        ("assistant", '{"tool": "calculator", "arguments": {"expression": "2+2"}}'),
        ("user", "calculator answered:\n4"),
    ]


async def test_a_tool_is_offered_with_the_arguments_it_must_have() -> None:
    needed = {"type": "string", "maxLength": 9}
    schema = {"type": "object", "properties": {"query": needed, "top_k": {"type": "integer"}}, "required": ["query"]}
    spec = ToolSpec(name="search", description="Finds. Much more.", input_schema=schema, effect=Effect.READ_ONLY)
    source: Any = ScriptedProvider([ModelText('{"answer": "4"}'), STOP])
    assert [event async for event in LocalTools(source).stream(replace(REQUEST, tools=(spec,)))]
    (asked,) = source.requests
    fits = jsonschema.Draft202012Validator(asked.response_schema).is_valid
    assert fits({"tool": "search", "arguments": {"query": "a"}})
    assert not fits({"tool": "search", "arguments": {"query": "a", "top_k": 3}})
    assert "- search(query): Finds.\n" in asked.messages[0].content
    assert "Much more" not in asked.messages[0].content


def called(name: str) -> tuple[PromptMessage, ...]:
    call = ToolCall(id=name, name=name, arguments="{}")
    return (
        PromptMessage("assistant", "", tool_calls=(call,)),
        PromptMessage("tool", f"what {name} said", tool_call_id=name),
    )


async def test_a_tool_is_to_be_had_once() -> None:
    source: Any = ScriptedProvider([ModelText('{"answer": "4"}'), STOP])
    request = replace(REQUEST, messages=(*REQUEST.messages, *called("tree")))
    assert [event async for event in LocalTools(source).stream(request)]
    fits = jsonschema.Draft202012Validator(source.requests[0].response_schema).is_valid
    assert fits({"tool": "calculator", "arguments": {"expression": "2+2"}})
    assert not fits({"tool": "tree", "arguments": {}})


async def test_once_all_tools_have_answered_the_question_is_asked_with_what_they_said() -> None:
    source: Any = ScriptedProvider([ModelText("4"), STOP])
    history = (PromptMessage("user", "Hello."), PromptMessage("assistant", "Hello!"))
    messages = (REQUEST.messages[0], *history, REQUEST.messages[1], *called("tree"), *called("calculator"))
    request = replace(REQUEST, messages=messages, response_schema={"type": "object"})
    assert [event async for event in LocalTools(source).stream(request)] == [ModelText("4"), STOP]
    (asked,) = source.requests
    assert (asked.tools, asked.stop, asked.response_schema) == ((), REQUEST.stop, {"type": "object"})
    assert asked.messages[:-1] == (REQUEST.messages[0], *history)
    told = asked.messages[-1].content
    assert told.startswith("tree answered:\nwhat tree said\n\ncalculator answered:\nwhat calculator said\n\n")
    assert told.endswith("What is 2+2?")


@pytest.mark.steelthread
async def test_the_local_model_asks_for_a_tool_or_answers(local_model_url: str) -> None:
    async with OpenAIProvider.open(name="local", base_url=local_model_url, api_key="", connect_seconds=30) as source:
        events = [event async for event in LocalTools(source).stream(REQUEST)]
    match [event for event in events if not isinstance(event, ModelProgress)]:
        case [ModelToolCall(call), ModelFinish(reason=FinishReason.TOOL_CALLS, usage=usage)]:
            assert call.name in {"calculator", "tree"}
            assert isinstance(json.loads(call.arguments), dict)
        case [*texts, ModelFinish(usage=usage)]:
            assert all(isinstance(text, ModelText) for text in texts)
    assert usage
    assert usage.input_tokens > 0
