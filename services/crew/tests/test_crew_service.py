"""CrewService through gRPC, on real Postgres."""

from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode, aio
from loremesh.agent.v1 import agent_pb2
from loremesh.crew.v1 import crew_pb2 as pb
from loremesh.crew.v1 import run_pb2
from loremesh.crew.v1.crew_pb2_grpc import CrewServiceStub, add_CrewServiceServicer_to_server
from loremesh_crew.adapters.memory import MemoryAgents
from loremesh_crew.adapters.postgres_definitions import PostgresDefinitions
from loremesh_crew.crew_servicer import CrewServicer
from loremesh_crew.domain.definitions import Crew, CrewAgent, CrewTask, Flow, RunLimits
from loremesh_crew.domain.machine import RunKind
from loremesh_crew.engine.crews import CrewEngine
from loremesh_crew.engine.library import DefinitionLibrary
from loremesh_crew.engine.vetting import Vetting
from loremesh_crew.ports import NewRun
from loremesh_kit.channel import reason_of
from loremesh_kit.errors import DependencyUnavailable
from loremesh_kit.postgres import open_database
from loremesh_kit.server import Servicer, Wired
from loremesh_kit.settings import ServiceSettings
from loremesh_kit.testing import DatabaseUrls, caller, serving

pytestmark = pytest.mark.steelthread

BUILT_IN = {
    name: Crew(
        id=name,
        agents=(CrewAgent(name="ann"),),
        tasks=(CrewTask(name="write", description="Write about {topic}."),),
        built_in=True,
    )
    for name in ("research", "code-review")
}
ANN = pb.CrewAgent(name="ann", role="Writer of {topic}")
WRITE = pb.CrewTask(name="write", description="Write about {topic}.", agent="ann")


class Kickoffs:
    """Runs that nobody does."""

    def __init__(self) -> None:
        self.started: list[NewRun] = []

    async def start(self, runs: Sequence[NewRun]) -> Sequence[str]:
        self.started.extend(runs)
        return [f"run-{len(self.started) - len(runs) + i + 1}" for i in range(len(runs))]


class Agents(MemoryAgents):
    """Agents of a service that may be down."""

    down = False

    async def faults(self, *args: Any, **kwargs: Any) -> Any:
        if self.down:
            raise DependencyUnavailable("agent")
        return await super().faults(*args, **kwargs)


@dataclass(frozen=True)
class Service:
    stub: CrewServiceStub
    agents: Agents
    kickoffs: Kickoffs = field(default_factory=Kickoffs)

    async def create(self, **fields: Any) -> pb.Crew:
        given = {"id": "c", "agents": [ANN], "tasks": [WRITE], **fields}
        return await self.stub.CreateCrew(pb.CreateCrewRequest(crew=pb.Crew(**given)))

    async def get(self, crew_id: str, revision: int = 0) -> pb.Crew:
        return await self.stub.GetCrew(pb.GetCrewRequest(crew_id=crew_id, revision=revision))

    async def update(self, crew_id: str, *mask: str, **fields: Any) -> pb.Crew:
        crew = pb.Crew(id=crew_id, **fields)
        return await self.stub.UpdateCrew(pb.UpdateCrewRequest(crew=crew, update_mask=FieldMask(paths=mask)))

    async def delete(self, crew_id: str) -> None:
        await self.stub.DeleteCrew(pb.DeleteCrewRequest(crew_id=crew_id))

    async def rollback(self, crew_id: str, revision: int, etag: str = "") -> pb.Crew:
        return await self.stub.RollbackCrew(pb.RollbackCrewRequest(crew_id=crew_id, revision=revision, etag=etag))

    async def revisions(self, crew_id: str) -> list[int]:
        response = await self.stub.ListCrewRevisions(pb.ListCrewRevisionsRequest(crew_id=crew_id))
        return [each.revision for each in response.revisions]

    async def ids(self, page_size: int = 0) -> list[list[str]]:
        pages, request = [], pb.ListCrewsRequest(page_size=page_size)
        while True:
            response = await self.stub.ListCrews(request)
            pages.append([each.id for each in response.crews])
            if not response.next_page_token:
                return pages
            request.page_token = response.next_page_token


