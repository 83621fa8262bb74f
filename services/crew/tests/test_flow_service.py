"""FlowService through gRPC."""

from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from grpc import StatusCode, aio
from loremesh.crew.v1 import flow_pb2 as pb
from loremesh.crew.v1 import run_pb2
from loremesh.crew.v1.flow_pb2_grpc import FlowServiceStub, add_FlowServiceServicer_to_server
from loremesh_crew.adapters.memory import MemoryAgents, MemoryDefinitions
from loremesh_crew.adapters.postgres_definitions import PostgresDefinitions
from loremesh_crew.domain.definitions import Crew, Flow, RunLimits
from loremesh_crew.domain.machine import RunKind
from loremesh_crew.engine.flow_vetting import FlowVetting
from loremesh_crew.engine.flows import FlowEngine
from loremesh_crew.engine.library import DefinitionLibrary
from loremesh_crew.engine.vetting import Vetting
from loremesh_crew.errors import CrewExists, FlowExists
from loremesh_crew.flow_protos import flow as flow_proto
from loremesh_crew.flow_protos import read_flow
from loremesh_crew.flow_servicer import FlowServicer
from loremesh_crew.ports import DefinitionStore, NewRun
from loremesh_kit.channel import reason_of
from loremesh_kit.clock import ManualClock
from loremesh_kit.postgres import Database, open_database
from loremesh_kit.server import Servicer, Wired
from loremesh_kit.settings import ServiceSettings
from loremesh_kit.testing import DatabaseUrls, caller, serving

from .flow_doubles import crew, one, waiting

pytestmark = pytest.mark.steelthread

CREWS = {each.id: each for each in (crew("write-crew"), crew("topic-crew", needs="topic"))}
BUILT_IN = {"waiting": replace(one(waiting(seconds=1.0)), id="waiting", built_in=True)}
TASK = {"name": "t", "description": "Do it."}
EVERYTHING: dict[str, Any] = {
    "id": "all",
    "name": "All there is",
    "description": "Everything a flow can say.",
    "states": [
        {
            "id": "write",
            "name": "Writing",
            "initial": True,
            "crew": {"crew_id": "write-crew", "inputs": {"topic": "{topic}"}},
            "assignments": [{"variable": "n", "expression": "n + 1"}],
        },
        {
            "id": "check",
            "agent": {
                "agent": {"name": "ann", "role": "Editor of {topic}", "temperature": 0.5},
                "task": {
                    "name": "check",
                    "description": "Check {output.write}.",
                    "output_schema": {"type": "object", "properties": {"score": {"type": "integer"}}},
                    "guardrails": [{"expression": "json.score > 0"}],
                    "human_input": {"question": "Good?"},
                },
            },
        },
        {"id": "send", "tool": {"tool": "search", "arguments": {"text": ["{output}", 3, {"deep": True}]}}},
        {"id": "hold", "wait": {"duration": "90s", "signal": "go"}},
        {"id": "inner", "flow": {"flow_id": "waiting", "inputs": {"x": "{n}"}}},
        {"id": "done", "final": True},
        {"id": "lost", "final": True, "fails": True},
    ],
    "transitions": [
        {"from": "write", "to": "check", "condition": {"on_success": {}}, "priority": 5},
        {"from": "write", "to": "lost", "condition": {"on_failure": {}}},
        {
            "from": "check",
            "to": "send",
            "condition": {
                "and": {
                    "conditions": [
                        {"output_contains": {"text": "fine", "case_sensitive": True}},
                        {"not": {"output_matches": "bad+"}},
                        {
                            "or": {
                                "conditions": [
                                    {"variable_equals": {"variable": "n", "value": 1}},
                                    {"expression": "json.score > 3 || inputs.topic == 'bees'"},
                                ]
                            }
                        },
                    ]
                }
            },
        },
        {"from": "check", "to": "write", "condition": {"always": {}}, "priority": -1},
        {"from": "send", "to": "hold"},
        {"from": "hold", "to": "inner"},
        {"from": "inner", "to": "done"},
    ],
    "variables": [
        {"name": "n", "type": "VARIABLE_TYPE_INT", "initial": 0},
        {"name": "tags", "type": "VARIABLE_TYPE_LIST", "initial": ["a", None, 1.5]},
    ],
    "max_iterations": 30,
    "limits": {"max_tokens": 1000, "max_time": "3600s"},
    "inputs_schema": {"type": "object", "properties": {"topic": {"type": "string"}}},
    "example_inputs": {"topic": "bees"},
}


