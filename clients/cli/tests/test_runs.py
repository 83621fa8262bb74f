"""`run`, and how `crew run` shows what happens, against a front door in this process."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Value
from loremesh.agent.v1 import approval_pb2, chat_pb2
from loremesh.crew.v1 import run_pb2 as pb

pytestmark = pytest.mark.unit

Run = Callable[[list[str]], tuple[int, str, str]]
START = datetime(2026, 1, 1, tzinfo=UTC)
USAGE = chat_pb2.Usage(input_tokens=900, output_tokens=334)
DONE = pb.TaskResult(status=pb.TASK_STATUS_COMPLETED, agent="ada", attempts=1, usage=USAGE)


def told(*payloads: dict[str, Any], run_id: str = "r1") -> list[pb.RunEvent]:
    """Events a second apart, numbered."""
    events = []
    for seq, payload in enumerate(payloads, 1):
        event = pb.RunEvent(run_id=run_id, seq=seq, **payload)
        event.time.FromDatetime(START + timedelta(seconds=seq))
        events.append(event)
    return events


def crew_events(ended: str = "completed") -> list[pb.RunEvent]:
    return told(
        {"run_started": pb.RunStarted(kind=pb.RUN_KIND_CREW, definition_id="research", names=["research", "writing"])},
        {"path": ["research"], "attempt": 1, "task_started": pb.TaskStarted(agent="ada")},
        {"path": ["research"], "task_finished": DONE},
        {"path": ["writing"], "attempt": 1, "task_started": pb.TaskStarted(agent="bea")},
        {"path": ["writing"], "task_retried": pb.TaskRetried(reason="GUARDRAIL_FAILED", message="Too long.")},
        {"path": ["writing"], "attempt": 2, "task_started": pb.TaskStarted(agent="bea")},
        {"path": ["writing"], "task_finished": DONE},
        {ended: pb.RunEnded(output="An article.", usage=USAGE)},
    )


def ended_run(status: pb.RunStatus.ValueType = pb.RUN_STATUS_COMPLETED) -> pb.Run:
    tasks = [pb.TaskResult(name="research", agent="ada", status=pb.TASK_STATUS_COMPLETED, attempts=1, usage=USAGE)]
    tasks[0].start_time.FromDatetime(START)
    tasks[0].finish_time.FromDatetime(START + timedelta(seconds=1.5))
    files = [pb.RunFile(name="article.md", size_bytes=11)]
    return pb.Run(id="r1", status=status, output="An article.", tasks=tasks, usage=USAGE, files=files)


async def asked(mesh: Any, run: Run, *arguments: str) -> tuple[int, str, str]:
    return await asyncio.to_thread(run, [*arguments, "--url", mesh.url])


@pytest.mark.parametrize(
    ("ended", "status", "code"),
    [
        ("completed", pb.RUN_STATUS_COMPLETED, 0),
        ("incomplete", pb.RUN_STATUS_INCOMPLETE, 2),
        ("failed", pb.RUN_STATUS_FAILED, 1),
        ("cancelled", pb.RUN_STATUS_CANCELLED, 1),
        ("expired", pb.RUN_STATUS_EXPIRED, 1),
    ],
)
async def test_a_crew_is_shown_task_by_task_and_ends_with_its_status(
    mesh: Any, run: Run, ended: str, status: pb.RunStatus.ValueType, code: int
) -> None:
    mesh.runs.events["r1"], mesh.runs.runs["r1"] = crew_events(ended), ended_run(status)
    exit_code, out, _ = await asked(mesh, run, "crew", "run", "research", "--input", "topic=bees")
    assert exit_code == code
    lines = [line.partition("  ")[2] for line in out.splitlines()[1:9]]
    assert lines == [
        "run research began",
        "research began",
        "research is completed",
        "writing began",
        "writing is tried again: GUARDRAIL_FAILED: Too long.",
        "writing began",
        "writing is completed",
        f"run research is {ended}",
    ]
    assert "An article." in out
    assert "1,234" in out
    assert "run file r1 article.md" in out
    assert MessageToDict(mesh.crews.kickoffs[0].inputs) == {"topic": "bees"}


async def test_programs_are_given_the_run_and_watchers_every_event(mesh: Any, run: Run) -> None:
    mesh.runs.events["r1"], mesh.runs.runs["r1"] = crew_events(), ended_run()
    _, out, _ = await asked(mesh, run, "crew", "run", "research", "--json")
    assert json.loads(out)["status"] == "RUN_STATUS_COMPLETED"
    _, out, _ = await asked(mesh, run, "run", "watch", "r1", "--json")
    *events, last = map(json.loads, out.splitlines())
    assert [int(each["seq"]) for each in events] == list(range(1, 9))
    assert last["output"] == "An article."


@pytest.mark.parametrize("fault", ["cut_after", "lose_after"])
async def test_a_cut_stream_goes_on_where_it_ended(
    mesh: Any, run: Run, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr("loremesh_cli.run_events.PAUSE_SECONDS", 0.0)
    mesh.runs.events["r1"], mesh.runs.runs["r1"] = crew_events(), ended_run()
    setattr(mesh.runs, fault, 3)
    status, out, _ = await asked(mesh, run, "run", "watch", "r1", "--json")
    assert status == 0
    assert [int(json.loads(each)["seq"]) for each in out.splitlines()[:-1]] == list(range(1, 9))
    assert mesh.runs.watches == [("r1", 0), ("r1", 3)]


async def test_a_stream_that_stays_silent_is_given_up(mesh: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loremesh_cli.run_events.PATIENCE_SECONDS", 0.0)
    mesh.runs.events["r1"] = crew_events()[:-1]
    status, out, _ = await asked(mesh, run, "run", "watch", "r1", "--json")
    assert (status, json.loads(out.splitlines()[-1])["error"]["reason"]) == (1, "STREAM_CUT")
    status, out, _ = await asked(mesh, run, "run", "watch", "none", "--json")
    assert (status, json.loads(out)["error"]["reason"]) == (1, "RUN_NOT_FOUND")


def flow_events() -> list[pb.RunEvent]:
    return told(
        {"run_started": pb.RunStarted(kind=pb.RUN_KIND_FLOW, definition_id="content", names=["writing", "end"])},
        {"path": ["writing"], "state_entered": pb.StateEntered(state="writing", visit=1)},
        {"path": ["writing"], "child_started": pb.ChildStarted(child_run_id="r1.1")},
        {"path": ["writing"], "child_finished": pb.ChildFinished(child_run_id="r1.1", status=pb.RUN_STATUS_COMPLETED)},
        {"path": ["writing"], "transition_taken": pb.TransitionTaken(report=pb.TransitionReport(to="writing"))},
        {"path": ["writing"], "state_entered": pb.StateEntered(state="writing", visit=2)},
        {"path": ["writing"], "transition_taken": pb.TransitionTaken(report=pb.TransitionReport(to="end"))},
        {"path": ["end"], "state_entered": pb.StateEntered(state="end", visit=1)},
        {"completed": pb.RunEnded()},
    )


async def test_a_tree_at_a_terminal_has_child_runs_below_their_states(
    mesh: Any, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    mesh.runs.events["r1"], mesh.runs.runs["r1"] = flow_events(), ended_run()
    mesh.runs.events["r1.1"] = told(
        {"run_started": pb.RunStarted(kind=pb.RUN_KIND_CREW, definition_id="article", names=["draft"])},
        {"path": ["draft"], "attempt": 1, "task_started": pb.TaskStarted(agent="ada")},
        {"path": ["draft"], "task_finished": DONE},
        {"completed": pb.RunEnded()},
        run_id="r1.1",
    )
    mesh.runs.late = {"r1.1"}
    status, out, _ = await asked(mesh, run, "flow", "run", "content")
    assert status == 0
    seen = _plain(out)
    assert "✓ writing  completed  2.0 s" in seen
    assert "✓ end  completed" in seen
    assert "content  r1  completed  8.0 s  1,234 tokens" in seen
    assert "✓ draft  ada  completed  1.0 s  1,234 tokens" in seen
    assert seen.index("✓ writing  completed") < seen.index("✓ draft") < seen.rindex("✓ writing (visit 2)")
    assert mesh.runs.watches.count(("r1.1", 0)) == 2


def _plain(out: str) -> str:
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out)
    return plain[plain.rindex("content  r1") :]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A terminal to type at."""
    master, slave = os.openpty()
    with os.fdopen(slave, "r") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        yield lambda line: (os.write(master, line.encode()), None)[1]
    os.close(master)


