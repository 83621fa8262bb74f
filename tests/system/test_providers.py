"""Agents on each provider, over REST and gRPC, on its real wire format: answers, streams, tools, what goes wrong."""

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import httpx
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from loremesh.agent.v1 import agent_pb2, chat_pb2
from loremesh.agent.v1.agent_pb2_grpc import AgentServiceStub
from loremesh.agent.v1.chat_pb2_grpc import ChatServiceStub
from loremesh_agent.testing.dialects import (
    TOOL_CALLS,
    Anthropic,
    Call,
    Cohere,
    Counts,
    Dialect,
    OpenAI,
    Text,
)
from loremesh_agent.testing.http import Cut, ProviderDouble, Reply, Step

pytestmark = pytest.mark.system

COUNTS = Counts(read=21, written=9, cached=4, reasoned=0)
SAID = ("The Lanterna ", "is 77 metres ", "high [1].")
BUSY = Reply(429, headers=(("retry-after", "0.05"),))
DIALECTS: dict[str, type[Dialect]] = {"openai": OpenAI, "anthropic": Anthropic, "cohere": Cohere}
ENDS = ("completed", "incomplete", "failed", "cancelled")
SECONDS = 30


class Way(Protocol):
    """To a mesh, in the words of REST."""

    def create(self, agent: dict[str, Any]) -> None:
        """An agent."""
        ...

    def chat(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer, or `reason` alone."""
        ...

    def stream(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Its events."""
        ...


class Rest:
    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def create(self, agent: dict[str, Any]) -> None:
        self._http.post("/api/v1/agents", json=agent).raise_for_status()

    def chat(self, request: dict[str, Any]) -> dict[str, Any]:
        response = self._http.post("/api/v1/chat", json=request, timeout=SECONDS)
        found: dict[str, Any] = response.json()
        return found if response.is_success else {"reason": found["details"][0]["reason"]}

    def stream(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        with self._http.stream("POST", "/api/v1/chat/stream", json=request, timeout=SECONDS) as response:
            lines = [line for line in response.iter_lines() if line.startswith("data: ")]
        return [json.loads(line.removeprefix("data: ")) for line in lines]


class Grpc:
    def __init__(self, channel: grpc.Channel) -> None:
        self._agents: Any = AgentServiceStub(channel)
        self._chats: Any = ChatServiceStub(channel)

    def create(self, agent: dict[str, Any]) -> None:
        request = ParseDict({"agent": agent}, agent_pb2.CreateAgentRequest())
        self._agents.CreateAgent(request, timeout=SECONDS)

    def chat(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return _plain(self._chats.Chat(ParseDict(request, chat_pb2.ChatRequest()), timeout=SECONDS))
        except grpc.RpcError as error:
            call: Any = error
            info = error_details_pb2.ErrorInfo()
            assert rpc_status.from_call(call).details[0].Unpack(info)
            return {"reason": info.reason}

    def stream(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        call = self._chats.StreamChat(ParseDict(request, chat_pb2.ChatRequest()), timeout=SECONDS)
        return [_plain(event) for event in call]


def _plain(message: Any) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


@dataclass(frozen=True)
class Played:
    """A provider, its double, and an agent of it that answers from the library."""

    model: str
    dialect: Dialect
    double: ProviderDouble
    way: Way
    store: str

    def play(self, *scripts: Sequence[Step]) -> None:
        self.double.requests.clear()
        self.double.scripts = [*scripts, [Reply(500)]]

    def agent(self, **fields: Any) -> str:
        """Id of a new one."""
        id_ = f"a-{uuid.uuid4().hex}"
        self.way.create({"id": id_, "model": self.model, "vector_store_ids": [self.store], **fields})
        return id_

    def question(self, **fields: Any) -> dict[str, Any]:
        return {"agent_id": self.agent(**fields), "message": "How high is the lighthouse of Genoa?"}

    def whole(self) -> list[bytes]:
        return [*self.dialect.begin(*map(Text, SAID)), *self.dialect.end(counts=COUNTS)]


@pytest.fixture(params=DIALECTS)
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[Rest, Grpc])
def played(
    request: pytest.FixtureRequest,
    provider: str,
    doubles: dict[str, ProviderDouble],
    http: httpx.Client,
    channel: grpc.Channel,
    library: Any,
) -> Iterator[Played]:
    way = Rest(http) if request.param is Rest else Grpc(channel)
    double = doubles[provider]
    yield Played(f"{provider}/m", DIALECTS[provider](), double, way, library.store)
    double.scripts = [[Reply(500)]]


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [name for event in events for name in event if name in (*ENDS, "tool_call", "tool_result", "text_delta")]


def test_an_answer_says_who_made_it_and_what_it_took(played: Played) -> None:
    played.play(played.whole())
    said = played.way.chat(played.question())
    assert (said["response"], said["model"], said["finish_reason"]) == (
        "".join(SAID), played.model, "FINISH_REASON_STOP",
    )  # fmt: skip
    usage = {name: int(said["usage"][name]) for name in ("input_tokens", "output_tokens", "cached_input_tokens")}
    assert usage == {"input_tokens": 21, "output_tokens": 9, "cached_input_tokens": 4}
    assert [source["title"] for source in said["sources"]] == ["Lighthouses"]
    (asked,) = played.double.requests
    assert asked["model"] == "m"
    assert "77 metres" in json.dumps(asked)


def test_a_stream_is_whole(played: Played) -> None:
    played.play(played.whole())
    events = [event for event in played.way.stream(played.question()) if "heartbeat" not in event]
    assert [int(event["seq"]) for event in events] == list(range(1, len(events) + 1))
    assert "".join(event["text_delta"]["text"] for event in events if "text_delta" in event) == "".join(SAID)
    assert events[-1]["completed"]["response"] == "".join(SAID)
    assert [kind for kind in kinds(events) if kind in ENDS] == ["completed"]


def test_a_tool_is_called_and_the_answer_made_with_what_it_said(played: Played) -> None:
    call = Call("c1", "calculator", ('{"expression": ', '"77 * 2"}'))
    asks = [*played.dialect.begin(call), *played.dialect.end(TOOL_CALLS, COUNTS)]
    played.play(asks, [*played.dialect.begin(Text("154 metres.")), *played.dialect.end(counts=COUNTS)])
    events = played.way.stream(played.question(tools=[{"name": "calculator"}]))
    told = [event for event in events if "tool_call" in event or "tool_result" in event]
    assert told[0]["tool_call"]["arguments"] == {"expression": "77 * 2"}
    assert (told[1]["tool_result"]["outcome"], told[1]["tool_result"]["content"]) == ("TOOL_OUTCOME_OK", "154")
    last = events[-1]["completed"]
    assert last["response"].startswith("154 metres.")
    assert (int(last["usage"]["input_tokens"]), last["usage"]["steps"], last["usage"]["tool_calls"]) == (42, 2, 1)
    assert "154" in json.dumps(played.double.requests[1])
    assert len(played.double.requests) == 2


def test_a_provider_that_is_busy_is_asked_again(played: Played) -> None:
    played.play([BUSY], played.whole())
    assert played.way.chat(played.question())["response"] == "".join(SAID)
    assert len(played.double.requests) == 2


def test_a_stream_that_the_provider_cuts_has_failed(played: Played) -> None:
    played.play([*played.dialect.begin(*map(Text, SAID)), Cut()])
    events = played.way.stream(played.question())
    assert "text_delta" in kinds(events)
    assert [kind for kind in kinds(events) if kind in ENDS] == ["failed"]
    assert events[-1]["failed"]["reason"] == "PROVIDER_STREAM_CUT"
    assert "canary" not in json.dumps(events)


def test_an_answer_that_the_provider_cuts_is_refused(played: Played) -> None:
    played.play([*played.dialect.begin(*map(Text, SAID)), Cut()])
    assert played.way.chat(played.question()) == {"reason": "PROVIDER_STREAM_CUT"}
