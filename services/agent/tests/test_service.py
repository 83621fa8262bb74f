"""The service as it runs: real Postgres, the real local model, beside a retrieval service played in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc import aio
from loremesh.agent.v1 import chat_pb2, chat_pb2_grpc, conversation_pb2, conversation_pb2_grpc
from loremesh.ingestion.v1 import document_pb2, document_pb2_grpc
from loremesh.retrieval.v1 import retrieval_pb2, retrieval_pb2_grpc
from loremesh_agent.main import wire
from loremesh_agent.settings import AgentSettings
from loremesh_agent.testing.dialects import OpenAI, Text
from loremesh_agent.testing.http import Wait, provider_double
from loremesh_kit.channel import reason_of
from loremesh_kit.errors import Code, ServiceError
from loremesh_kit.server import Servicer, Wired, serve
from loremesh_kit.settings import ServiceSettings
from loremesh_kit.testing import DatabaseUrls, caller, serving

pytestmark = pytest.mark.steelthread

IN_PROGRESS = conversation_pb2.MESSAGE_STATE_IN_PROGRESS
NO_STORE = "VECTOR_STORE_NOT_FOUND"
# A busy machine writes a token in a second.
SECONDS = 150

LIGHTHOUSE = (
    "The lighthouse of Genoa is 77 metres high. It was built in 1128 and rebuilt in 1543 after a war. "
    "Its lamp can be seen 50 kilometres away."
)


class NoSuchStore(ServiceError):
    code = Code.NOT_FOUND
    reason = "VECTOR_STORE_NOT_FOUND"


class Retrieval(retrieval_pb2_grpc.RetrievalServiceServicer):
    """Finds the lighthouse in every store but the one called `none`; near when asked about it."""

    def __init__(self) -> None:
        self.requests: list[retrieval_pb2.SearchRequest] = []

    async def Search(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.requests.append(request)
        if request.vector_store_id == "none":
            raise NoSuchStore("There is no such vector store.")
        if request.vector_store_id == "empty":
            return retrieval_pb2.SearchResponse()
        near = "lighthouse" in request.query
        result = retrieval_pb2.SearchResult(
            document_id="d1", chunk_id="c1", title="Lighthouses", content=LIGHTHOUSE, page=3, start_char=5,
            end_char=5 + len(LIGHTHOUSE), vector_store_id=request.vector_store_id, heading_path=["Italy"],
            score=1.0,
        )  # fmt: skip
        result.attributes.update({"lang": "en", "tags": ["a", 1.0]})
        return retrieval_pb2.SearchResponse(results=[result], nearest_similarity=0.7 if near else 0.1)

    async def ExplainSearch(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError


class Ingestion(document_pb2_grpc.DocumentServiceServicer):
    """Knows every document but those called `gone`."""

    async def ResolveVersions(self, request: Any, context: Any) -> Any:  # noqa: N802
        assert not request.vector_store_id
        return document_pb2.ResolveVersionsResponse(versions={id_: 1 for id_ in request.document_ids if id_ != "gone"})


@pytest.fixture
def retrieval() -> Retrieval:
    return Retrieval()


@asynccontextmanager
async def service(retrieval: Retrieval, urls: DatabaseUrls, **settings: Any) -> AsyncIterator[aio.Channel]:
    servicer = Servicer(
        add=retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server,
        servicer=retrieval,
        name="loremesh.retrieval.v1.RetrievalService",
    )
    documents = Servicer(
        add=document_pb2_grpc.add_DocumentServiceServicer_to_server,
        servicer=Ingestion(),
        name="loremesh.ingestion.v1.DocumentService",
    )
    alone = ServiceSettings(drain_seconds=0)
    async with serve(Wired(servicers=[servicer, documents]), service="retrieval", settings=alone) as running:
        targets = {"retrieval_target": running.target, "ingestion_target": running.target}
        own = AgentSettings(drain_seconds=0, grace_seconds=1, database_url=urls.plain, **targets, **settings)
        async with wire(own) as agent, serving(agent, service="agent", settings=own) as channel:
            with caller():
                yield channel


@pytest.fixture
async def channel(
    retrieval: Retrieval, database_urls: DatabaseUrls, nats_url: str, local_model_url: str
) -> AsyncIterator[aio.Channel]:
    local = {"provider": "local", "local_model_url": local_model_url}
    async with service(retrieval, database_urls, nats_url=nats_url, **local) as channel:
        yield channel


async def test_a_question_is_answered_from_the_documents_as_a_stream_and_kept(channel: aio.Channel) -> None:
    chat = chat_pb2_grpc.ChatServiceStub(channel)
    request = chat_pb2.ChatRequest(message="How high is the lighthouse of Genoa?", max_output_tokens=48)
    events = [event async for event in chat.StreamChat(request, timeout=SECONDS)]
    numbered = [event for event in events if event.seq]
    kinds = [event.WhichOneof("payload") for event in numbered]
    assert [event.seq for event in numbered] == list(range(1, len(numbered) + 1))
    assert kinds[:3] == ["run_started", "sources", "text_start"]
    assert kinds[-2] == "text_finish"
    assert kinds[-1] in ("completed", "incomplete")
    last = numbered[-1].completed if kinds[-1] == "completed" else numbered[-1].incomplete.partial
    assert "".join(event.text_delta.text for event in numbered) == last.response
    assert last.response
    assert last.usage.output_tokens > 0
    (source,) = last.sources
    assert (source.document_id, source.page, source.start_char, list(source.heading_path)) == ("d1", 3, 5, ["Italy"])
    conversations = conversation_pb2_grpc.ConversationServiceStub(channel)
    listed = await conversations.ListMessages(
        conversation_pb2.ListMessagesRequest(conversation_id=last.conversation_id)
    )
    asked, said = listed.messages
    assert (asked.content, asked.role) == (request.message, conversation_pb2.ROLE_USER)
    assert (said.content, said.id, said.run_id) == (last.response, last.message_id, last.run_id)
    assert said.sources == last.sources
    conversation = await conversations.GetConversation(
        conversation_pb2.GetConversationRequest(conversation_id=last.conversation_id)
    )
    assert (conversation.title, conversation.message_count) == (request.message, 2)


async def test_a_conversation_goes_on_where_it_was(channel: aio.Channel, retrieval: Retrieval) -> None:
    chat = chat_pb2_grpc.ChatServiceStub(channel)
    question = chat_pb2.ChatRequest(message="How high is the lighthouse of Genoa?", max_output_tokens=16)
    first = await chat.Chat(question, timeout=SECONDS)
    retrieval.requests.clear()
    again = chat_pb2.ChatRequest(
        message="When was it built?", conversation_id=first.conversation_id, max_output_tokens=16
    )
    second = await chat.Chat(again, timeout=SECONDS)
    assert second.conversation_id == first.conversation_id
    assert "lighthouse of Genoa" in retrieval.requests[0].query


async def test_what_the_documents_do_not_hold_is_said_without_asking_a_model(channel: aio.Channel) -> None:
    chat = chat_pb2_grpc.ChatServiceStub(channel)
    answer = await chat.Chat(chat_pb2.ChatRequest(message="Who won the race in 1998?"))
    assert (answer.grounded, answer.model, list(answer.sources)) == (False, "", [])
    assert answer.response == "The documents do not hold an answer to this question."


@pytest.mark.parametrize(
    ("request_", "reason", "code"),
    [
        (chat_pb2.ChatRequest(message=" \n"), "MESSAGE_EMPTY", grpc.StatusCode.INVALID_ARGUMENT),
        (chat_pb2.ChatRequest(message="\x00"), "MESSAGE_EMPTY", grpc.StatusCode.INVALID_ARGUMENT),
        (chat_pb2.ChatRequest(message="word " * 3000), "MESSAGE_TOO_LONG", grpc.StatusCode.INVALID_ARGUMENT),
        (chat_pb2.ChatRequest(message="a", agent_id="nobody"), "AGENT_NOT_FOUND", grpc.StatusCode.NOT_FOUND),
        (chat_pb2.ChatRequest(message="a", conversation_id="x"), "CONVERSATION_NOT_FOUND", grpc.StatusCode.NOT_FOUND),
        (chat_pb2.ChatRequest(message="a", vector_store_ids=["none"]), NO_STORE, grpc.StatusCode.NOT_FOUND),
        (chat_pb2.ChatRequest(message="a", top_k=0), "TOP_K_OUT_OF_RANGE", grpc.StatusCode.INVALID_ARGUMENT),
        (chat_pb2.ChatRequest(message="a", top_k=1_000_000), "TOP_K_OUT_OF_RANGE", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)  # fmt: skip
async def test_a_bad_request_has_its_own_reason_and_leaves_nothing_behind(
    channel: aio.Channel, request_: chat_pb2.ChatRequest, reason: str, code: grpc.StatusCode
) -> None:
    chat = chat_pb2_grpc.ChatServiceStub(channel)
    with pytest.raises(aio.AioRpcError) as refused:
        await chat.Chat(request_)
    assert (reason_of(refused.value), refused.value.code()) == (reason, code)
    with pytest.raises(aio.AioRpcError) as refused:
        _ = [event async for event in chat.StreamChat(request_)]
    assert (reason_of(refused.value), refused.value.code()) == (reason, code)
    conversations = conversation_pb2_grpc.ConversationServiceStub(channel)
    assert not (await conversations.ListConversations(conversation_pb2.ListConversationsRequest())).conversations


async def test_a_caller_who_leaves_ends_the_models_work_within_a_second(
    retrieval: Retrieval, database_urls: DatabaseUrls, nats_url: str
) -> None:
    async with (
        provider_double() as double,
        service(
            retrieval, database_urls, nats_url=nats_url, provider="openai", openai_base_url=f"{double.url}/v1"
        ) as channel,
    ):
        double.scripts = [[*OpenAI().begin(Text("The lighthouse")), Wait(60)]]
        call = chat_pb2_grpc.ChatServiceStub(channel).StreamChat(chat_pb2.ChatRequest(message="a lighthouse?"))
        async for event in call:
            if event.WhichOneof("payload") == "run_started":
                conversation_id = event.run_started.conversation_id
            if event.WhichOneof("payload") == "text_delta":
                break
        call.cancel()
        async with asyncio.timeout(1):
            await double.left.wait()
        conversations = conversation_pb2_grpc.ConversationServiceStub(channel)
        request = conversation_pb2.ListMessagesRequest(conversation_id=conversation_id)
        async with asyncio.timeout(5):
            while (said := (await conversations.ListMessages(request)).messages[1]).state == IN_PROGRESS:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert (said.content, said.state) == ("The lighthouse", conversation_pb2.MESSAGE_STATE_CANCELLED)