def waiting(mesh: Any, *, kind: approval_pb2.ApprovalKind.ValueType) -> None:
    """A run whose second task waits for a human, and goes on when the gate of event 4 is set."""
    mesh.runs.events["r1"] = told(
        {"run_started": pb.RunStarted(kind=pb.RUN_KIND_CREW, definition_id="c", names=["writing"])},
        {"path": ["writing"], "attempt": 1, "task_started": pb.TaskStarted(agent="ada")},
        {"path": ["writing"], "task_waiting": pb.TaskWaiting(approval_id="a1")},
        {"path": ["writing"], "task_resumed": pb.TaskResumed()},
        {"path": ["writing"], "task_finished": DONE},
        {"completed": pb.RunEnded()},
    )
    mesh.runs.runs["r1"] = ended_run()
    mesh.runs.gates = {4: asyncio.Event()}
    approval = approval_pb2.Approval(
        id="a1",
        kind=kind,
        state=approval_pb2.APPROVAL_STATE_PENDING,
        question="May it?",
        task_name="writing",
        output="A draft.",
        etag="7",
    )
    approval.arguments.update({"to": "bob"})
    approval.tool_name = "send" if kind == approval_pb2.APPROVAL_KIND_TOOL_CALL else ""
    mesh.approvals.approvals = [approval]


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for is in another thread
            await asyncio.sleep(0.01)


