"""MemoryService through gRPC, on real Postgres and NATS, with its jobs."""

import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode, aio
from loremesh.agent.v1 import conversation_pb2, conversation_pb2_grpc
from loremesh.agent.v1 import memory_pb2 as pb
from loremesh.agent.v1 import memory_pb2_grpc as rpc
from loremesh_agent.adapters.memory import MemoryDocuments, ScriptedProvider
from loremesh_agent.adapters.postgres_memory_receipts import PostgresMemoryWork
from loremesh_agent.domain.passages import Found
from loremesh_agent.settings import AgentSettings
from loremesh_agent.wiring import assemble
from loremesh_kit.channel import reason_of
from loremesh_kit.errors import DependencyUnavailable
from loremesh_kit.events import connect
from loremesh_kit.postgres import Database, open_database
from loremesh_kit.testing import DatabaseUrls, caller, serving

from .memory_doubles import MeaningDouble
from .replicas import outside_of, until, words

pytestmark = pytest.mark.steelthread

ADA = pb.MemoryScope(user_id="ada")


@dataclass
class Service:
    stub: rpc.MemoryServiceStub
    conversations: conversation_pb2_grpc.ConversationServiceStub
    database: Database
    meaning: MeaningDouble = field(default_factory=MeaningDouble)

    async def create(self, content: str, scope: pb.MemoryScope = ADA, key: str = "", **fields: Any) -> pb.Memory:
        memory = pb.Memory(content=content, scope=scope, **fields)
        metadata = [("idempotency-key", key)] if key else []
        made = await self.stub.CreateMemory(pb.CreateMemoryRequest(memory=memory), metadata=metadata)
        return made.memory

    async def find(self, query: str, scope: pb.MemoryScope = ADA, **fields: Any) -> list[str]:
        request = pb.SearchMemoriesRequest(query=query, scope=scope, **fields)
        return [found.memory.content for found in (await self.stub.SearchMemories(request)).results]

    async def receipt(self, receipt_id: str) -> pb.MemoryReceipt:
        return await self.stub.GetMemoryReceipt(pb.GetMemoryReceiptRequest(receipt_id=receipt_id))

    async def is_done(self, receipt_id: str) -> bool:
        return (await self.receipt(receipt_id)).done

    async def finds(self, query: str, wanted: list[str]) -> bool:
        return await self.find(query) == wanted


@pytest.fixture
async def service(
    database_urls: DatabaseUrls, nats_url: str, found: Found, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Service]:
    monkeypatch.setattr("loremesh_kit.worker._FIRST_RETRY_SECONDS", 0.05)
    monkeypatch.setattr("loremesh_kit.sweeper._SECONDS", 0.1)
    settings = AgentSettings(
        drain_seconds=0, grace_seconds=0.1, database_url=database_urls.plain, nats_url=nats_url,
        retrieval_target="none", ingestion_target="none", provider="local", local_model_url="none",
    )  # fmt: skip
    meaning = MeaningDouble()
    async with open_database(settings) as database, connect(nats_url, service="agent") as bus:
        outside = outside_of(
            settings,
            database=database,
            bus=bus,
            found=found,
            provider=ScriptedProvider(words()),
            documents=MemoryDocuments(),
            embedder=meaning,
        )
        async with serving(assemble(outside, settings=settings), service="agent", settings=settings) as channel:
            with caller():
                conversations = conversation_pb2_grpc.ConversationServiceStub(channel)
                yield Service(rpc.MemoryServiceStub(channel), conversations, database, meaning)


async def refusal(call: "aio.UnaryUnaryCall[Any, Any]") -> str | None:
    with pytest.raises(aio.AioRpcError) as refused:
        await call
    return reason_of(refused.value)


async def test_a_fact_is_created_found_explained_and_forgotten(service: Service) -> None:
    stub = service.stub
    source = pb.MemorySource(run_id="r", message_id="m", seq=4)
    old = await service.create("She lives in Genoa.", subject="Ada", attribute="home", source=source)
    assert (old.kind, old.confidence, old.source) == (pb.MEMORY_KIND_LONG_TERM, 1.0, source)
    assert old.scope == ADA
    assert not old.HasField("valid_until")
    new = await service.create("She lives in Pisa.", subject="Ada", attribute="home")
    assert not new.HasField("source")
    known = await stub.CreateMemory(pb.CreateMemoryRequest(memory=pb.Memory(
        content="she lives in pisa", scope=ADA, subject="ada", attribute="home"
    )))  # fmt: skip
    assert (known.memory, known.created) == (new, False)
    assert await stub.GetMemory(pb.GetMemoryRequest(memory_id=new.id)) == new
    told = await stub.ExplainMemory(pb.ExplainMemoryRequest(memory_id=old.id))
    assert (told.superseded_by, told.standing, told.memory.superseded_by) == (new, "superseded", new.id)
    told = await stub.ExplainMemory(pb.ExplainMemoryRequest(memory_id=new.id))
    assert ([each.id for each in told.superseded], told.standing) == ([old.id], "valid")
    assert not told.HasField("superseded_by")
    receipt = await stub.ForgetMemories(pb.ForgetMemoriesRequest(scope=ADA))
    assert (receipt.memories, receipt.done) == (2, False)
    assert await service.find("Ada's home") == []
    await until(lambda: service.is_done(receipt.id))
    receipt = await service.receipt(receipt.id)
    assert receipt.stores["postgres"] == receipt.memories
    assert receipt.HasField("finish_time")
    for table in ("memories", "memory_vectors"):
        assert await service.database.fetch(f"SELECT * FROM {table}") == []  # noqa: S608


