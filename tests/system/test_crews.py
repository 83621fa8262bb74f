"""Crews and flows through the front door, over REST and gRPC, with a model that says what its script says."""

import json
import os
import signal
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.json_format import MessageToDict
from loremesh.crew.v1 import crew_pb2, run_pb2
from loremesh.crew.v1.crew_pb2_grpc import CrewServiceStub
from loremesh.crew.v1.run_pb2_grpc import RunServiceStub
from loremesh_agent.testing.dialects import TOOL_CALLS, Call, Counts, OpenAI, Text
from loremesh_agent.testing.http import ProviderDouble, Reply, Step, Wait

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

SECONDS = 30
MODEL = "openai/m"
COUNTS = Counts(read=20, written=10, cached=0, reasoned=0)
ENDS = ("completed", "incomplete", "failed", "cancelled", "expired")


class Held(list[bytes]):
    """An answer that does not begin before it may."""

    def __init__(self, may_begin: Callable[[], bool], text: str) -> None:
        super().__init__(said(text))
        self._may_begin = may_begin

    def __iter__(self) -> Iterator[Any]:
        while not self._may_begin():
            yield Wait(0.02)
        yield from super().__iter__()


Answer = str | dict[str, Any] | Call | Held


def said(answer: Answer) -> Sequence[Step]:
    """It as the provider streams it; a dict is an output of a schema."""
    if isinstance(answer, Held):
        return answer
    if isinstance(answer, Call):
        return [*OpenAI().begin(answer), *OpenAI().end(TOOL_CALLS, COUNTS)]
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return [*OpenAI().begin(Text(text)), *OpenAI().end(counts=COUNTS)]