OUTPUT, TOOL = approval_pb2.APPROVAL_KIND_OUTPUT, approval_pb2.APPROVAL_KIND_TOOL_CALL
QUESTION = approval_pb2.APPROVAL_KIND_QUESTION


@pytest.mark.parametrize(
    ("kind", "line", "decision", "said"),
    [
        (OUTPUT, "approve\n", {"decision": "DECISION_APPROVE"}, "A draft."),
        (OUTPUT, "d too long\n", {"decision": "DECISION_DENY", "comment": "too long"}, "A draft."),
        (OUTPUT, "answer Mine, then.\n", {"decision": "DECISION_ANSWER", "answer": "Mine, then."}, "A draft."),
        (TOOL, "a go on\n", {"decision": "DECISION_APPROVE", "comment": "go on"}, '"to": "bob"'),
        (QUESTION, "a At noon.\n", {"decision": "DECISION_ANSWER", "answer": "At noon."}, "May it?"),
    ],
)
async def test_who_sits_at_the_terminal_is_asked_and_decides(
    mesh: Any, run: Run, typed: Any, kind: Any, line: str, decision: dict[str, str], said: str
) -> None:
    waiting(mesh, kind=kind)
    typed("nonsense\n")
    typed(line)
    running = asyncio.create_task(asked(mesh, run, "run", "watch", "r1"))
    await until(lambda: mesh.approvals.decisions)
    mesh.runs.gates[4].set()
    status, out, _ = await running
    assert status == 0
    assert said in out
    assert "Begin with one of these words." in out
    (sent,) = mesh.approvals.decisions
    assert MessageToDict(sent, preserving_proto_field_name=True) == {"approval_id": "a1", "etag": "7", **decision}


