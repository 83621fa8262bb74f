"""Crews, flows and runs that cannot be, through the front door: each refused for its own reason, and none hangs."""

import uuid
from typing import Any

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from loremesh.crew.v1 import crew_pb2, flow_pb2, run_pb2
from loremesh.crew.v1.crew_pb2_grpc import CrewServiceStub
from loremesh.crew.v1.flow_pb2_grpc import FlowServiceStub
from loremesh.crew.v1.run_pb2_grpc import RunServiceStub

pytestmark = [pytest.mark.system, pytest.mark.timeout(60)]

ANN = {"name": "ann", "role": "Clerk"}
BEGIN, END = {"id": "a", "initial": True}, {"id": "z", "final": True}
FINE = {"agents": [ANN], "tasks": [{"name": "t", "description": "Write about {topic}."}]}
NESTED = "[" * 500 + "]" * 500
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
OTHER = (("x-loremesh-tenant", f"t-{uuid.uuid4().hex[:8]}"),)
Refusal = tuple[int, str, dict[str, str]]


def tasks(*names: str, **depends_on: list[str]) -> list[dict[str, Any]]:
    return [{"name": name, "description": "Do it.", "depends_on": depends_on.get(name, [])} for name in names]


def refusal(response: httpx.Response) -> Refusal:
    """Status, reason of the whole, and reasons by the field at fault."""
    details = response.json()["details"]
    fields = [each for detail in details for each in detail.get("field_violations", ())]
    return response.status_code, details[0]["reason"], {each["field"]: each.get("reason", "") for each in fields}


def flow(*ways: dict[str, Any], states: tuple[dict[str, Any], ...] = (BEGIN, END), **fields: Any) -> dict[str, Any]:
    return {"states": list(states), "transitions": list(ways), **fields}


def way(begin: str, end: str, **condition: Any) -> dict[str, Any]:
    return {"from": begin, "to": end, **({"condition": condition} if condition else {})}


@pytest.mark.parametrize(
    ("crew", "field", "reason"),
    [
        pytest.param({"tasks": tasks("a", "b", a=["b"], b=["a"])}, "tasks[0].depends_on[0]", "TASK_CYCLE", id="cycle"),
        pytest.param({"tasks": tasks("a", a=["a"])}, "tasks[0].depends_on[0]", "TASK_CYCLE", id="itself"),
        pytest.param({"tasks": tasks("a", a=["b"])}, "tasks[0].depends_on[0]", "TASK_UNKNOWN", id="an unknown task"),
        pytest.param({"tasks": tasks("a", "a")}, "tasks[1].name", "TASK_REPEATED", id="a task twice"),
        pytest.param({"agents": [ANN, ANN]}, "agents[1].name", "AGENT_REPEATED", id="an agent twice"),
        pytest.param(
            {"tasks": [{"name": "t", "description": "Do it.", "agent": "bob"}]}, "tasks[0].agent", "AGENT_UNKNOWN",
            id="an unknown agent",
        ),
    ],
)  # fmt: skip
def test_a_crew_that_cannot_be_done_is_not_kept(
    http: httpx.Client, crew: dict[str, Any], field: str, reason: str
) -> None:
    id_ = f"c-{uuid.uuid4().hex}"
    status, whole, faults = refusal(http.post("/api/v1/crews", json={"id": id_, **FINE, **crew}))
    assert (status, whole, faults) == (400, "CREW_INVALID", {field: reason})
    assert http.get(f"/api/v1/crews/{id_}").status_code == 404


def test_a_crew_of_a_thousand_tasks_is_refused(http: httpx.Client) -> None:
    response = http.post("/api/v1/crews", json={**FINE, "tasks": tasks(*(f"t{n}" for n in range(1000)))}, timeout=10)
    assert refusal(response) == (400, "INVALID_FIELD", {"crew.tasks": "INVALID_FIELD"})


@pytest.mark.parametrize(
    ("given", "faults"),
    [
        pytest.param(
            flow(way("a", "z"), {**way("a", "b", output_contains={"text": "x"}), "priority": 1}),
            {"transitions[1].to": "STATE_UNKNOWN"},
            id="a way to nowhere",
        ),
        pytest.param(
            flow(way("a", "z"), states=(BEGIN, {"id": "z"})), {"states": "FINAL_STATE_MISSING"}, id="no final state"
        ),
        pytest.param(
            flow(way("a", "z"), way("a", "z", on_failure={})), {"transitions[1]": "TRANSITION_NEVER_HOLDS"},
            id="a condition that never holds",
        ),
        pytest.param(
            flow(way("a", "z", expression="size(output) + 1")),
            {"transitions[0].condition.expression": "EXPRESSION_INVALID"},
            id="an expression that is not true or false",
        ),
    ],
)  # fmt: skip
def test_a_flow_that_cannot_be_done_is_not_kept(
    http: httpx.Client, given: dict[str, Any], faults: dict[str, str]
) -> None:
    id_ = f"f-{uuid.uuid4().hex}"
    status, whole, found = refusal(http.post("/api/v1/flows", json={"id": id_, **given}))
    assert (status, whole, found) == (400, "FLOW_INVALID", faults)
    assert http.get(f"/api/v1/flows/{id_}").status_code == 404