class Model:
    """Answers each role from a list of its own, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: dict[str, list[str]] = defaultdict(list)
        self._answers: dict[str, list[Answer]] = {}

    def agent(self, name: str, *answers: Answer, **fields: Any) -> dict[str, Any]:
        """An agent of a crew whose model says these, one a question, the last again and again."""
        role = f"{name} {uuid.uuid4().hex}"
        self._answers[role] = list(answers)
        return {"name": name, "role": role, "model": MODEL, **fields}

    def of(self, agent: dict[str, Any]) -> list[str]:
        """What it was asked."""
        return self.asked[agent["role"]]

    def script(self, body: dict[str, Any]) -> Sequence[Step]:
        asked = json.dumps(body)
        role = next((role for role in self._answers if f"You are {role}." in asked), None)
        if role is None:
            return [Reply(500)]
        self.asked[role].append(asked)
        answers = self._answers[role]
        return said(answers.pop(0) if len(answers) > 1 else answers[0])


@pytest.fixture
def model(doubles: dict[str, ProviderDouble]) -> Iterator[Model]:
    model = Model()
    doubles["openai"].script_of = model.script
    yield model
    doubles["openai"].script_of = None


class Door:
    """The front door, by REST."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        response = self._http.post(f"/api/v1/{path}", json=body or {}, headers=sent)
        assert response.status_code == 200, response.text
        return response.json()

    def get(self, path: str, **params: Any) -> Any:
        return self.file(path, **params).json()

    def refused(self, path: str, body: Any) -> tuple[int, str]:
        """Status and reason."""
        response = self._http.post(f"/api/v1/{path}", json=body)
        return response.status_code, response.json()["details"][0]["reason"]

    def answers(self, path: str) -> bool:
        return self._http.get(f"/api/v1/{path}").status_code == 200

    def file(self, path: str, **params: Any) -> httpx.Response:
        response = self._http.get(f"/api/v1/{path}", params=params)
        assert response.status_code == 200, response.text
        return response

    def crew(self, *tasks: dict[str, Any], **fields: Any) -> str:
        crew = {"id": f"c-{uuid.uuid4().hex}", "tasks": list(tasks), **fields}
        return str(self.post("crews", crew)["id"])

    def flow(self, **fields: Any) -> str:
        return str(self.post("flows", {"id": f"f-{uuid.uuid4().hex}", **fields})["id"])

    def start(self, definition_id: str, **inputs: Any) -> str:
        kind = "crews" if definition_id.startswith("c-") else "flows"
        return str(self.post(f"{kind}/{definition_id}/kickoff", {"inputs": inputs})["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        run: dict[str, Any] = self.get(f"runs/{run_id}")
        return run

    def watch(self, run_id: str, *, after: int = 0, last_event_id: int | None = None) -> list[dict[str, Any]]:
        """Its events until the stream ends, each with the id it was sent under."""
        headers = {} if last_event_id is None else {"last-event-id": str(last_event_id)}
        path, params = f"/api/v1/runs/{run_id}/events", {"after_seq": after} if after else {}
        with self._http.stream("GET", path, params=params, headers=headers, timeout=SECONDS) as response:
            assert response.status_code == 200
            lines = [line for line in response.iter_lines() if line.startswith("data: ")]
        events = [json.loads(line.removeprefix("data: ")) for line in lines]
        return [event for event in events if "heartbeat" not in event]

    def ended(self, run_id: str) -> dict[str, Any]:
        """The run, once its stream has ended as one does."""
        assert kinds(self.watch(run_id))[-1] in ENDS
        return self.run(run_id)

    def approval(self, run_id: str, *, before: str = "") -> dict[str, Any]:
        """What the one inbox has of the run, and nothing else of it."""
        (found,) = until(
            lambda: [each for each in self.get("approvals", run_id=run_id)["approvals"] if each["id"] != before]
        )
        approval: dict[str, Any] = found
        return approval

    def comes_to(self, run_id: str, state: str) -> None:
        until(lambda: self.run(run_id)["current_state"] == state)


@pytest.fixture
def door(http: httpx.Client) -> Door:
    return Door(http)


def until(found: Callable[[], Any]) -> Any:
    """What it finds, once it finds something."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.05)
    raise AssertionError(f"nothing was found in {SECONDS} s")


def kinds(events: Sequence[dict[str, Any]]) -> list[str]:
    own = {"run_id", "seq", "time", "path", "attempt"}
    return [name for event in events for name in event if name not in own]


def told(events: Sequence[dict[str, Any]], kind: str) -> list[Any]:
    return [event[kind] for event in events if kind in event]


def plain(message: Any) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def tasks_of(run: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each for each in run["tasks"]}


def task(name: str, agent: dict[str, Any], *depends_on: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "agent": agent["name"], "description": f"Do {name}.", "depends_on": depends_on, **fields}


def test_a_crew_is_run_once_watched_resumed_replayed_compared_and_forked(
    door: Door, model: Model, channel: grpc.Channel
) -> None:
    runs: Any = RunServiceStub(channel)
    finder, writer = model.agent("finder", "Bees dance."), model.agent("writer", "An article.", "Another article.")
    crew = door.crew(
        {"name": "find", "agent": "finder", "description": "Find facts on {topic}."},
        task("write", writer, "find", output_file="article.md"),
        agents=[finder, writer],
    )
    kickoff = (f"crews/{crew}/kickoff", {"inputs": {"topic": "bees"}})
    key = uuid.uuid4().hex
    run_id, again = (door.post(*kickoff, idempotency_key=key)["id"] for _ in range(2))
    request = crew_pb2.KickoffCrewRequest(crew_id=crew)
    request.inputs.update({"topic": "bees"})
    by_grpc = CrewServiceStub(channel).KickoffCrew(request, metadata=[("idempotency-key", key)], timeout=SECONDS)
    assert run_id == again == by_grpc.id

    events = door.watch(run_id)
    assert [int(event["seq"]) for event in events] == list(range(1, len(events) + 1))
    assert (kinds(events)[0], kinds(events)[-1]) == ("run_started", "completed")
    assert [kind for kind in kinds(events) if kind in ENDS] == ["completed"]
    watched = [plain(event) for event in runs.WatchRun(run_pb2.WatchRunRequest(run_id=run_id), timeout=SECONDS)]
    assert [event for event in watched if "heartbeat" not in event] == events
    assert door.get(f"runs/{run_id}/history")["events"] == events
    assert door.watch(run_id, after=3) == door.watch(run_id, last_event_id=3) == events[3:]

    run = door.run(run_id)
    assert (run["status"], run["output"]) == ("RUN_STATUS_COMPLETED", "An article.")
    assert [(each["name"], each["status"], each["output"], each["attempts"]) for each in run["tasks"]] == [
        ("find", "TASK_STATUS_COMPLETED", "Bees dance.", 1),
        ("write", "TASK_STATUS_COMPLETED", "An article.", 1),
    ]
    assert [int(run["usage"][name]) for name in ("input_tokens", "output_tokens", "steps")] == [40, 20, 2]
    assert "Find facts on bees." in model.of(finder)[0]
    assert "Bees dance." in model.of(writer)[0]
    assert (len(model.of(finder)), len(model.of(writer))) == (1, 1)

    assert [file["name"] for file in run["files"]] == ["article.md"]
    assert door.file(f"runs/{run_id}/files/article.md").text == "An article."
    drawn = door.file(f"runs/{run_id}/export").text
    assert drawn.startswith("graph TD\n")
    assert "write" in drawn
    whole = door.get(f"runs/{run_id}/export", format="EXPORT_FORMAT_JSON")
    assert len(whole["events"]) == len(events)

    replay = door.post(f"runs/{run_id}/replay")
    assert (replay["decisions"] > 2, replay["differences"]) == (True, [])
    assert door.get(f"runs/{run_id}/diff/{run_id}")["differences"] == []
    found = next(int(event["seq"]) for event in events if "task_finished" in event)
    fork = door.post(f"runs/{run_id}/fork", {"after_seq": found, "inputs": {"topic": "ants"}})
    assert fork["forked_from_run_id"] == run_id
    assert door.ended(fork["id"])["output"] == "Another article."
    assert (len(model.of(finder)), len(model.of(writer))) == (1, 2)
    differs = {
        each["field"]: (each["left"], each["right"])
        for each in door.get(f"runs/{run_id}/diff/{fork['id']}")["differences"]
    }
    assert differs["inputs.topic"] == ("bees", "ants")
    assert differs["output"] == ("An article.", "Another article.")


def test_ten_tasks_are_at_work_at_once(door: Door, model: Model) -> None:
    worker = model.agent("worker", Held(lambda: len(model.of(worker)) >= 10, "Done."))
    names = [f"t{number}" for number in range(10)]
    run = door.ended(door.start(door.crew(*(task(name, worker) for name in names), agents=[worker], process=2)))
    assert (run["status"], len(model.of(worker))) == ("RUN_STATUS_COMPLETED", 10)
    assert [each["name"] for each in run["tasks"]] == names


def test_a_manager_plans_again_what_was_refused_and_its_result_is_checked(door: Door, model: Model) -> None:
    def plan(agent: str, *needs: str) -> dict[str, Any]:
        facts = {"name": "facts", "agent": agent, "description": "Find the price of tea.", "depends_on": needs}
        return {"tasks": [facts]}

    verdict = {"accepted": True, "reason": ""}
    refused = (plan("zoe"), plan("zoe"), plan("clerk", "facts"))
    boss = model.agent("boss", *refused, plan("clerk"), "Tea costs 3 euros.", verdict)
    clerk = model.agent("clerk", "It is 3 euros.")
    crew = door.crew(
        {"name": "report", "description": "Report on tea.", "expected_output": "A price."},
        agents=[boss, clerk], process="PROCESS_HIERARCHICAL", manager="boss",
    )  # fmt: skip
    run_id = door.start(crew)
    events = door.watch(run_id)
    # An agent that there is not breaks the form already which plans are asked in: it is put right there once.
    unknown = "tasks.0.agent: must be one of"
    assert unknown in model.of(boss)[1]
    assert [each["reason"] for each in told(events, "plan_refused")] == ["PLAN_INVALID", "PLAN_CYCLE"]
    assert unknown in told(events, "plan_refused")[0]["message"]
    assert f"Your last plan was refused: The model's answer cannot be used: {unknown}" in model.of(boss)[2]
    assert f"Your last plan was refused: {told(events, 'plan_refused')[1]['message']}" in model.of(boss)[3]
    assert [[each["agent"] for each in made["tasks"]] for made in told(events, "plan_made")] == [["clerk"]]
    run = door.run(run_id)
    assert (run["status"], run["output"]) == ("RUN_STATUS_COMPLETED", "Tea costs 3 euros.")
    assert "It is 3 euros." in model.of(boss)[4]
    assert "Tea costs 3 euros." in model.of(boss)[5]
    assert (len(model.of(boss)), len(model.of(clerk))) == (6, 1)
    assert tasks_of(run)["plan-1/facts"]["delegated_by"] == "boss"


def test_work_is_handed_to_a_coworker_who_answers(door: Door, model: Model) -> None:
    arguments = json.dumps({"coworker": "clerk", "task": "Find the date.", "context": "It is about tea."})
    asks = Call("c1", "delegate_work", (arguments,))
    boss = model.agent("boss", asks, "It was in 1773.", allow_delegation=True)
    clerk = model.agent("clerk", "1773, in Boston.")
    run_id = door.start(door.crew(task("history", boss), agents=[boss, clerk]))
    events = door.watch(run_id)
    assert told(events, "work_delegated") == [{"agent": "clerk", "task": "history/clerk-1"}]
    run = door.run(run_id)
    assert (run["status"], run["output"]) == ("RUN_STATUS_COMPLETED", "It was in 1773.")
    handed = tasks_of(run)["history/clerk-1"]
    assert (handed["agent"], handed["delegated_by"], handed["output"]) == ("clerk", "boss", "1773, in Boston.")
    assert "Find the date." in model.of(clerk)[0]
    assert "It is about tea." in model.of(clerk)[0]
    assert "1773, in Boston." in model.of(boss)[1]


def publishing(door: Door, writer: dict[str, Any]) -> str:
    """A flow: a draft, if it is good a pause in a flow below, then what a human says."""
    pause = door.flow(
        states=[{"id": "pause", "initial": True, "wait": {"duration": "1s"}}, {"id": "over", "final": True}],
        transitions=[{"from": "pause", "to": "over"}],
    )
    good = {"expression": "length == 8 && output.endsWith('draft.') && inputs.topic == 'tea'"}
    states = [
        {
            "id": "draft", "initial": True,
            "agent": {"agent": writer, "task": {"name": "draft", "description": "Draft {topic}."}},
            "assignments": [{"variable": "length", "expression": "size(output)"}],
        },
        {"id": "rest", "flow": {"flow_id": pause}},
        {"id": "gate", "wait": {"signal": "decision"}},
        {"id": "out", "final": True},
        {"id": "binned", "final": True, "fails": True},
    ]  # fmt: skip
    transitions = [
        {"from": "draft", "to": "binned"},
        {
            "from": "draft",
            "to": "rest",
            "condition": {"and": {"conditions": [{"on_success": {}}, good]}},
            "priority": 5,
        },
        {"from": "rest", "to": "gate"},
        {"from": "gate", "to": "out", "condition": {"output_contains": {"text": "YES"}}},
        {"from": "gate", "to": "binned", "priority": -1},
    ]
    variables = [{"name": "length", "type": "VARIABLE_TYPE_INT"}]
    return door.flow(states=states, transitions=transitions, variables=variables, output="{output.draft} {output.gate}")


def test_a_flow_decides_waits_is_paused_and_says_why_it_went_where(door: Door, model: Model) -> None:
    writer = model.agent("writer", "A draft.")
    run_id = door.start(publishing(door, writer), topic="tea")
    door.comes_to(run_id, "gate")
    assert door.run(run_id)["variables"] == {"length": 8}
    children = [each["run"] for each in door.get(f"runs/{run_id}/tree")["children"]]
    assert [(each["parent_state"], each["status"]) for each in children] == [
        ("draft", "RUN_STATUS_COMPLETED"),
        ("rest", "RUN_STATUS_COMPLETED"),
    ]
    assert "timer_started" in kinds(door.watch(children[1]["id"]))

    assert door.post(f"runs/{run_id}/pause")["status"] == "RUN_STATUS_INTERRUPTED"
    for _ in range(2):
        door.post(f"runs/{run_id}/signal", {"signal": "decision", "payload": "yes, print it", "signal_id": "s-1"})
    paused = door.run(run_id)
    assert (paused["status"], paused["current_state"]) == ("RUN_STATUS_INTERRUPTED", "gate")
    door.post(f"runs/{run_id}/resume")
    events = door.watch(run_id)
    assert [len(told(events, kind)) for kind in ("paused", "resumed", "signal_received")] == [1, 1, 1]
    run = door.run(run_id)
    assert (run["status"], run["output"]) == ("RUN_STATUS_COMPLETED", "A draft. yes, print it")
    assert [each["name"] for each in run["tasks"]] == ["draft", "rest", "gate", "out"]

    first, second = door.get(f"runs/{run_id}/transitions", state="draft")["report"]["transitions"]
    assert (first["to"], first["taken"], second["to"], second["taken"]) == ("rest", True, "binned", False)
    parts = {part["condition"].partition("(")[0]: part for part in first["condition"]["parts"]}
    assert {name: part["held"] for name, part in parts.items()} == {"on_success": True, "expression": True}
    assert "length = 8" in parts["expression"]["saw"]
    assert door.post(f"runs/{run_id}/replay")["differences"] == []


def test_cancelling_a_flow_stops_the_crew_below_it_and_its_model(door: Door, model: Model) -> None:
    worker = model.agent("worker", Held(lambda: False, "Never."))
    crew = door.crew(task("long", worker), agents=[worker])
    flow = door.flow(
        states=[{"id": "work", "initial": True, "crew": {"crew_id": crew}}, {"id": "end", "final": True}],
        transitions=[{"from": "work", "to": "end"}],
    )
    run_id = door.start(flow)
    until(lambda: model.of(worker))
    door.post(f"runs/{run_id}/cancel", {"comment": "no longer needed"})
    events = door.watch(run_id)
    assert kinds(events)[-1] == "cancelled"
    assert told(events, "cancelling") == [{"comment": "no longer needed"}]
    (child,) = door.get(f"runs/{run_id}/tree")["children"]
    assert (child["run"]["status"], door.run(run_id)["status"]) == ("RUN_STATUS_CANCELLED", "RUN_STATUS_CANCELLED")
    (long,) = door.run(child["run"]["id"])["tasks"]
    assert long["status"] == "TASK_STATUS_CANCELLED"
    assert door.get(f"chat/jobs/{long['agent_run_id']}")["status"] == "CHAT_JOB_STATUS_CANCELLED"


def test_an_output_goes_back_with_a_humans_comment_until_they_accept_it(door: Door, model: Model) -> None:
    writer = model.agent("writer", "One.", "Two.")
    human = {"question": "Is it any good?", "assignee": "ada@example.org"}
    run_id = door.start(door.crew(task("poem", writer, human_input=human), agents=[writer]))
    first = door.approval(run_id)
    assert (first["kind"], first["output"], first["question"], first["assignee"], first["root_run_id"]) == (
        "APPROVAL_KIND_OUTPUT", "One.", "Is it any good?", "ada@example.org", run_id,
    )  # fmt: skip
    waiting = until(lambda: [each for each in door.run(run_id)["tasks"] if each["approval_id"]])
    assert [(each["status"], each["approval_id"]) for each in waiting] == [("TASK_STATUS_WAITING", first["id"])]
    moved = door.post(f"approvals/{first['id']}/reassign", {"assignee": "bob@example.org"})
    assert (moved["assignee"], moved["state"]) == ("bob@example.org", "APPROVAL_STATE_PENDING")
    assert door.get("approvals", run_id=run_id, assignee="ada@example.org")["approvals"] == []
    no = {"decision": "DECISION_DENY", "comment": "It must rhyme."}
    door.post(f"approvals/{first['id']}/decide", no)
    second = door.approval(run_id, before=first["id"])
    assert second["output"] == "Two."
    assert "It must rhyme." in model.of(writer)[1]
    door.post(f"approvals/{second['id']}/decide", {"decision": "DECISION_APPROVE"})
    events = door.watch(run_id)
    assert [len(told(events, kind)) for kind in ("task_waiting", "task_resumed")] == [2, 2]
    run = door.run(run_id)
    assert (run["status"], run["output"], len(model.of(writer))) == ("RUN_STATUS_COMPLETED", "Two.", 2)


def test_a_decision_is_made_once_and_not_after_the_run_was_cancelled(door: Door, model: Model) -> None:
    writer = model.agent("writer", "One.")
    crew = door.crew(task("poem", writer, human_input={}), agents=[writer])
    yes, no = {"decision": "DECISION_APPROVE"}, {"decision": "DECISION_DENY", "comment": "No."}
    run_id = door.start(crew)
    decide = f"approvals/{door.approval(run_id)['id']}/decide"
    assert [door.post(decide, yes)["state"] for _ in range(2)] == ["APPROVAL_STATE_APPROVED"] * 2
    assert door.refused(decide, no) == (400, "APPROVAL_DECIDED")
    assert door.ended(run_id)["output"] == "One."

    run_id = door.start(crew)
    approval = door.approval(run_id)
    door.post(f"runs/{run_id}/cancel")
    assert door.ended(run_id)["status"] == "RUN_STATUS_CANCELLED"
    until(lambda: door.get(f"approvals/{approval['id']}")["state"] == "APPROVAL_STATE_CANCELLED")
    assert door.refused(f"approvals/{approval['id']}/decide", yes) == (400, "APPROVAL_DECIDED")
    assert door.get("approvals", run_id=run_id)["approvals"] == []
    assert len(model.of(writer)) == 2


@pytest.mark.parametrize("victim", ["crew", "agent"])
def test_a_run_outlives_the_service_it_is_at_work_in_and_does_each_task_once(
    mesh: Any, door: Door, model: Model, victim: str
) -> None:
    may_end = threading.Event()
    agents = [
        model.agent("first", "One."),
        model.agent("second", Held(may_end.is_set, "Two.")),
        model.agent("third", "Three."),
    ]
    run_id = door.start(door.crew(*(task(each["name"], each) for each in agents), agents=agents))
    until(lambda: model.of(agents[1]))
    before = mesh.state().parts[victim]
    os.kill(before.process.pid, signal.SIGKILL)
    may_end.set()
    until(lambda: mesh.state().parts[victim].restarts == before.restarts + 1)
    until(lambda: door.answers(f"runs/{run_id}"))
    events = door.watch(run_id)
    assert [event["path"] for event in events if "task_finished" in event] == [["first"], ["second"], ["third"]]
    assert [event["path"] for event in events if "task_started" in event] == [["first"], ["second"], ["third"]]
    run = door.run(run_id)
    assert (run["status"], run["output"]) == ("RUN_STATUS_COMPLETED", "Three.")
    assert [(each["status"], each["output"], each["attempts"]) for each in run["tasks"]] == [
        ("TASK_STATUS_COMPLETED", text, 1) for text in ("One.", "Two.", "Three.")
    ]
    # Who dies in the middle of an answer has to ask again.
    assert [len(model.of(each)) for each in agents] == [1, 2 if victim == "agent" else 1, 1]
    assert door.post(f"runs/{run_id}/replay")["differences"] == []