class Kickoffs:
    """Runs that nobody does."""

    def __init__(self) -> None:
        self.started: list[NewRun] = []

    async def start(self, runs: Sequence[NewRun]) -> Sequence[str]:
        self.started.extend(runs)
        return [f"run-{len(self.started)}"]


@dataclass(frozen=True)
class Service:
    stub: FlowServiceStub
    kickoffs: Kickoffs = field(default_factory=Kickoffs)

    async def create(self, given: Flow | dict[str, Any], **fields: Any) -> pb.Flow:
        return await self.stub.CreateFlow(pb.CreateFlowRequest(flow=message(given, **fields)))

    async def get(self, flow_id: str, revision: int = 0) -> pb.Flow:
        return await self.stub.GetFlow(pb.GetFlowRequest(flow_id=flow_id, revision=revision))

    async def update(self, flow_id: str, *mask: str, **fields: Any) -> pb.Flow:
        flow = pb.Flow(id=flow_id, **fields)
        return await self.stub.UpdateFlow(pb.UpdateFlowRequest(flow=flow, update_mask=FieldMask(paths=mask)))

    async def faults(self, given: Flow | dict[str, Any], **fields: Any) -> set[tuple[str, str]]:
        response = await self.stub.ValidateFlow(pb.ValidateFlowRequest(flow=message(given, **fields)))
        return {(each.reason, each.field) for each in response.violations}


def message(given: Flow | dict[str, Any], **fields: Any) -> pb.Flow:
    proto = flow_proto(given) if isinstance(given, Flow) else ParseDict(given, pb.Flow())
    for name, value in fields.items():
        setattr(proto, name, value)
    return proto


def nested(flow_id: str, inner: str, revision: int = 0) -> dict[str, Any]:
    """A flow in which another runs."""
    return {
        "id": flow_id,
        "states": [{"id": "a", "initial": True, "final": True, "flow": {"flow_id": inner, "revision": revision}}],
    }


@asynccontextmanager
async def serving_flows(
    crews: DefinitionStore, flows: DefinitionStore, database: Database | None = None
) -> AsyncIterator[Service]:
    kickoffs = Kickoffs()
    library = DefinitionLibrary(crews=crews, flows=flows, built_in_crews=CREWS, built_in_flows=BUILT_IN)
    engine = FlowEngine(
        store=flows,
        built_in=BUILT_IN,
        library=library,
        vetting=FlowVetting(library=library, vetting=Vetting(agents=MemoryAgents(tools=["search"]))),
        kickoffs=kickoffs,
    )

    async def show(run_id: str) -> run_pb2.Run:
        return run_pb2.Run(id=run_id)

    servicer = Servicer(
        add=add_FlowServiceServicer_to_server,
        servicer=FlowServicer(engine=engine, show=show),
        name="loremesh.crew.v1.FlowService",
    )
    with caller():
        async with serving(Wired(servicers=[servicer], database=database), service="crew") as channel:
            yield Service(FlowServiceStub(channel), kickoffs)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    crews = MemoryDefinitions(clock=ManualClock(), exists=CrewExists)
    flows = MemoryDefinitions(clock=ManualClock(), exists=FlowExists)
    async with serving_flows(crews, flows) as served:
        yield served


@pytest.fixture
async def service_on_postgres(database_urls: DatabaseUrls) -> AsyncIterator[Service]:
    async with open_database(ServiceSettings(database_url=database_urls.plain)) as database:
        crews = PostgresDefinitions(database=database, kind=RunKind.CREW, type_=Crew)
        flows = PostgresDefinitions(database=database, kind=RunKind.FLOW, type_=Flow)
        async with serving_flows(crews, flows, database) as served:
            yield served


async def refusal(call: Awaitable[Any]) -> aio.AioRpcError:
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    return caught.value


async def reason(call: Awaitable[Any]) -> str | None:
    return reason_of(await refusal(call))


