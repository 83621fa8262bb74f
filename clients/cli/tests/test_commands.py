"""What the commands print, and the statuses they end with."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from loremesh.agent.v1 import chat_pb2 as pb
from loremesh_cli import answers, client
from loremesh_cli.errors import CommandError
from loremesh_cli.ingest import PATIENCE_SECONDS
from loremesh_cli.mesh.ports import free_ports
from loremesh_cli.output import Output

pytestmark = pytest.mark.unit

SOURCE = pb.Source(
    number=1, document_id="d0", title="Notes", content="The outbox\nrow", page=3, start_char=5, end_char=19
)
ANSWER = pb.ChatResponse(response="By the outbox [1].", sources=[SOURCE], grounded=True, conversation_id="c1")
DELTAS = [pb.ChatEvent(text_delta=pb.TextDelta(text=text)) for text in ("By the ", "outbox [1].")]

Run = Callable[[Sequence[str]], tuple[int, str, str]]


async def stream(mesh: Any, *, as_json: bool = False) -> pb.ChatResponse:
    output = Output(as_json=as_json)
    async with client.connect(mesh.url) as connected:
        response = await answers.stream(connected, pb.ChatRequest(message="how?"), output=output)
        answers.show_sources(response, output=output)
        return response


async def test_an_answer_is_printed_as_it_comes_and_then_its_sources(mesh: Any, capsys: Any) -> None:
    mesh.chat.events = [*DELTAS, pb.ChatEvent(completed=ANSWER)]
    assert await stream(mesh) == ANSWER
    printed = capsys.readouterr().out
    assert printed.startswith("By the outbox [1].\n[1] Notes, page 3, characters 5 to 19")
    assert "The outbox row" in printed


async def test_nothing_but_json_is_printed_for_programs(mesh: Any, capsys: Any) -> None:
    mesh.chat.events = [*DELTAS, pb.ChatEvent(completed=ANSWER)]
    await stream(mesh, as_json=True)
    assert capsys.readouterr().out == ""
    Output(as_json=True).result({"answer": ANSWER})
    assert json.loads(capsys.readouterr().out)["answer"]["sources"][0]["start_char"] == "5"


async def test_a_failed_answer_is_an_error_with_its_reason(mesh: Any) -> None:
    mesh.chat.events = [*DELTAS, pb.ChatEvent(failed=pb.RunFailed(reason="PROVIDER_TIMEOUT", message="too slow"))]
    with pytest.raises(CommandError, match="PROVIDER_TIMEOUT: too slow"):
        await stream(mesh)


async def test_a_stream_without_its_last_event_is_never_taken_for_a_whole_answer(mesh: Any) -> None:
    mesh.chat.events = DELTAS
    with pytest.raises(CommandError, match="without saying"):
        await stream(mesh)


async def test_a_refusal_names_the_public_reason(mesh: Any) -> None:
    mesh.chat.refuse_with = "AGENT_NOT_FOUND"
    with pytest.raises(CommandError, match="AGENT_NOT_FOUND: in words"), client.explained(mesh.url):
        await stream(mesh)


def test_asking_where_no_mesh_is_says_how_to_start_one(run: Run) -> None:
    (port,) = free_ports(1)
    status, _, error = run(["ask", "how?", "--url", f"http://127.0.0.1:{port}"])
    assert status == 3
    assert "scripts/up" in error


def test_files_are_refused_at_once_where_no_mesh_is(run: Run, tmp_path: Any) -> None:
    (tmp_path / "note.md").write_text("text")
    (port,) = free_ports(1)
    began = time.monotonic()
    assert run(["ingest", str(tmp_path / "note.md"), "--url", f"http://127.0.0.1:{port}"])[0] == 3
    assert time.monotonic() - began < PATIENCE_SECONDS / 2


def test_an_error_is_json_for_programs(run: Run) -> None:
    (port,) = free_ports(1)
    status, printed, _ = run(["search", "how?", "--json", "--url", f"127.0.0.1:{port}"])
    assert status == 3
    assert json.loads(printed)["error"]["reason"] == "UNREACHABLE"


def test_a_file_which_is_not_there_is_a_usage_error(run: Run) -> None:
    status, _, error = run(["ingest", "/no/such/file"])
    assert status == 2
    assert "no such file" in error


def test_a_question_that_is_no_text_is_a_usage_error(run: Run) -> None:
    status, printed, error = run(["search", os.fsdecode(b"caf\xe9"), "--json"])
    assert (status, json.loads(printed)["error"]["reason"]) == (2, "NOT_UTF8")
    assert error == "loremesh: caf\\xe9: not UTF-8\n"


def test_the_status_where_no_mesh_runs_is_one(run: Run) -> None:
    status, printed, _ = run(["status", "--json"])
    assert status == 1
    assert json.loads(printed)["phase"] == "stopped"


def test_stopping_nothing_is_no_failure(run: Run) -> None:
    assert run(["down", "--json"])[0] == 0


def test_logs_of_an_unknown_part_are_a_usage_error(run: Run) -> None:
    assert run(["logs", "nonsense"])[0] == 2


async def test_a_job_is_followed_through_a_cut_and_another_attempt(mesh: Any, capsys: Any) -> None:
    attempts = [
        pb.ChatEvent(seq=1, attempt=1, text_delta=pb.TextDelta(text="By ")),
        pb.ChatEvent(seq=2, attempt=2, run_started=pb.RunStarted()),
        pb.ChatEvent(seq=3, attempt=2, text_delta=pb.TextDelta(text=ANSWER.response)),
        pb.ChatEvent(seq=4, attempt=2, completed=ANSWER),
    ]
    mesh.chat_jobs.events, mesh.chat_jobs.cut_after = attempts, 2
    async with client.connect(mesh.url) as connected:
        assert await answers.follow(connected, "j1", output=Output(as_json=False)) == ANSWER
    assert mesh.chat_jobs.watches == [0, 2]
    assert "attempt 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (pb.ChatEvent(seq=1, failed=pb.RunFailed(reason="PROVIDER_REFUSED", message="no")), "PROVIDER_REFUSED"),
        (pb.ChatEvent(seq=1, cancelled=pb.RunCancelled()), "CANCELLED"),
    ],
)
async def test_a_job_without_an_answer_is_a_failure(mesh: Any, event: pb.ChatEvent, reason: str) -> None:
    mesh.chat_jobs.events = [event]
    async with client.connect(mesh.url) as connected:
        with pytest.raises(CommandError) as failed:
            await answers.follow(connected, "j1", output=Output(as_json=True))
    assert failed.value.reason == reason


async def test_asking_in_the_background_says_which_job_it_is(mesh: Any, run: Run) -> None:
    mesh.chat_jobs.events = [pb.ChatEvent(seq=1, attempt=1, completed=ANSWER)]
    status, out, _ = await asyncio.to_thread(run, ["ask", "how?", "--async", "--json", "--url", mesh.url])
    made, answer = map(json.loads, out.splitlines())
    assert (status, made["job_id"], answer["response"]) == (0, "j1", ANSWER.response)
    assert len(mesh.chat_jobs.keys) == 1
    status, out, _ = await asyncio.to_thread(run, ["chat-jobs", "--json", "--url", mesh.url])
    assert json.loads(out)["jobs"][0]["job_id"] == "j1"


def test_a_signal_wakes_a_command_that_waits() -> None:
    async def wakes() -> int:
        descriptor = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(descriptor)
        return descriptor

    assert client.run(wakes(), url="http://127.0.0.1:1") != -1