@pytest.fixture
async def service(database_urls: DatabaseUrls) -> AsyncIterator[Service]:
    async with open_database(ServiceSettings(database_url=database_urls.plain)) as database:
        agents = Agents(tools=["search"], models=["local/small"], agents={"kept": 3})
        kickoffs = Kickoffs()
        crews = PostgresDefinitions(database=database, kind=RunKind.CREW, type_=Crew)
        flows = PostgresDefinitions(database=database, kind=RunKind.FLOW, type_=Flow)
        engine = CrewEngine(
            store=crews,
            built_in=BUILT_IN,
            library=DefinitionLibrary(crews=crews, flows=flows, built_in_crews=BUILT_IN, built_in_flows={}),
            vetting=Vetting(agents=agents),
            kickoffs=kickoffs,
        )

        async def show(run_id: str) -> run_pb2.Run:
            return run_pb2.Run(id=run_id)

        wired = Wired(
            servicers=[
                Servicer(
                    add=add_CrewServiceServicer_to_server,
                    servicer=CrewServicer(engine=engine, show=show),
                    name="loremesh.crew.v1.CrewService",
                )
            ],
            idempotent=frozenset({"/loremesh.crew.v1.CrewService/CreateCrew"}),
            database=database,
        )
        with caller():
            async with serving(wired, service="crew") as channel:
                yield Service(CrewServiceStub(channel), agents, kickoffs)


async def refusal(call: Awaitable[Any]) -> aio.AioRpcError:
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    return caught.value


async def reason(call: Awaitable[Any]) -> str | None:
    return reason_of(await refusal(call))


def violations(error: aio.AioRpcError) -> set[tuple[str, str]]:
    status = Status.FromString(dict(error.trailing_metadata() or ())["grpc-status-details-bin"])
    found = BadRequest()
    (detail,) = [each for each in status.details if each.Is(BadRequest.DESCRIPTOR)]
    detail.Unpack(found)
    return {(each.field, each.reason) for each in found.field_violations}


def struct(**fields: Any) -> Struct:
    proto = Struct()
    proto.update(fields)
    return proto


async def test_a_crew_comes_back_as_it_was_given_with_what_is_unset_told(service: Service) -> None:
    given = pb.Crew(
        id="whole",
        name="Whole",
        agents=[
            pb.CrewAgent(
                name="ann",
                role="R",
                model="local/small",
                temperature=0.0,
                tools=[
                    agent_pb2.ToolUse(
                        name="search",
                        approval=agent_pb2.APPROVAL_POLICY_ALWAYS,
                        approval_time=Duration(seconds=90),
                        on_expiry=agent_pb2.EXPIRY_POLICY_FAIL,
                    )
                ],
                memory=agent_pb2.MemorySettings(recall=True, ttl=Duration(seconds=60), embeddings=False),
                max_output_tokens=5,
            ),
            pb.CrewAgent(name="bob", agent_id="kept", agent_revision=2),
        ],
        tasks=[
            pb.CrewTask(
                name="write",
                description="Write.",
                depends_on=[],
                timeout=Duration(seconds=5, nanos=500_000_000),
                retry=pb.RetryPolicy(max_attempts=1, initial_pause=Duration()),
                human_input=pb.HumanInput(
                    question="?", due_in=Duration(seconds=60), on_expiry=agent_pb2.EXPIRY_POLICY_APPROVE, max_rounds=2
                ),
                guardrails=[pb.Guardrail(min_length=3), pb.Guardrail(expression="output != ''", message="Say it.")],
                max_guardrail_rounds=0,
                output_schema=struct(type="object", properties={"n": {"type": "integer", "minimum": 1}}),
                output_file="x.md",
                priority=-1,
            )
        ],
        process=pb.PROCESS_PARALLEL,
        max_parallel=3,
        fail_fast=False,
        limits=run_pb2.RunLimits(max_tokens=9, max_time=Duration(seconds=3)),
        inputs_schema=struct(type="object"),
        example_inputs=struct(a=[1, None, {"b": True}]),
    )
    kept = await service.stub.CreateCrew(pb.CreateCrewRequest(crew=given))
    assert (kept.revision, kept.etag, kept.built_in) == (1, "1", False)
    assert kept.create_time == kept.update_time
    for name in ("revision", "etag", "create_time", "update_time"):
        kept.ClearField(name)
    assert kept == given

    small = await service.create(id="")
    assert len(small.id) == 36
    (task,) = small.tasks
    assert (small.process, small.max_parallel, small.fail_fast) == (pb.PROCESS_SEQUENTIAL, 10, True)
    assert (task.timeout.seconds, task.retry.max_attempts, task.max_guardrail_rounds) == (600, 3, 2)
    assert task.retry.initial_pause.seconds == 1