async def test_a_vector_is_made_in_the_background_whenever_embedding_answers_again(service: Service) -> None:
    service.meaning.failure = DependencyUnavailable("embedding")
    await service.create("Ada owns a feline.")
    assert await service.find("feline") == ["Ada owns a feline."]
    assert await service.find("cat") == []
    service.meaning.failure = None
    await until(lambda: service.finds("cat", ["Ada owns a feline."]))
    assert await service.find("cat", words_only=True) == []


async def test_a_forgetting_whose_worker_died_in_between_is_finished(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths = itertools.count(1)
    remove = PostgresMemoryWork.remove_memories

    async def dying(self: PostgresMemoryWork, job: Any) -> None:
        if next(deaths) < 3:
            raise DependencyUnavailable("postgres")
        await remove(self, job)

    monkeypatch.setattr(PostgresMemoryWork, "remove_memories", dying)
    await service.create("Ada owns a feline.")
    await until(lambda: service.finds("cat", ["Ada owns a feline."]))
    receipt = await service.stub.ForgetMemories(pb.ForgetMemoriesRequest(scope=ADA))
    await until(lambda: service.is_done(receipt.id))
    assert next(deaths) == 4
    assert dict((await service.receipt(receipt.id)).stores) == {"index": 1, "postgres": 1}


async def test_what_is_of_a_conversation_goes_with_it(service: Service) -> None:
    made = await service.conversations.CreateConversation(conversation_pb2.CreateConversationRequest())
    scope = pb.MemoryScope(user_id="ada", conversation_id=made.id)
    kept = await service.create("She is in a hurry.", scope, kind=pb.MEMORY_KIND_SHORT_TERM)
    assert await service.find("hurry", scope) == ["She is in a hurry."]
    request = conversation_pb2.DeleteConversationRequest(conversation_id=made.id)
    await service.conversations.DeleteConversation(request)
    assert await refusal(service.stub.GetMemory(pb.GetMemoryRequest(memory_id=kept.id))) == "MEMORY_NOT_FOUND"


async def test_the_message_it_was_taken_from_is_shown(service: Service) -> None:
    made = await service.conversations.CreateConversation(conversation_pb2.CreateConversationRequest())
    await service.database.fetch(
        "INSERT INTO messages (id, conversation_id, position, role, content, state)"
        " VALUES ('m', %s, 1, 'USER', 'I like tea.', 'COMPLETED') ON CONFLICT DO NOTHING",
        [made.id],
    )
    kept = await service.create("Ada likes tea.", source=pb.MemorySource(message_id="m"))
    told = await service.stub.ExplainMemory(pb.ExplainMemoryRequest(memory_id=kept.id))
    assert told.source_text == "I like tea."


async def test_what_cannot_be_remembered_is_refused_with_its_reason(service: Service) -> None:
    def create(ttl: Duration | None = None, **fields: Any) -> "aio.UnaryUnaryCall[Any, Any]":
        return service.stub.CreateMemory(pb.CreateMemoryRequest(memory=pb.Memory(**fields), ttl=ttl))

    for wrong in (
        create(content=""),
        create(content=" \n"),
        create(content="\x00"),
        create(content="x", scope=pb.MemoryScope(user_id="bob")),
        create(content="x", kind=pb.MEMORY_KIND_SHORT_TERM),
        create(content="x", scope=pb.MemoryScope(conversation_id="c")),
        create(content="x", valid_until=Timestamp(seconds=1)),
        create(content="x", valid_from=Timestamp(seconds=-(2**62))),
        create(content="x", ttl=Duration(seconds=315_576_000_000)),
    ):
        assert await refusal(wrong) == "MEMORY_INVALID"
    for wrong in (create(content="x" * 4001), create(content="x", confidence=2), create(content="x", ttl=Duration())):
        assert await refusal(wrong) == "INVALID_FIELD"
    lost = pb.MemoryScope(conversation_id="nowhere")
    assert await refusal(create(content="x", kind=pb.MEMORY_KIND_SHORT_TERM, scope=lost)) == "CONVERSATION_NOT_FOUND"
    assert await refusal(service.stub.ForgetMemories(pb.ForgetMemoriesRequest())) == "SCOPE_REQUIRED"
    assert await refusal(service.stub.ListMemories(pb.ListMemoriesRequest(page_token="x"))) == "PAGE_TOKEN_INVALID"


async def test_pages_follow_one_another(service: Service) -> None:
    for number in range(5):
        await service.create(f"Fact {number}.")
    found: list[str] = []
    request = pb.ListMemoriesRequest(page_size=2, scope=ADA)
    while True:
        page = await service.stub.ListMemories(request)
        found += [each.content for each in page.memories]
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    assert found == [f"Fact {number}." for number in reversed(range(5))]
    other = pb.ListMemoriesRequest(page_size=2, page_token=page.next_page_token or "x", show_past=True)
    assert await refusal(service.stub.ListMemories(other)) == "PAGE_TOKEN_INVALID"


async def test_a_repeated_request_is_the_same_request(service: Service) -> None:
    first = await service.create("She lives in Genoa.", key="k", subject="Ada", attribute="home")
    await service.create("She lives in Pisa.", subject="Ada", attribute="home")
    assert await service.create("She lives in Genoa.", key="k", subject="Ada", attribute="home") == first
    assert await service.find("Ada's home") == ["She lives in Pisa."]
    forget = pb.ForgetMemoriesRequest(scope=ADA)
    once, again = [await service.stub.ForgetMemories(forget, metadata=[("idempotency-key", "f")]) for _ in range(2)]
    assert once == again


@dataclass(frozen=True)
class Owner:
    tenant: str
    user: str
    agent: str

    def scope(self) -> pb.MemoryScope:
        return pb.MemoryScope(user_id=self.user, agent_id=self.agent)

    @property
    def secret(self) -> str:
        return f"The secret of {self.tenant} {self.user} {self.agent}."


OWNERS = [Owner(*each) for each in itertools.product(("acme", "other"), ("ada", "bob"), ("scout", "chef"))]


async def test_nobody_sees_or_touches_what_is_anothers_whatever_ids_they_know(service: Service) -> None:
    stub, made, receipts = service.stub, dict[Owner, str](), dict[Owner, str]()
    for owner in OWNERS:
        with caller(tenant=owner.tenant, principal=owner.user):
            made[owner] = (await service.create(owner.secret, owner.scope())).id
            gone = await service.create(f"Forgotten by {owner.user}.", owner.scope())
            receipts[owner] = (await stub.ForgetMemories(pb.ForgetMemoriesRequest(memory_id=gone.id))).id
    await until(lambda: _are_embedded(service))
    for owner, other in itertools.product(OWNERS, OWNERS):
        is_theirs = (owner.tenant, owner.user) == (other.tenant, other.user)
        with caller(tenant=owner.tenant, principal=owner.user):
            for call, reason in (
                (lambda: stub.GetMemory(pb.GetMemoryRequest(memory_id=made[other])), "MEMORY_NOT_FOUND"),  # noqa: B023
                (lambda: stub.ExplainMemory(pb.ExplainMemoryRequest(memory_id=made[other])), "MEMORY_NOT_FOUND"),  # noqa: B023
                (
                    lambda: stub.GetMemoryReceipt(pb.GetMemoryReceiptRequest(receipt_id=receipts[other])),  # noqa: B023
                    "MEMORY_RECEIPT_NOT_FOUND",
                ),
            ):
                await _check(call, None if is_theirs else reason)
            if not is_theirs:
                forgotten = await stub.ForgetMemories(pb.ForgetMemoriesRequest(memory_id=made[other]))
                assert (forgotten.memories, forgotten.done) == (0, True)
            for words_only in (True, False):
                found = await service.find(f"secret of {other.user}", other.scope(), words_only=words_only, top_k=50)
                # The scope names the other's user: what comes is of the caller's tenant, and the caller is that user.
                is_seen = owner.user == other.user
                assert found == ([Owner(owner.tenant, other.user, other.agent).secret] if is_seen else [])
            listed = await stub.ListMemories(pb.ListMemoriesRequest(show_past=True))
            theirs = [each for each in OWNERS if (each.tenant, each.user) == (owner.tenant, owner.user)]
            assert {each.content for each in listed.memories} == {each.secret for each in theirs}
            exactly = await stub.ListMemories(pb.ListMemoriesRequest(scope=other.scope()))
            assert len(exactly.memories) == (owner.user == other.user)
    for owner in OWNERS:
        with caller(tenant=owner.tenant, principal=owner.user):
            others = [each.scope() for each in OWNERS if each.user != owner.user]
            for scope in others:
                assert (await stub.ForgetMemories(pb.ForgetMemoriesRequest(scope=scope))).memories == 0
            assert (await stub.ForgetMemories(pb.ForgetMemoriesRequest(scope=owner.scope()))).memories == 1


async def _check(call: Callable[[], Any], reason: str | None) -> None:
    if reason is None:
        await call()
        return
    with pytest.raises(aio.AioRpcError) as refused:
        await call()
    assert (refused.value.code(), reason_of(refused.value)) == (StatusCode.NOT_FOUND, reason)


async def _are_embedded(service: Service) -> bool:
    for tenant in ("acme", "other"):
        with caller(tenant=tenant):
            if await service.database.fetch("SELECT id FROM memories WHERE vector_pending"):
                return False
    return True
