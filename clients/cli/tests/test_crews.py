"""`crew` and `flow`: of files and inputs, and what is asked of the mesh."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.json_format import MessageToDict
from loremesh.crew.v1 import crew_pb2, flow_pb2

pytestmark = pytest.mark.unit

Run = Callable[[list[str]], tuple[int, str, str]]
CREW = {"id": "c", "agents": [{"name": "ada"}], "tasks": [{"name": "t", "description": "Do {x}."}]}
FLOW = {"id": "f", "states": [{"id": "s", "initial": True, "final": True}]}


async def asked(mesh: Any, run: Run, *arguments: str) -> tuple[int, str, str]:
    return await asyncio.to_thread(run, [*arguments, "--url", mesh.url])


@pytest.mark.parametrize(("kind", "fields"), [("crew", CREW), ("flow", FLOW)])
async def test_what_get_prints_can_be_created_again(
    mesh: Any, run: Run, tmp_path: Path, kind: str, fields: dict[str, Any]
) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(yaml.safe_dump(fields))
    kept = getattr(mesh, f"{kind}s")
    assert (await asked(mesh, run, kind, "create", str(path)))[:2] == (0, f"{fields['id']}, revision 1\n")
    path.write_text((await asked(mesh, run, kind, "get", fields["id"]))[1])
    assert (await asked(mesh, run, kind, "create", str(path), "--id", "again"))[0] == 0
    again = MessageToDict(kept.kept["again"], preserving_proto_field_name=True)
    assert {**again, "id": fields["id"]} == {**fields, "revision": "1"}
    assert len(set(kept.keys)) == 2
    assert (await asked(mesh, run, kind, "delete", "again"))[0] == 0
    assert list(kept.kept) == [fields["id"]]
    status, out, _ = await asked(mesh, run, kind, "get", "none", "--json")
    assert (status, json.loads(out)["error"]["reason"]) == (1, f"{kind.upper()}_NOT_FOUND")


@pytest.mark.parametrize(("kind", "fields"), [("crew", CREW), ("flow", FLOW)])
async def test_what_is_wrong_with_a_file_is_said_without_keeping_it(
    mesh: Any, run: Run, tmp_path: Path, kind: str, fields: dict[str, Any]
) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps(fields))
    service = getattr(mesh, f"{kind}s")
    assert (await asked(mesh, run, kind, "create", str(path), "--check"))[0] == 0
    service.violations = [crew_pb2.Violation(field="tasks[0].agent", reason="AGENT_UNKNOWN", description="Who?")]
    status, out, error = await asked(mesh, run, kind, "create", str(path), "--check")
    assert status == 1
    assert "tasks[0].agent: AGENT_UNKNOWN: Who?" in out
    assert "1 faults" in error
    assert service.kept == {}


async def test_crews_and_flows_are_listed_over_all_pages(mesh: Any, run: Run) -> None:
    for name in ("research", "mine"):
        mesh.crews.kept[name] = crew_pb2.Crew(id=name, built_in=name == "research")
        mesh.flows.kept[name] = flow_pb2.Flow(id=name)
    _, out, _ = await asked(mesh, run, "crew", "list", "--json")
    assert [each["id"] for each in json.loads(out)["crews"]] == ["research", "mine"]
    assert "built in" in (await asked(mesh, run, "crew", "list"))[1]
    _, out, _ = await asked(mesh, run, "flow", "list", "--json", "--limit", "1")
    assert [each["id"] for each in json.loads(out)["flows"]] == ["research"]
    assert "mine" in (await asked(mesh, run, "flow", "list"))[1]


@pytest.mark.parametrize("place", ["", "config", "src/demo/config"])
async def test_a_crewai_project_is_imported_from_where_its_files_are(
    mesh: Any, run: Run, tmp_path: Path, place: str
) -> None:
    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agents.yaml").write_text("a: {}")
    (folder / "tasks.yaml").write_text("t: {}")
    made = await asked(mesh, run, "crew", "import", str(tmp_path), "--id", "demo", "--process", "hierarchical")
    assert made[:2] == (0, "demo, revision 1\n")
    assert (await asked(mesh, run, "crew", "import", str(tmp_path), "--check"))[0] == 0
    first, second = mesh.crews.imports
    hierarchical, sequential = crew_pb2.PROCESS_HIERARCHICAL, crew_pb2.PROCESS_SEQUENTIAL
    assert (first.agents_yaml, first.tasks_yaml, first.process) == ("a: {}", "t: {}", hierarchical)
    assert (first.validate_only, second.validate_only, second.process) == (False, True, sequential)


async def test_inputs_come_from_options_files_and_the_example_in_this_order(
    mesh: Any, run: Run, tmp_path: Path
) -> None:
    crew = crew_pb2.Crew(id="c")
    crew.example_inputs.update({"a": "example", "b": "example", "c": "example", "d": {"e": 1}})
    mesh.crews.kept["c"] = crew
    (tmp_path / "inputs.yaml").write_text("b: file\nc: 3\n")
    (tmp_path / "code.py").write_text("x = {}\n")
    given = ["--input", "b=an=option", "-i", f"code=@{tmp_path / 'code.py'}", "--inputs", str(tmp_path / "inputs.yaml")]
    status, out, _ = await asked(mesh, run, "crew", "run", "c", "--example", "--detach", *given, "--json")
    assert (status, json.loads(out)["id"]) == (0, "r1")
    (kickoff,) = mesh.crews.kickoffs
    wanted = {"a": "example", "b": "an=option", "c": 3, "d": {"e": 1}, "code": "x = {}\n"}
    assert MessageToDict(kickoff.inputs) == wanted
    assert len(mesh.crews.keys) == 1


async def test_a_flow_runs_with_its_example(mesh: Any, run: Run) -> None:
    mesh.flows.kept["f"] = flow_pb2.Flow(id="f")
    mesh.flows.kept["f"].example_inputs.update({"a": "example"})
    status, out, err = await asked(mesh, run, "flow", "run", "f", "--example", "--detach", "--revision", "2")
    assert (status, out) == (0, "r1\n")
    assert "run watch r1" in err
    (kickoff,) = mesh.flows.kickoffs
    assert (MessageToDict(kickoff.inputs), kickoff.revision) == ({"a": "example"}, 2)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["crew", "run", "c", "--input", "topic"], "INPUT_INVALID"),
        (["crew", "run", "c", "--input", "=x"], "INPUT_INVALID"),
        (["crew", "run", "c", "--input", "x=@/no/such/file"], "FILE_INVALID"),
        (["flow", "run", "c", "--inputs", "/no/such/file"], "FILE_INVALID"),
        (["crew", "create", "/no/such/file"], "FILE_INVALID"),
        (["crew", "import", "/no/such/folder"], "FILE_INVALID"),
    ],
)
async def test_what_is_asked_wrongly_is_said_before_anything_is_sent(
    mesh: Any, run: Run, arguments: list[str], reason: str
) -> None:
    status, out, _ = await asked(mesh, run, *arguments, "--json")
    assert (status, json.loads(out)["error"]["reason"]) == (2, reason)
    assert (mesh.crews.kickoffs, mesh.flows.kickoffs, mesh.crews.kept) == ([], [], {})


async def test_a_file_that_is_no_crew_says_why(mesh: Any, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "crew.yaml"
    path.write_text("colour: red")
    status, _, error = await asked(mesh, run, "crew", "create", str(path))
    assert status == 2
    assert "colour" in error