async def test_an_id_is_given_once_and_those_built_in_are_taken(service: Service) -> None:
    await service.create()
    assert await reason(service.create()) == "CREW_EXISTS"
    assert await reason(service.create(id="research")) == "CREW_EXISTS"


async def test_every_fault_is_told_at_once_the_agent_services_too(service: Service) -> None:
    broken: dict[str, Any] = {
        "agents": [
            pb.CrewAgent(name="ann", model="nobody/none", tools=[agent_pb2.ToolUse(name="fly")]),
            pb.CrewAgent(name="ann", agent_id="gone"),
            pb.CrewAgent(name="old", agent_id="kept", agent_revision=9),
        ],
        "tasks": [
            pb.CrewTask(name="a", description="x", depends_on=["b"], agent="zoe"),
            pb.CrewTask(name="b", description="{y}", depends_on=["a"], tools=[agent_pb2.ToolUse(name="swim")]),
        ],
        "process": pb.PROCESS_HIERARCHICAL,
        "manager_model": "nobody/boss",
        "inputs_schema": struct(type="object", properties={"x": {}}),
    }
    error = await refusal(service.create(**broken))
    expected = {
        ("agents[0].model", "MODEL_UNKNOWN"),
        ("agents[0].tools[0].name", "TOOL_NOT_FOUND"),
        ("agents[1].name", "AGENT_REPEATED"),
        ("agents[1].agent_id", "AGENT_UNKNOWN"),
        ("agents[2].agent_id", "AGENT_UNKNOWN"),
        ("tasks[0].agent", "AGENT_UNKNOWN"),
        ("tasks[0].depends_on", "TASK_CYCLE"),
        ("tasks[1].description", "INPUT_UNKNOWN"),
        ("tasks[1].tools[0].name", "TOOL_NOT_FOUND"),
        ("manager_model", "MODEL_UNKNOWN"),
    }
    assert (error.code(), reason_of(error)) == (StatusCode.INVALID_ARGUMENT, "CREW_INVALID")
    assert violations(error) == expected
    response = await service.stub.ValidateCrew(pb.ValidateCrewRequest(crew=pb.Crew(**broken)))
    assert {(each.field, each.reason) for each in response.violations} == expected
    assert all(each.description for each in response.violations)
    fine = pb.Crew(agents=[ANN], tasks=[WRITE])
    assert not (await service.stub.ValidateCrew(pb.ValidateCrewRequest(crew=fine))).violations


async def test_a_thousand_tasks_are_refused_before_anything_is_asked(service: Service) -> None:
    tasks = [pb.CrewTask(name=f"t{i}", description="x") for i in range(1000)]
    error = await refusal(service.create(tasks=tasks))
    assert error.code() is StatusCode.INVALID_ARGUMENT
    assert service.agents.asked == []


async def test_agents_that_are_alike_are_asked_about_once(service: Service) -> None:
    tools = [agent_pb2.ToolUse(name="search")]
    agents = [pb.CrewAgent(name=f"a{i}", role="R", tools=tools) for i in range(50)]
    await service.create(agents=agents, tasks=[WRITE_ALIKE(i, tools) for i in range(200)])
    assert len(service.agents.asked) == 2


def WRITE_ALIKE(i: int, tools: Sequence[agent_pb2.ToolUse]) -> pb.CrewTask:  # noqa: N802
    return pb.CrewTask(name=f"t{i}", description="x", tools=tools)