async def test_what_is_decided_elsewhere_is_not_asked_any_more(mesh: Any, run: Run, typed: Any) -> None:
    waiting(mesh, kind=OUTPUT)
    running = asyncio.create_task(asked(mesh, run, "run", "watch", "r1"))
    await until(lambda: mesh.approvals.shown)
    mesh.runs.gates[4].set()
    status, _, _ = await running
    assert (status, mesh.approvals.decisions) == (0, [])


async def test_a_decision_that_comes_too_late_is_said(mesh: Any, run: Run, typed: Any) -> None:
    waiting(mesh, kind=OUTPUT)
    mesh.approvals.refuse_with = "APPROVAL_DECIDED"
    typed("approve\n")
    running = asyncio.create_task(asked(mesh, run, "run", "watch", "r1"))
    await until(lambda: mesh.approvals.decisions)
    mesh.runs.gates[4].set()
    status, out, _ = await running
    assert status == 0
    assert "APPROVAL_DECIDED" in out


async def test_without_a_terminal_it_is_said_how_to_decide(mesh: Any, run: Run) -> None:
    waiting(mesh, kind=OUTPUT)
    mesh.runs.gates[4].set()
    status, out, _ = await asked(mesh, run, "run", "watch", "r1")
    assert status == 0
    assert "approvals show a1" in out
    assert mesh.approvals.decisions == []


async def test_closing_leaves_the_run_alone_and_says_how_to_come_back(mesh: Any, tmp_path: Path) -> None:
    waiting(mesh, kind=OUTPUT)
    # Where the tests run in the background, Ctrl-C is ignored by all that they start.
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = ("-c", f"{heeding}; from loremesh_cli.main import main; main()", "crew", "run", "c", "--url", mesh.url)
    closed = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "LOREMESH_HOME": str(tmp_path / "home"), "PYTHONUNBUFFERED": "1"},
    )
    async with asyncio.timeout(60):
        while b"waits for a human:" not in await closed.stdout.readline():
            pass
        closed.send_signal(signal.SIGINT)
        said, _ = await closed.communicate()
    assert closed.returncode == 130
    assert b"run watch r1" in said
    assert mesh.runs.asked == []


async def test_runs_are_listed_shown_and_drawn_as_a_tree(mesh: Any, run: Run) -> None:
    for name in ("r1", "r2"):
        mesh.runs.runs[name] = pb.Run(id=name, definition_id="research", status=pb.RUN_STATUS_COMPLETED)
    _, out, _ = await asked(
        mesh, run, "run", "list", "--of", "research", "--status", "in-progress", "--children", "--json"
    )
    assert [each["id"] for each in json.loads(out)["runs"]] == ["r1", "r2"]
    first = mesh.runs.asked[0]
    assert (first.definition_id, first.status, first.children) == ("research", pb.RUN_STATUS_IN_PROGRESS, True)
    assert "research" in (await asked(mesh, run, "run", "list"))[1]
    mesh.runs.children = [pb.Run(id="r1.1", name="child", parent_state="writing", status=pb.RUN_STATUS_FAILED)]
    assert "writing: child  r1.1  failed" in (await asked(mesh, run, "run", "tree", "r1"))[1]
    assert json.loads((await asked(mesh, run, "run", "get", "r1", "--json"))[1])["id"] == "r1"


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        (["cancel", "r1", "--comment", "why"], pb.CancelRunRequest(run_id="r1", comment="why")),
        (["pause", "r1"], pb.PauseRunRequest(run_id="r1")),
        (["resume", "r1"], pb.ResumeRunRequest(run_id="r1")),
        (["signal", "r1", "go"], pb.SignalRunRequest(run_id="r1", signal="go")),
        (
            ["signal", "r1", "go", "--payload", '"yes"', "--id", "s"],
            pb.SignalRunRequest(run_id="r1", signal="go", signal_id="s", payload=Value(string_value="yes")),
        ),
        (["diff", "r1", "r2"], pb.DiffRunsRequest(run_id="r1", other_run_id="r2")),
        (
            ["explain", "r1", "--state", "s", "--visit", "2"],
            pb.ExplainTransitionRequest(run_id="r1", state="s", visit=2),
        ),
    ],
)
async def test_a_run_is_steered_and_asked_about(mesh: Any, run: Run, arguments: list[str], sent: Any) -> None:
    status, out, _ = await asked(mesh, run, "run", *arguments, "--json")
    assert status == 0
    json.loads(out)
    assert mesh.runs.asked == [sent]