@pytest.mark.parametrize(
    "agents",
    [
        pytest.param("one: &a {role: x, goal: y, backstory: z}\ntwo: *a\n", id="an anchor"),
        pytest.param(LAUGHS, id="a bomb"),
        pytest.param(f"one: {NESTED}", id="a deep nest"),
        pytest.param("one: !!python/object/apply:os.system ['true']", id="a tag"),
    ],
)
def test_yaml_that_is_more_than_text_is_refused(http: httpx.Client, agents: str) -> None:
    body = {"agents_yaml": agents, "tasks_yaml": "t: {description: d, expected_output: e, agent: one}"}
    status, reason, faults = refusal(http.post("/api/v1/crews:import", json=body, timeout=10))
    assert (status, reason, list(faults)) == (400, "YAML_INVALID", ["agents_yaml"])


@pytest.fixture
def crew(http: httpx.Client) -> str:
    return str(http.post("/api/v1/crews", json=FINE).raise_for_status().json()["id"])


def test_a_crew_is_not_begun_without_what_its_texts_name(http: httpx.Client, crew: str) -> None:
    status, reason, faults = refusal(http.post(f"/api/v1/crews/{crew}/kickoff", json={"inputs": {"other": 1}}))
    assert (status, reason, list(faults)) == (400, "INPUT_MISSING", ["inputs"])
    several = {"inputs": [{"topic": "tea"}, {}]}
    status, reason, faults = refusal(http.post(f"/api/v1/crews/{crew}/kickoff_for_each", json=several))
    assert (status, reason, list(faults)) == (400, "INPUT_MISSING", ["inputs[1]"])
    assert http.get("/api/v1/runs", params={"definition_id": crew}).json()["runs"] == []


def test_one_key_is_not_for_two_kickoffs(http: httpx.Client) -> None:
    id_ = http.post("/api/v1/flows", json=flow(way("a", "z"))).raise_for_status().json()["id"]
    headers = {"idempotency-key": uuid.uuid4().hex}
    one, other = (http.post(f"/api/v1/flows/{id_}/kickoff", json={"inputs": {"n": n}}, headers=headers) for n in (1, 2))
    assert one.status_code == 200
    assert refusal(other)[1] == "IDEMPOTENCY_CONFLICT"


@pytest.mark.parametrize(
    ("method", "path", "reason"),
    [
        ("GET", "crews/nobody", "CREW_NOT_FOUND"),
        ("DELETE", "crews/nobody", "CREW_NOT_FOUND"),
        ("POST", "crews/nobody/kickoff", "CREW_NOT_FOUND"),
        ("GET", "crews/research?revision=99", "CREW_REVISION_NOT_FOUND"),
        ("GET", "flows/nobody", "FLOW_NOT_FOUND"),
        ("POST", "flows/nobody/kickoff", "FLOW_NOT_FOUND"),
        ("GET", "flows/content?revision=99", "FLOW_REVISION_NOT_FOUND"),
        *(("GET", f"runs/nobody{rest}", "RUN_NOT_FOUND") for rest in ("", "/events", "/history", "/tree", "/export")),
        *(("GET", f"runs/nobody/{rest}", "RUN_NOT_FOUND") for rest in ("files/a.md", "diff/nobody", "transitions")),
        *(("POST", f"runs/nobody/{rest}", "RUN_NOT_FOUND") for rest in ("cancel", "pause", "resume", "replay", "fork")),
        ("POST", "approvals/nobody/decide", "APPROVAL_NOT_FOUND"),
    ],
)
def test_what_there_is_not_is_not_found(http: httpx.Client, method: str, path: str, reason: str) -> None:
    body = {"decision": "DECISION_APPROVE"} if "approvals" in path else {}
    response = http.request(method, f"/api/v1/{path}", **({"json": body} if method == "POST" else {}), timeout=10)
    assert refusal(response)[:2] == (404, reason)


def begun(http: httpx.Client, definition: dict[str, Any], kind: str = "flows") -> str:
    id_ = http.post(f"/api/v1/{kind}", json=definition).raise_for_status().json()["id"]
    return str(http.post(f"/api/v1/{kind}/{id_}/kickoff", json={}).raise_for_status().json()["id"])