async def test_without_the_agent_service_nothing_is_kept(service: Service) -> None:
    service.agents.down = True
    error = await refusal(service.create(agents=[pb.CrewAgent(name=n, role=n) for n in ("ann", "bob", "cid")]))
    assert (error.code(), reason_of(error)) == (StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
    service.agents.down = False
    assert await reason(service.get("c")) == "CREW_NOT_FOUND"


async def test_what_is_updated_is_the_next_revision_and_what_is_not_stays(service: Service) -> None:
    first = await service.create(description="Old", memory=True)
    second = await service.update("c", description="New")
    assert (second.revision, second.description, second.memory) == (2, "New", True)
    assert second.tasks == first.tasks
    third = await service.update("c", "description", "fail_fast", "limits.max_tokens", limits={"max_tokens": 5})
    assert (third.description, third.fail_fast, third.limits.max_tokens) == ("", True, 5)
    fourth = await service.update("c", "limits.max_tool_calls", limits={"max_tokens": 9, "max_tool_calls": 2})
    assert (fourth.limits.max_tokens, fourth.limits.max_tool_calls) == (5, 2)
    fifth = await service.update("c", "*", agents=[ANN], tasks=[WRITE])
    assert not fifth.memory
    assert not fifth.HasField("limits")
    assert await service.get("c", 1) == first
    assert await service.get("c") == fifth
    assert await service.revisions("c") == [5, 4, 3, 2, 1]


async def test_what_changes_nothing_makes_no_revision(service: Service) -> None:
    first = await service.create(example_inputs=struct(topic="bees", n=1.5))
    service.agents.down = True
    assert await service.update("c", "tasks", "process", tasks=first.tasks) == first
    assert (
        await service.update("c", "*", **{name: getattr(first, name) for name in ("agents", "tasks", "example_inputs")})
        == first
    )
    assert await service.update("c") == first
    assert await service.revisions("c") == [1]


async def test_an_etag_that_is_not_the_current_one_changes_nothing(service: Service) -> None:
    first = await service.create()
    second = await service.update("c", name="Two", etag=first.etag)
    for call in (service.update("c", name="Three", etag=first.etag), service.rollback("c", 1, etag=first.etag)):
        error = await refusal(call)
        assert (error.code(), reason_of(error)) == (StatusCode.ABORTED, "ETAG_MISMATCH")
    assert await service.get("c") == second


async def test_a_mask_that_names_what_cannot_be_changed_is_refused(service: Service) -> None:
    await service.create()
    for path in ("id", "revision", "etag", "built_in", "nothing", "tasks.name", "limits.nothing", ""):
        assert await reason(service.update("c", path, name="x")) == "FIELD_MASK_INVALID"
    assert await service.revisions("c") == [1]


async def test_an_update_that_breaks_it_is_refused_with_its_faults(service: Service) -> None:
    await service.create()
    error = await refusal(service.update("c", agents=[pb.CrewAgent(name="bob")]))
    assert violations(error) == {("tasks[0].agent", "AGENT_UNKNOWN")}
    assert await service.revisions("c") == [1]


async def test_an_old_revision_comes_back_as_a_new_one(service: Service) -> None:
    first = await service.create(name="One")
    await service.update("c", name="Two")
    third = await service.rollback("c", 1, etag="2")
    assert (third.revision, third.name, third.tasks) == (3, "One", first.tasks)
    assert await reason(service.rollback("c", 9)) == "CREW_REVISION_NOT_FOUND"
    assert await reason(service.rollback("nobody", 1)) == "CREW_NOT_FOUND"


async def test_one_deleted_is_gone_but_for_its_revisions(service: Service) -> None:
    first = await service.create()
    await service.delete("c")
    for call in (service.get("c"), service.delete("c"), service.update("c", name="x"), service.rollback("c", 1)):
        error = await refusal(call)
        assert (error.code(), reason_of(error)) == (StatusCode.NOT_FOUND, "CREW_NOT_FOUND")
    assert await reason(service.revisions("c")) == "CREW_NOT_FOUND"
    assert await service.get("c", 1) == first
    assert (await service.create()).revision == 2


async def test_those_built_in_come_first_and_stay_as_they_are(service: Service) -> None:
    for crew_id in ("zebra", "ant", "m"):
        await service.create(id=crew_id)
    expected = ["code-review", "research", "ant", "m", "zebra"]
    assert await service.ids() == [expected]
    for size in (1, 2, 3):
        pages = await service.ids(size)
        assert [crew_id for page in pages for crew_id in page] == expected
        assert all(len(page) == size for page in pages[:-1])
    kept = await service.get("research")
    assert (kept.built_in, kept.revision) == (True, 1)
    assert await service.revisions("research") == [1]
    for call in (service.update("research", name="x"), service.delete("research"), service.rollback("research", 1)):
        error = await refusal(call)
        assert (error.code(), reason_of(error)) == (StatusCode.FAILED_PRECONDITION, "BUILT_IN_READ_ONLY")
    assert await reason(service.get("research", 2)) == "CREW_REVISION_NOT_FOUND"


async def test_tenants_have_crews_of_their_own(service: Service) -> None:
    await service.create(name="Ours")
    with caller(tenant="umbrella"):
        assert await reason(service.get("c")) == "CREW_NOT_FOUND"
        assert await reason(service.get("c", 1)) == "CREW_NOT_FOUND"
        assert await reason(service.update("c", name="x")) == "CREW_NOT_FOUND"
        assert await reason(service.delete("c")) == "CREW_NOT_FOUND"
        assert await service.ids() == [["code-review", "research"]]
        await service.create(name="Theirs")
    assert (await service.get("c")).name == "Ours"


async def test_a_token_of_another_list_or_none_at_all_is_refused(service: Service) -> None:
    await service.create()
    await service.update("c", name="Two")
    page = await service.stub.ListCrewRevisions(pb.ListCrewRevisionsRequest(crew_id="c", page_size=1))
    more = pb.ListCrewRevisionsRequest(crew_id="c", page_size=1, page_token=page.next_page_token)
    assert [each.revision for each in (await service.stub.ListCrewRevisions(more)).revisions] == [1]
    for token in (page.next_page_token, "nonsense"):
        assert await reason(service.stub.ListCrews(pb.ListCrewsRequest(page_token=token))) == "PAGE_TOKEN_INVALID"


AGENTS_YAML = "ann:\n  role: Writer of {topic}\n  llm: local/small\n  tools: [search]\n"
TASKS_YAML = "write:\n  description: Write about {topic}\n  expected_output: Text\n  agent: ann\n"


async def imported(service: Service, **fields: Any) -> pb.Crew:
    given = {"crew_id": "i", "agents_yaml": AGENTS_YAML, "tasks_yaml": TASKS_YAML, **fields}
    return await service.stub.ImportCrew(pb.ImportCrewRequest(**given))


async def test_a_project_of_crewai_is_kept_as_any_crew(service: Service) -> None:
    shown = await imported(service, name="Mine", validate_only=True)
    assert (shown.id, shown.agents[0].model) == ("i", "local/small")
    assert await reason(service.get("i")) == "CREW_NOT_FOUND"
    kept = await imported(service, name="Mine")
    assert (kept.revision, kept.name, kept.tasks) == (1, "Mine", shown.tasks)
    assert await reason(imported(service)) == "CREW_EXISTS"


async def test_a_project_that_cannot_be_a_crew_is_refused_with_the_place(service: Service) -> None:
    error = await refusal(imported(service, agents_yaml="ann: &a\n  role: x\n"))
    assert reason_of(error) == "YAML_INVALID"
    status = Status.FromString(dict(error.trailing_metadata() or ())["grpc-status-details-bin"])
    info = ErrorInfo()
    assert any(each.Unpack(info) for each in status.details)
    assert info.metadata["line"] == "1"
    for yaml in ({"tasks_yaml": "write:\n  agent: ann\n"}, {"agents_yaml": f"ann:\n  role: {'x' * 501}\n"}):
        assert await reason(imported(service, **yaml)) == "CREW_INVALID"
    many = "".join(f"t{i}:\n  description: x\n" for i in range(1000))
    assert await reason(imported(service, tasks_yaml=many)) == "CREW_INVALID"
    error = await refusal(imported(service, validate_only=True, agents_yaml="ann:\n  llm: gpt-9\n  tools: [fly]\n"))
    assert violations(error) == {("agents[0].model", "MODEL_UNKNOWN"), ("agents[0].tools[0].name", "TOOL_NOT_FOUND")}


async def test_a_kickoff_hands_on_what_it_is_given(service: Service) -> None:
    run = await service.stub.KickoffCrew(
        pb.KickoffCrewRequest(
            crew_id="research",
            inputs=struct(topic="be\0es", n=3),
            limits=run_pb2.RunLimits(max_tokens=7, max_time=Duration(seconds=2)),
        )
    )
    assert run.id == "run-1"
    assert service.kickoffs.started == [
        NewRun(
            kind=RunKind.CREW,
            definition_id="research",
            revision=0,
            inputs={"topic": "bees", "n": 3},
            limits=RunLimits(max_tokens=7, max_seconds=2.0),
        )
    ]


async def test_a_kickoff_for_each_is_of_one_revision_all_or_none(service: Service) -> None:
    await service.create(description="1")
    await service.update("c", description="2")
    inputs = [struct(topic=f"t{i}") for i in range(3)]
    request = pb.KickoffCrewForEachRequest(crew_id="c", inputs=inputs)
    response = await service.stub.KickoffCrewForEach(request)
    assert [run.id for run in response.runs] == ["run-1", "run-2", "run-3"]
    assert [(each.revision, each.inputs) for each in service.kickoffs.started] == [
        (2, {"topic": f"t{i}"}) for i in range(3)
    ]
    request.inputs.append(struct(tone="dry"))
    error = await refusal(service.stub.KickoffCrewForEach(request))
    assert violations(error) == {("inputs[3]", "INPUT_MISSING")}
    assert len(service.kickoffs.started) == 3
