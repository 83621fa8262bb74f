"""AgentService through gRPC, on real Postgres."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode, aio
from loremesh.agent.v1 import agent_pb2 as pb
from loremesh.agent.v1 import chat_pb2 as chat
from loremesh.agent.v1 import conversation_pb2 as conversations
from loremesh.agent.v1.agent_pb2_grpc import AgentServiceStub, add_AgentServiceServicer_to_server
from loremesh_agent import prompts
from loremesh_agent.adapters.memory import MemoryDocuments, MemoryToolbox
from loremesh_agent.adapters.postgres_agents import PostgresAgents
from loremesh_agent.adapters.prompt_file import PromptFile
from loremesh_agent.agent_servicer import AgentServicer
from loremesh_agent.domain.agents import ModelProfile, Window
from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.prices import KnownProvider, Price, PricedModel
from loremesh_agent.domain.tools import CallContext, Effect, ToolResult, ToolSpec
from loremesh_agent.engine.agents import AgentEngine
from loremesh_agent.engine.directory import Directory
from loremesh_agent.engine.vetting import Vetting
from loremesh_agent.errors import AgentNotFound, AgentRevisionNotFound, ModelUnknown, ProviderNotConfigured
from loremesh_kit.channel import reason_of
from loremesh_kit.postgres import open_database
from loremesh_kit.server import Servicer, Wired
from loremesh_kit.settings import ServiceSettings
from loremesh_kit.testing import DatabaseUrls, caller, serving

from .replicas import QUESTION, Mesh, Replica

pytestmark = pytest.mark.steelthread

PRICES = {"acme/large": 9, "acme/small": 1, "acme/tiny": 2}


class Catalogue:
    """Models of one provider with a key and of one without."""

    def profile(self, model: str) -> ModelProfile:
        provider, _, _ = (model or "acme/large").partition("/")
        if provider == "keyless":
            raise ProviderNotConfigured(provider, variable="KEYLESS_API_KEY")
        if provider != "acme":
            raise ModelUnknown(model)
        window = Window(context_tokens=2048, prompt_tokens=1024)
        wording = prompts.load("full")
        return ModelProfile(
            model=model or "acme/large", wording=wording, window=window, max_output_tokens=256, top_k=4, temperature=0.5
        )

    def cost(self, model: str, usage: Usage) -> int | None:
        return PRICES.get(model)

    def known(self) -> list[KnownProvider]:
        price = PricedModel(model="acme/large", price=Price(input_micros=3, cached_input_micros=1, output_micros=9))
        return [
            KnownProvider(name="acme", configured=True, variable="ACME_API_KEY", models=(price,)),
            KnownProvider(name="keyless", configured=False, variable="KEYLESS_API_KEY"),
        ]


@dataclass(frozen=True)
class Named:
    """A tool that is never called here."""

    name: str
    unavailable: str = ""

    @property
    def spec(self) -> ToolSpec:
        return ToolSpec(
            name=self.name,
            description="Does something.",
            input_schema={"type": "object"},
            effect=Effect.SIDE_EFFECTING,
            unavailable=self.unavailable,
        )

    async def call(self, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        raise NotImplementedError


@dataclass(frozen=True)
class Service:
    stub: AgentServiceStub
    directory: Directory
    stores: MemoryDocuments

    async def create(self, **fields: Any) -> pb.Agent:
        key = fields.pop("key", None)
        metadata = [("idempotency-key", key)] if key else []
        return await self.stub.CreateAgent(pb.CreateAgentRequest(agent=pb.Agent(**fields)), metadata=metadata)

    async def validate(self, **fields: Any) -> list[pb.AgentViolation]:
        response = await self.stub.ValidateAgent(pb.ValidateAgentRequest(agent=pb.Agent(**fields)))
        return list(response.violations)

    async def get(self, agent_id: str, revision: int = 0) -> pb.Agent:
        return await self.stub.GetAgent(pb.GetAgentRequest(agent_id=agent_id, revision=revision))

    async def update(self, agent_id: str, *mask: str, **fields: Any) -> pb.Agent:
        agent = pb.Agent(id=agent_id, **fields)
        return await self.stub.UpdateAgent(pb.UpdateAgentRequest(agent=agent, update_mask=FieldMask(paths=mask)))

    async def delete(self, agent_id: str) -> None:
        await self.stub.DeleteAgent(pb.DeleteAgentRequest(agent_id=agent_id))

    async def rollback(self, agent_id: str, revision: int, etag: str = "") -> pb.Agent:
        return await self.stub.RollbackAgent(pb.RollbackAgentRequest(agent_id=agent_id, revision=revision, etag=etag))

    async def revisions(self, agent_id: str) -> list[int]:
        response = await self.stub.ListAgentRevisions(pb.ListAgentRevisionsRequest(agent_id=agent_id))
        return [each.revision for each in response.revisions]

    async def ids(self) -> list[str]:
        return [each.id for each in (await self.stub.ListAgents(pb.ListAgentsRequest())).agents]


@pytest.fixture
async def service(database_urls: DatabaseUrls) -> AsyncIterator[Service]:
    async with open_database(ServiceSettings(database_url=database_urls.plain)) as database:
        store, models, stores = PostgresAgents(database=database), Catalogue(), MemoryDocuments()
        toolbox = MemoryToolbox(Named("search"), Named("web_search", unavailable="set SEARXNG_URL"))
        directory = Directory(store=store, models=models, prompts=PromptFile.load())
        vetting = Vetting(directory=directory, models=models, toolbox=toolbox, vector_stores=stores)
        engine = AgentEngine(store=store, vetting=vetting, toolbox=toolbox, providers=models)
        wired = Wired(
            servicers=[
                Servicer(
                    add=add_AgentServiceServicer_to_server,
                    servicer=AgentServicer(engine=engine),
                    name="loremesh.agent.v1.AgentService",
                )
            ],
            idempotent=frozenset({"/loremesh.agent.v1.AgentService/CreateAgent"}),
            database=database,
        )
        async with serving(wired, service="agent") as channel:
            with caller():
                yield Service(AgentServiceStub(channel), directory, stores)


@dataclass(frozen=True)
class Refusal:
    code: StatusCode
    reason: str
    metadata: dict[str, str]
    violations: dict[str, str]


async def refused(call: Awaitable[object]) -> Refusal:
    with pytest.raises(aio.AioRpcError) as raised:
        await call
    error = raised.value
    packed = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    info, request = ErrorInfo(), BadRequest()
    for each in Status.FromString(packed).details:  # type: ignore[arg-type]
        for message in (info, request):
            if each.Is(message.DESCRIPTOR):
                each.Unpack(message)
    violations = {each.field: each.reason for each in request.field_violations}
    return Refusal(error.code(), info.reason, dict(info.metadata), violations)


async def reason(call: Awaitable[object]) -> str:
    return (await refused(call)).reason


def struct(**values: Any) -> Struct:
    made = Struct()
    made.update(values)
    return made


EVERYTHING: dict[str, Any] = {
    "name": "Ada",
    "description": "Knows it all.",
    "system_prompt": "Be brief.",
    "model": "acme/large",
    "fallback_models": ["acme/small"],
    "temperature": 0,
    "top_p": 0.5,
    "max_output_tokens": 99,
    "top_k_documents": 0,
    "vector_store_ids": ["manuals", "default"],
    "tools": [
        pb.ToolUse(
            name="search",
            approval=pb.APPROVAL_POLICY_ALWAYS,
            approval_time=Duration(seconds=90),
            on_expiry=pb.EXPIRY_POLICY_FAIL,
        )
    ],
    "memory": pb.MemorySettings(recall=True, max_items=3, ttl=Duration(seconds=60), embeddings=False),
    "response_schema": struct(type="object", properties={"n": {"type": "integer", "minimum": 0}}),
    "limits": pb.Limits(
        max_steps=3,
        max_tokens=4096,
        max_cost_micros=5,
        max_tool_calls=6,
        max_time=Duration(seconds=7),
        max_rpm=8,
        on_limit=pb.LIMIT_POLICY_FALL_BACK,
        fallback_model="acme/small",
    ),
    "grounding": pb.GROUNDING_POLICY_DROP,
    "rewrite_questions": False,
    "busy_policy": pb.BUSY_POLICY_INTERRUPT,
}


async def test_everything_that_is_said_of_an_agent_is_kept(service: Service) -> None:
    made = await service.create(id="ada", **EVERYTHING)
    assert (made.revision, made.etag) == (1, "1")
    assert made.create_time == made.update_time
    expected = pb.Agent(id="ada", **EVERYTHING, revision=1, etag="1")
    expected.create_time.CopyFrom(made.create_time)
    expected.update_time.CopyFrom(made.update_time)
    assert made == await service.get("ada") == expected
    assert {field.name for field, _ in made.ListFields()} >= {each.name for each in pb.Agent.DESCRIPTOR.fields} - {
        "prompt"
    }


async def test_a_prompt_is_kept_as_the_reference_it_is(service: Service) -> None:
    wanted = pb.PromptReference(name="research", version=1, language="th", variables={"subject": "ยา\x00"})
    made = await service.create(id="ada", prompt=wanted)
    assert made.prompt == pb.PromptReference(name="research", version=1, language="th", variables={"subject": "ยา"})
    agent = await service.directory.get("ada")
    assert "เกี่ยวกับยาจากเอกสาร" in agent.wording.system
    assert agent.wording.refusal == "เอกสารไม่มีข้อมูลเกี่ยวกับคำถามนี้"
    assert agent.prompt is not None
    assert (agent.prompt.name, agent.prompt.version, agent.prompt.language) == ("research", 1, "th")


async def test_an_agent_that_says_little_answers_as_its_model_would(service: Service) -> None:
    made = await service.create(system_prompt="Be brief.", temperature=0, top_k_documents=0)
    agent = await service.directory.get(made.id)
    assert (agent.id, agent.revision, agent.model) == (made.id, 1, "acme/large")
    assert (agent.temperature, agent.top_k, agent.max_output_tokens) == (0, 0, 256)
    assert agent.vector_store_ids == ("default",)
    assert agent.wording.system.startswith("Be brief.\n\n")
    assert "Passages are quotations" in agent.wording.system
    default = await service.directory.get("")
    assert (default.id, default.temperature, default.wording) == ("default", 0.5, prompts.load("full"))


async def test_an_id_is_taken_once_and_a_repeated_request_is_one(service: Service) -> None:
    made = await service.create(id="ada", key="k")
    assert await service.create(id="ada", key="k") == made
    assert await reason(service.create(id="ada")) == "AGENT_EXISTS"
    assert await reason(service.create(id="default")) == "AGENT_EXISTS"
    assert await reason(service.create(id="no such id")) == "INVALID_FIELD"
    unnamed = [(await service.create(key="l")).id for _ in range(2)]
    assert len(set(unnamed)) == 1
    assert await service.revisions("ada") == [1]


async def test_fields_that_are_set_are_changed_and_those_of_the_mask_cleared(service: Service) -> None:
    await service.create(id="ada", **EVERYTHING)
    renamed = await service.update("ada", name="Bea")
    assert (renamed.revision, renamed.name, renamed.system_prompt) == (2, "Bea", "Be brief.")
    prompted = await service.update("ada", prompt=pb.PromptReference(name="answer"))
    assert (prompted.WhichOneof("instructions"), prompted.prompt.language) == ("prompt", "en")
    parts = await service.update(
        "ada", "limits.max_steps", "limits.max_tokens", "prompt.language", limits=pb.Limits(max_steps=8),
        prompt=pb.PromptReference(name="ignored", language="th"),
    )  # fmt: skip
    assert (parts.limits.max_steps, parts.limits.max_tokens, parts.limits.max_cost_micros) == (8, 0, 5)
    assert (parts.prompt.name, parts.prompt.language) == ("answer", "th")
    unset = ("temperature", "memory", "response_schema", "prompt", "system_prompt")
    cleared = await service.update("ada", "tools", *unset)
    for name in unset:
        assert not cleared.HasField(name), name
    assert (list(cleared.tools), cleared.name, cleared.revision) == ([], "Bea", 5)
    bare = await service.update("ada", "*", name="Cleo")
    assert (bare.name, bare.model, bare.revision) == ("Cleo", "", 6)
    assert (await service.get("ada", 1)).name == "Ada"


async def test_what_changes_nothing_makes_no_revision(service: Service) -> None:
    made = await service.create(id="ada", name="Ada")
    assert await service.update("ada", name="Ada") == made
    assert await service.update("ada") == made
    assert await service.rollback("ada", 1) == made
    assert await service.revisions("ada") == [1]


async def test_a_mask_of_what_cannot_be_changed_is_refused(service: Service) -> None:
    await service.create(id="ada")
    for path in (
        "id",
        "revision",
        "etag",
        "create_time",
        "nothing",
        "limits.nothing",
        "tools.name",
        "instructions",
        ".",
    ):
        refusal = await refused(service.update("ada", path))
        assert (refusal.reason, refusal.metadata) == ("FIELD_MASK_INVALID", {"path": path})
        assert refusal.violations == {"update_mask": "FIELD_MASK_INVALID"}


async def test_of_changes_at_once_with_an_etag_one_is_made(service: Service) -> None:
    made = await service.create(id="ada")

    async def change(number: int, etag: str) -> str:
        try:
            return (await service.update("ada", name=f"{number}", etag=etag)).name
        except aio.AioRpcError as error:
            return str(reason_of(error))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(change(number, made.etag)) for number in range(6)]
    told = [task.result() for task in tasks]
    assert told.count("ETAG_MISMATCH") == 5
    assert (await service.get("ada")).name in told
    assert await service.revisions("ada") == [2, 1]


async def test_changes_at_once_of_different_fields_are_all_made(service: Service) -> None:
    changes = [{"name": "n"}, {"description": "d"}, {"temperature": 1}, {"model": "acme/small"}]
    async with asyncio.TaskGroup() as group:
        for each in changes:
            group.create_task(service.update("default", **each))
    agent = await service.get("default")
    assert (agent.name, agent.description, agent.temperature, agent.model) == ("n", "d", 1, "acme/small")
    assert await service.revisions("default") == [5, 4, 3, 2, 1]


async def test_default_is_built_in_can_be_changed_and_comes_back(service: Service) -> None:
    built_in = await service.get("default")
    assert (built_in.id, built_in.revision, built_in.model) == ("default", 1, "")
    await service.delete("default")
    changed = await service.update("default", name="Ours", etag="1")
    assert (changed.revision, changed.name) == (2, "Ours")
    assert (await service.directory.get("")).revision == 2
    assert await service.get("default", 1) == built_in
    await service.delete("default")
    assert await service.get("default") == built_in
    assert await service.revisions("default") == [2, 1]
    assert (await service.rollback("default", 2)).revision == 3
    again = await service.rollback("default", 1)
    assert (again.revision, again.name) == (4, "")


async def test_a_deleted_agent_is_gone_but_for_runs_that_began_with_it(service: Service) -> None:
    await service.create(id="ada", name="old")
    await service.delete("ada")
    for call in (service.get("ada"), service.get("ada", 1), service.update("ada", name="x"), service.delete("ada")):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (StatusCode.NOT_FOUND, "AGENT_NOT_FOUND")
    assert await reason(service.rollback("ada", 1)) == "AGENT_NOT_FOUND"
    assert await reason(service.revisions("ada")) == "AGENT_NOT_FOUND"
    assert await service.ids() == ["default"]
    assert (await service.directory.get("ada", revision=1)).revision == 1
    with pytest.raises(AgentNotFound):
        await service.directory.get("ada")
    with pytest.raises(AgentRevisionNotFound):
        await service.directory.get("ada", revision=2)
    made = await service.create(id="ada", name="new")
    assert (made.revision, await service.revisions("ada")) == (2, [2, 1])


async def test_going_back_is_a_revision_of_its_own(service: Service) -> None:
    await service.create(id="ada", name="one")
    await service.update("ada", name="two")
    assert await reason(service.rollback("ada", 1, etag="1")) == "ETAG_MISMATCH"
    back = await service.rollback("ada", 1, etag="2")
    assert (back.revision, back.name) == (3, "one")
    assert await service.revisions("ada") == [3, 2, 1]
    refusal = await refused(service.rollback("ada", 9))
    assert (refusal.reason, refusal.metadata) == ("AGENT_REVISION_NOT_FOUND", {"agent_id": "ada", "revision": "9"})
    assert await reason(service.get("ada", 4)) == "AGENT_REVISION_NOT_FOUND"


async def test_going_back_to_what_is_no_longer_possible_is_refused(service: Service) -> None:
    await service.create(id="ada", vector_store_ids=["manuals"])
    await service.update("ada", "vector_store_ids")
    service.stores.missing_stores.add("manuals")
    assert await reason(service.rollback("ada", 1)) == "VECTOR_STORE_NOT_FOUND"


async def test_agents_and_revisions_come_in_pages(service: Service) -> None:
    for name in ("b", "Z", "a"):
        await service.create(id=name)
    ids: list[str] = []
    request = pb.ListAgentsRequest(page_size=1)
    while True:
        page = await service.stub.ListAgents(request)
        ids += [agent.id for agent in page.agents]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert ids == ["default", "Z", "a", "b"] == await service.ids()
    for number in range(3):
        await service.update("default", name=str(number))
    numbers: list[int] = []
    of = pb.ListAgentRevisionsRequest(agent_id="default", page_size=2)
    while True:
        revisions = await service.stub.ListAgentRevisions(of)
        numbers += [each.revision for each in revisions.revisions]
        if not revisions.next_page_token:
            break
        of.page_token = revisions.next_page_token
    assert numbers == [4, 3, 2, 1]
    of.agent_id = "a"
    assert await reason(service.stub.ListAgentRevisions(of)) == "PAGE_TOKEN_INVALID"
    assert await reason(service.stub.ListAgents(pb.ListAgentsRequest(page_token="x"))) == "PAGE_TOKEN_INVALID"


async def test_a_page_holds_no_more_than_an_answer_can(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loremesh_agent.agent_protos._PAGE_BYTES", 950)
    for number in range(3):
        await service.create(id=f"a{number}", description="x" * 900)
    first = await service.stub.ListAgents(pb.ListAgentsRequest())
    assert [agent.id for agent in first.agents] == ["default"]
    second = await service.stub.ListAgents(pb.ListAgentsRequest(page_token=first.next_page_token))
    assert [agent.id for agent in second.agents] == ["a0"]


async def test_tenants_never_see_each_others_agents(service: Service) -> None:
    await service.create(id="ada", name="acme's")
    await service.update("default", name="acme's")
    with caller(tenant="other"):
        assert await service.ids() == ["default"]
        assert (await service.get("default")).name == ""
        assert await reason(service.get("ada")) == "AGENT_NOT_FOUND"
        assert await reason(service.update("ada", name="x")) == "AGENT_NOT_FOUND"
        assert await reason(service.delete("ada")) == "AGENT_NOT_FOUND"
        with pytest.raises(AgentNotFound):
            await service.directory.get("ada")
        assert (await service.create(id="ada", name="other's")).revision == 1
        await service.delete("ada")
    assert (await service.get("ada")).name == "acme's"


DEEP: dict[str, Any] = {"type": "object"}
for _ in range(13):
    DEEP = {"type": "object", "properties": {"a": DEEP}}
WIDE = {"type": "object", "properties": {f"property{i}": {"type": "string"} for i in range(2000)}}


def schema(**values: Any) -> dict[str, Any]:
    return {"response_schema": struct(**values)}


FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({"model": "gpt-5"}, "MODEL_UNKNOWN", "model"),
    ({"model": "nobody/m"}, "MODEL_UNKNOWN", "model"),
    ({"model": "keyless/m"}, "PROVIDER_NOT_CONFIGURED", "model"),
    ({"fallback_models": ["acme/small", "keyless/m"]}, "PROVIDER_NOT_CONFIGURED", "fallback_models[1]"),
    ({"model": "acme/large", "fallback_models": ["acme/large"]}, "AGENT_INVALID", "fallback_models[0]"),
    ({"tools": [pb.ToolUse(name="search"), pb.ToolUse(name="dig")]}, "TOOL_NOT_FOUND", "tools[1].name"),
    ({"tools": [pb.ToolUse(name="search")] * 2}, "AGENT_INVALID", "tools[1].name"),
    ({"vector_store_ids": ["default", "none"]}, "VECTOR_STORE_NOT_FOUND", "vector_store_ids[1]"),
    ({"prompt": pb.PromptReference(name="nothing")}, "PROMPT_NOT_FOUND", "prompt"),
    ({"prompt": pb.PromptReference(name="answer", version=9)}, "PROMPT_NOT_FOUND", "prompt"),
    ({"prompt": pb.PromptReference(name="answer", language="tlh")}, "PROMPT_NOT_FOUND", "prompt"),
    ({"prompt": pb.PromptReference(name="research")}, "PROMPT_INVALID", "prompt.variables"),
    ({"prompt": pb.PromptReference(name="answer", variables={"a": "b"})}, "PROMPT_INVALID", "prompt.variables"),
    ({"system_prompt": "word " * 6000}, "AGENT_INVALID", "system_prompt"),
    ({"limits": pb.Limits(on_limit=pb.LIMIT_POLICY_FALL_BACK)}, "AGENT_INVALID", "limits.fallback_model"),
    ({"limits": pb.Limits(fallback_model="acme/small")}, "AGENT_INVALID", "limits.on_limit"),
    (
        {"model": "acme/small", "limits": pb.Limits(on_limit=3, fallback_model="acme/tiny")},
        "AGENT_INVALID",
        "limits.fallback_model",
    ),
    ({"limits": pb.Limits(max_tokens=10), "max_output_tokens": 11}, "AGENT_INVALID", "limits.max_tokens"),
    (schema(type="array"), "SCHEMA_INVALID", "response_schema"),
    (schema(type="objekt"), "SCHEMA_INVALID", "response_schema"),
    (schema(type="object", required="n"), "SCHEMA_INVALID", "response_schema"),
    (schema(type="object", maxProperties=float("inf")), "SCHEMA_INVALID", "response_schema"),
    ({"response_schema": struct(**WIDE)}, "SCHEMA_INVALID", "response_schema"),
    ({"response_schema": struct(**DEEP)}, "SCHEMA_INVALID", "response_schema"),
    (schema(**{"type": "object", "$ref": "http://10.0.0.1/x"}), "SCHEMA_INVALID", "response_schema"),
    (schema(**{"type": "object", "$ref": "#/$defs/none"}), "SCHEMA_INVALID", "response_schema"),
    (schema(), "SCHEMA_INVALID", "response_schema"),
]


async def test_each_fault_has_its_own_reason_and_names_its_field(service: Service) -> None:
    for fields, why, field in FAULTS:
        for refusal in (
            await refused(service.create(id="ada", **fields)),
            await refused(service.update("default", **fields)),
        ):
            assert (refusal.reason, refusal.violations) == (why, {f"agent.{field}": why}), fields
    assert await service.ids() == ["default"]
    assert await service.revisions("default") == [1]


async def test_faults_can_be_asked_for_without_keeping_anything(service: Service) -> None:
    for fields, why, field in FAULTS:
        (violation,) = await service.validate(**fields)
        assert (violation.field, violation.reason) == (f"agent.{field}", why)
        assert violation.description
    found = await service.validate(model="no/such", tools=[pb.ToolUse(name="nothing")])
    assert [each.field for each in found] == ["agent.model", "agent.tools[0].name"]
    assert await service.validate(id="default", system_prompt="You help.") == []
    assert await service.ids() == ["default"]


async def test_a_provider_without_a_key_says_which_variable_to_set(service: Service) -> None:
    refusal = await refused(service.create(model="keyless/m"))
    assert refusal.code is StatusCode.FAILED_PRECONDITION
    assert refusal.metadata == {"provider": "keyless", "variable": "KEYLESS_API_KEY"}


async def test_all_faults_are_told_at_once(service: Service) -> None:
    service.stores.missing_stores.add("nothing")
    refusal = await refused(
        service.create(
            model="nobody/m",
            prompt=pb.PromptReference(name="research"),
            tools=[pb.ToolUse(name="dig"), pb.ToolUse(name="dig")],
            vector_store_ids=["none", "nothing"],
            limits=pb.Limits(fallback_model="keyless/m"),
            **schema(type="array"),
        )
    )
    assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "AGENT_INVALID")
    assert refusal.violations == {
        "agent.model": "MODEL_UNKNOWN",
        "agent.limits.fallback_model": "PROVIDER_NOT_CONFIGURED",
        "agent.prompt.variables": "PROMPT_INVALID",
        "agent.vector_store_ids[0]": "VECTOR_STORE_NOT_FOUND",
        "agent.vector_store_ids[1]": "VECTOR_STORE_NOT_FOUND",
        "agent.tools[0].name": "TOOL_NOT_FOUND",
        "agent.tools[1].name": "AGENT_INVALID",
        "agent.response_schema": "SCHEMA_INVALID",
        "agent.limits.on_limit": "AGENT_INVALID",
    }


async def test_a_tool_that_is_not_available_now_may_be_given(service: Service) -> None:
    await service.create(id="ada", tools=[pb.ToolUse(name="web_search")])
    tools = (await service.stub.ListTools(pb.ListToolsRequest())).tools
    assert [(tool.name, tool.available, tool.unavailable_reason) for tool in tools] == [
        ("search", True, ""),
        ("web_search", False, "set SEARXNG_URL"),
    ]
    assert tools[0].effect == pb.TOOL_EFFECT_SIDE_EFFECTING


async def test_providers_say_what_would_configure_them(service: Service) -> None:
    providers = (await service.stub.ListProviders(pb.ListProvidersRequest())).providers
    assert [(each.name, each.configured, each.variable) for each in providers] == [
        ("acme", True, "ACME_API_KEY"),
        ("keyless", False, "KEYLESS_API_KEY"),
    ]
    assert providers[0].models[0].output_micros == 9


@pytest.fixture
async def replica(mesh: Mesh) -> AsyncIterator[Replica]:
    async with mesh.replica() as replica:
        yield replica


async def test_a_chat_is_answered_by_the_agent_it_names(replica: Replica, mesh: Mesh) -> None:
    agents = AgentServiceStub(replica.channel)
    ada = pb.Agent(id="ada", system_prompt="You are Ada.", max_output_tokens=77, top_p=0.5)
    await agents.CreateAgent(pb.CreateAgentRequest(agent=ada))
    await agents.UpdateAgent(pb.UpdateAgentRequest(agent=pb.Agent(id="ada", name="Ada")))
    answer = await replica.chat.Chat(chat.ChatRequest(message=QUESTION, agent_id="ada"))
    asked = mesh.provider.requests[-1]
    assert asked.messages[0].content.startswith("You are Ada.")
    assert asked.max_output_tokens == 77
    question, said = await replica.messages(answer.conversation_id)
    assert (question.agent_revision, said.agent_revision) == (0, 2)
    assert said.model == answer.model != ""


async def test_a_conversation_stays_with_its_agent(replica: Replica, mesh: Mesh) -> None:
    agents = AgentServiceStub(replica.channel)
    for name in ("ada", "bea"):
        agent = pb.Agent(id=name, system_prompt=f"You are {name}.")
        await agents.CreateAgent(pb.CreateAgentRequest(agent=agent))
    wanted = conversations.Conversation(agent_id="ada")
    made = await replica.conversations.CreateConversation(conversations.CreateConversationRequest(conversation=wanted))
    assert made.agent_id == "ada"
    for agent_id in ("", "ada"):
        request = chat.ChatRequest(message=QUESTION, conversation_id=made.id, agent_id=agent_id)
        await replica.chat.Chat(request)
        assert mesh.provider.requests[-1].messages[0].content.startswith("You are ada.")
    for agent_id in ("bea", "default"):
        request = chat.ChatRequest(message=QUESTION, conversation_id=made.id, agent_id=agent_id)
        for call in (replica.chat.Chat(request), replica.jobs.CreateChatJob(request)):
            refusal = await refused(call)
            assert (refusal.reason, refusal.metadata) == ("AGENT_MISMATCH", {"agent_id": "ada"})
    await agents.DeleteAgent(pb.DeleteAgentRequest(agent_id="ada"))
    request = chat.ChatRequest(message=QUESTION, conversation_id=made.id)
    assert await reason(replica.chat.Chat(request)) == "AGENT_NOT_FOUND"
    assert len(await replica.messages(made.id)) == 4
    request.conversation_id = "none"
    assert await reason(replica.chat.Chat(request)) == "CONVERSATION_NOT_FOUND"
    with caller(tenant="other"):
        request.conversation_id = made.id
        assert await reason(replica.chat.Chat(request)) == "CONVERSATION_NOT_FOUND"