def waiting(http: httpx.Client) -> str:
    return begun(http, flow(way("a", "z"), states=({**BEGIN, "wait": {"signal": "go"}}, END)))


def test_a_signal_that_nobody_waits_for_is_refused_and_so_is_one_after_the_end(http: httpx.Client) -> None:
    run_id = waiting(http)
    post = f"/api/v1/runs/{run_id}/signal"
    assert refusal(http.post(post, json={"signal": "stop"}))[:2] == (400, "SIGNAL_UNKNOWN")
    assert http.post(post, json={"signal": "go"}).status_code == 200
    with http.stream("GET", f"/api/v1/runs/{run_id}/events", timeout=30) as stream:
        assert '"completed"' in stream.read().decode()
    for steering in ("signal", "pause", "resume"):
        body = {"signal": "go"} if steering == "signal" else {}
        assert refusal(http.post(f"/api/v1/runs/{run_id}/{steering}", json=body))[:2] == (400, "RUN_FINISHED")
    assert http.post(f"/api/v1/runs/{run_id}/cancel", json={}).json()["status"] == "RUN_STATUS_COMPLETED"
    after = {"after_seq": 1000}
    for log in ("events", "history"):
        assert refusal(http.get(f"/api/v1/runs/{run_id}/{log}", params=after))[1] == "AFTER_SEQ_OUT_OF_RANGE"
    assert refusal(http.post(f"/api/v1/runs/{run_id}/fork", json=after))[1] == "SEQ_UNKNOWN"
    assert refusal(http.get(f"/api/v1/runs/{run_id}/files/a.md"))[:2] == (404, "FILE_NOT_FOUND")
    assert refusal(http.get(f"/api/v1/runs/{run_id}/transitions", params={"visit": 9}))[1] == "VISIT_NOT_FOUND"


def test_what_is_built_in_is_not_changed(http: httpx.Client) -> None:
    assert refusal(http.delete("/api/v1/crews/research"))[1] == "BUILT_IN_READ_ONLY"
    assert refusal(http.delete("/api/v1/flows/content"))[1] == "BUILT_IN_READ_ONLY"


def test_nobody_sees_or_steers_what_another_tenant_has(mesh: Any, http: httpx.Client, crew: str) -> None:
    """At the service itself: the front door makes every caller the same tenant's."""
    run_id = waiting(http)
    with grpc.insecure_channel(mesh.state().parts["crew"].address) as channel:
        runs: Any = RunServiceStub(channel)
        calls: list[tuple[Any, Any, str]] = [
            (runs.GetRun, run_pb2.GetRunRequest(run_id=run_id), "RUN_NOT_FOUND"),
            (runs.ListRunEvents, run_pb2.ListRunEventsRequest(run_id=run_id), "RUN_NOT_FOUND"),
            (runs.ExportRun, run_pb2.ExportRunRequest(run_id=run_id), "RUN_NOT_FOUND"),
            (runs.CancelRun, run_pb2.CancelRunRequest(run_id=run_id), "RUN_NOT_FOUND"),
            (runs.SignalRun, run_pb2.SignalRunRequest(run_id=run_id, signal="go"), "RUN_NOT_FOUND"),
            (runs.ForkRun, run_pb2.ForkRunRequest(run_id=run_id), "RUN_NOT_FOUND"),
            (CrewServiceStub(channel).GetCrew, crew_pb2.GetCrewRequest(crew_id=crew), "CREW_NOT_FOUND"),
            (CrewServiceStub(channel).KickoffCrew, crew_pb2.KickoffCrewRequest(crew_id=crew), "CREW_NOT_FOUND"),
            (FlowServiceStub(channel).GetFlow, flow_pb2.GetFlowRequest(flow_id="nobody"), "FLOW_NOT_FOUND"),
        ]
        for call, request, reason in calls:
            assert reason_of(call, request) == (grpc.StatusCode.NOT_FOUND, reason)
        with pytest.raises(grpc.RpcError):
            list(runs.WatchRun(run_pb2.WatchRunRequest(run_id=run_id), metadata=OTHER, timeout=10))
        assert not runs.ListRuns(run_pb2.ListRunsRequest(), metadata=OTHER, timeout=10).runs
    assert http.post(f"/api/v1/runs/{run_id}/cancel", json={}).status_code == 200


def reason_of(call: Any, request: Any) -> tuple[grpc.StatusCode, str]:
    """Why another tenant is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, metadata=OTHER, timeout=10)
    refused: Any = caught.value
    info = error_details_pb2.ErrorInfo()
    assert rpc_status.from_call(refused).details[0].Unpack(info)
    return refused.code(), info.reason