async def violations(call: Awaitable[Any]) -> set[tuple[str, str]]:
    """The faults a refusal names, by reason and field."""
    error = await refusal(call)
    assert error.code() is StatusCode.INVALID_ARGUMENT
    metadata = error.trailing_metadata() or ()
    status = Status.FromString(next(bytes(value) for key, value in metadata if key == "grpc-status-details-bin"))
    bad = BadRequest()
    assert any(each.Unpack(bad) for each in status.details)
    return {(each.reason, each.field) for each in bad.field_violations}


async def test_everything_a_flow_says_is_kept(service_on_postgres: Service) -> None:
    service = service_on_postgres
    created = await service.create(EVERYTHING)
    found = await service.get("all")
    assert found == created
    assert (found.revision, found.etag) == (1, "1")
    assert read_flow(found) == read_flow(message(EVERYTHING))
    for name in ("revision", "etag", "create_time", "update_time"):
        found.ClearField(name)
    again = flow_proto(read_flow(message(EVERYTHING)))
    for name in ("revision", "etag"):
        again.ClearField(name)
    assert found == again


async def test_a_flow_of_a_few_words_has_defaults_and_an_id(service: Service) -> None:
    created = await service.create({"states": [{"id": "a", "initial": True, "final": True}]})
    assert created.id
    assert created.max_iterations == 100


async def test_every_fault_is_told_at_once_and_nothing_is_kept(service: Service) -> None:
    broken = {
        **EVERYTHING,
        "states": [
            *EVERYTHING["states"][:-1],
            {"id": "x", "crew": {"crew_id": "none"}},
            {"id": "y", "crew": {"crew_id": "write-crew", "revision": 9}},
            {"id": "z", "tool": {"tool": "none"}},
            {"id": "w", "flow": {"flow_id": "none"}},
            {"id": "v", "agent": {"agent": {"name": "ann", "model": "no/model"}, "task": TASK}},
        ],
    }
    expected = {
        ("STATE_UNKNOWN", "transitions[1].to"),
        *{("STATE_UNREACHABLE", f"states[{at}]") for at in range(6, 11)},
        ("CREW_NOT_FOUND", "states[6].crew.crew_id"),
        ("CREW_REVISION_NOT_FOUND", "states[7].crew.revision"),
        ("TOOL_NOT_FOUND", "states[8].tool.tool"),
        ("FLOW_NOT_FOUND", "states[9].flow.flow_id"),
        ("MODEL_UNKNOWN", "states[10].agent.agent.model"),
    }
    # An error has room for ten.
    told = await violations(service.create(broken))
    assert len(told) == 10
    assert told < expected
    assert await reason(service.create(broken)) == "FLOW_INVALID"
    assert await service.faults(broken) == expected
    assert await reason(service.get("all")) == "FLOW_NOT_FOUND"
    assert await service.faults(EVERYTHING) == set()


async def test_what_a_crew_needs_is_given_or_an_input(service: Service) -> None:
    flow = {
        "id": "f",
        "states": [{"id": "a", "initial": True, "final": True, "crew": {"crew_id": "topic-crew"}}],
        "inputs_schema": {"type": "object", "properties": {"other": {}}},
    }
    assert await service.faults(flow) == {("INPUT_UNKNOWN", "states[0].crew.inputs")}
    assert await service.faults({**flow, "inputs_schema": {"type": "object", "properties": {"topic": {}}}}) == set()
    assert await service.faults({**flow, "variables": [{"name": "topic"}]}) == set()


async def test_flows_do_not_contain_each_other_in_a_circle(service: Service) -> None:
    fault = {("FLOW_CYCLE", "states[0].flow.flow_id")}
    assert await service.faults(nested("a", "a")) == fault
    await service.create({"id": "a", "states": [{"id": "a", "initial": True, "final": True}]})
    await service.create(nested("b", "a"))
    await service.create(nested("c", "b"))
    assert await service.faults(nested("a", "c")) == fault
    assert await violations(service.update("a", states=message(nested("a", "c")).states)) == fault
    assert await service.faults(nested("d", "a", revision=7)) == {
        ("FLOW_REVISION_NOT_FOUND", "states[0].flow.revision")
    }