async def test_a_payload_that_is_no_json_is_not_sent(mesh: Any, run: Run) -> None:
    status, _, _ = await asked(mesh, run, "run", "signal", "r1", "go", "--payload", "{")
    assert (status, mesh.runs.asked) == (2, [])


async def test_a_replay_that_differs_is_a_failure(mesh: Any, run: Run) -> None:
    status, out, _ = await asked(mesh, run, "run", "replay", "r1")
    assert (status, out) == (0, "7 decisions, each as it was\n")
    mesh.runs.differences = [pb.ReplayDifference(decision=3, event="TaskEnded", recorded="[a]", replayed="[b]")]
    status, out, _ = await asked(mesh, run, "run", "replay", "r1")
    assert status == 1
    assert "decision 3, on TaskEnded\n  then: [a]\n  now:  [b]" in out


async def test_a_run_is_forked_with_what_is_to_be_different(mesh: Any, run: Run) -> None:
    changes = ["--input", "topic=ants", "--model", "local/m", "--describe", "writing=Write a poem."]
    status, _, _ = await asked(mesh, run, "run", "fork", "r1", "--after", "4", *changes, "--detach")
    assert status == 0
    (sent,) = mesh.runs.asked
    assert (sent.run_id, sent.after_seq, sent.model, dict(sent.descriptions)) == (
        "r1", 4, "local/m", {"writing": "Write a poem."},
    )  # fmt: skip
    assert MessageToDict(sent.inputs) == {"topic": "ants"}
    assert len(mesh.runs.keys) == 1


async def test_differences_between_runs_are_shown_side_by_side(mesh: Any, run: Run) -> None:
    assert "nothing differs" in (await asked(mesh, run, "run", "diff", "r1", "r2"))[1]
    mesh.runs.diff = [pb.RunDifference(field="inputs.topic", left="bees", right="ants")]
    assert (await asked(mesh, run, "run", "diff", "r1", "r2"))[1] == "inputs.topic\n- bees\n+ ants\n"


async def test_exports_and_files_are_written_as_they_are(mesh: Any, run: Run) -> None:
    mesh.runs.body = "graph TD\n  a --> ทะเล".encode()
    assert (await asked(mesh, run, "run", "export", "r1"))[1] == "graph TD\n  a --> ทะเล\n"
    await asked(mesh, run, "run", "export", "r1", "--format", "json")
    assert [each.format for each in mesh.runs.asked] == [pb.EXPORT_FORMAT_MERMAID, pb.EXPORT_FORMAT_JSON]
    assert (await asked(mesh, run, "run", "file", "r1", "article.md"))[1] == "graph TD\n  a --> ทะเล"


async def test_why_a_way_was_taken_is_shown_condition_by_condition(mesh: Any, run: Run) -> None:
    part = pb.ConditionCheck(condition='output_contains("approved")', held=True, saw="approved")
    broken = pb.ConditionCheck(condition="rounds < x", error="no such variable: x")
    mesh.runs.report = pb.TransitionReport(
        **{"from": "review"},
        visit=2,
        to="published",
        transitions=[
            pb.TransitionCheck(to="published", priority=10, held=True, taken=True, condition=part),
            pb.TransitionCheck(to="writing", condition=pb.ConditionCheck(condition="and", parts=[broken])),
        ],
    )
    _, out, _ = await asked(mesh, run, "run", "explain", "r1")
    assert "review (visit 2) → published" in out
    assert "published, priority 10: taken" in out
    assert '✓ output_contains("approved")  saw "approved"' in out
    assert "! rounds < x  no such variable: x" in out