async def test_flows_are_five_levels_deep_at_most(service: Service) -> None:
    await service.create({"id": "f1", "states": [{"id": "a", "initial": True, "final": True}]})
    for level in range(2, 6):
        await service.create(nested(f"f{level}", f"f{level - 1}"))
    assert await service.faults(nested("f6", "f5")) == {("FLOW_CYCLE", "states[0].flow.flow_id")}


async def test_a_change_makes_a_revision_and_a_rollback_another(service: Service) -> None:
    first = await service.create(EVERYTHING)
    second = await service.update("all", name="Other", limits={"max_tokens": 5}, etag=first.etag)
    assert (second.revision, second.name, second.limits.max_tokens) == (2, "Other", 5)
    assert second.states == first.states
    assert (await service.update("all", name="Other")).revision == 2
    assert await reason(service.update("all", name="Third", etag=first.etag)) == "ETAG_MISMATCH"
    assert await reason(service.update("all", "built_in", name="x")) == "FIELD_MASK_INVALID"
    third = await service.stub.RollbackFlow(pb.RollbackFlowRequest(flow_id="all", revision=1))
    assert (third.revision, third.name) == (3, "All there is")
    listed = await service.stub.ListFlowRevisions(pb.ListFlowRevisionsRequest(flow_id="all", page_size=2))
    assert [each.revision for each in listed.revisions] == [3, 2]
    rest = await service.stub.ListFlowRevisions(
        pb.ListFlowRevisionsRequest(flow_id="all", page_size=2, page_token=listed.next_page_token)
    )
    assert [each.revision for each in rest.revisions] == [1]
    assert (await service.get("all", 2)).name == "Other"
    assert await reason(service.get("all", 9)) == "FLOW_REVISION_NOT_FOUND"


async def test_flows_built_in_come_first_and_stay_as_they_are(service: Service) -> None:
    for flow_id in ("b", "a"):
        await service.create({"id": flow_id, "states": [{"id": "a", "initial": True, "final": True}]})
    first = await service.stub.ListFlows(pb.ListFlowsRequest(page_size=2))
    rest = await service.stub.ListFlows(pb.ListFlowsRequest(page_size=2, page_token=first.next_page_token))
    assert [[each.id for each in page.flows] for page in (first, rest)] == [["waiting", "a"], ["b"]]
    assert first.flows[0].built_in
    assert await reason(service.update("waiting", name="Mine")) == "BUILT_IN_READ_ONLY"
    assert await reason(service.stub.DeleteFlow(pb.DeleteFlowRequest(flow_id="waiting"))) == "BUILT_IN_READ_ONLY"
    assert await reason(service.create(BUILT_IN["waiting"])) == "FLOW_EXISTS"
    assert await reason(service.stub.ListFlows(pb.ListFlowsRequest(page_token="x"))) == "PAGE_TOKEN_INVALID"


async def test_a_flow_that_was_deleted_is_gone_and_may_come_again(service: Service) -> None:
    await service.create(EVERYTHING)
    assert await reason(service.create(EVERYTHING)) == "FLOW_EXISTS"
    await service.stub.DeleteFlow(pb.DeleteFlowRequest(flow_id="all"))
    assert await reason(service.get("all")) == "FLOW_NOT_FOUND"
    assert await reason(service.stub.DeleteFlow(pb.DeleteFlowRequest(flow_id="all"))) == "FLOW_NOT_FOUND"
    assert (await service.create(EVERYTHING)).revision == 2


async def test_a_kickoff_starts_a_run_and_shows_it(service: Service) -> None:
    inputs = Struct()
    inputs.update({"topic": "bees", "n": 3})
    run = await service.stub.KickoffFlow(
        pb.KickoffFlowRequest(
            flow_id="waiting",
            revision=1,
            inputs=inputs,
            limits=run_pb2.RunLimits(max_tokens=7, max_time=Duration(seconds=9)),
        )
    )
    assert run.id == "run-1"
    assert service.kickoffs.started == [
        NewRun(
            kind=RunKind.FLOW,
            definition_id="waiting",
            revision=1,
            inputs={"topic": "bees", "n": 3},
            limits=RunLimits(max_tokens=7, max_seconds=9.0),
        )
    ]
