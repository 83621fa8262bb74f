"""`agents`: of files and options, and what is asked of the mesh."""

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from loremesh.agent.v1 import agent_pb2 as pb
from loremesh.agent.v1 import chat_pb2
from loremesh_cli.main import main

pytestmark = pytest.mark.unit

Run = Callable[[Sequence[str]], Any]
FIELDS = {"name": "Ada", "tools": [{"name": "search", "approval": "APPROVAL_POLICY_ALWAYS"}], "topKDocuments": 0}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, mesh: Any) -> Run:
    def command(arguments: Sequence[str]) -> tuple[int, str, str]:
        monkeypatch.setenv("LOREMESH_HOME", str(tmp_path / "home"))
        monkeypatch.setattr("sys.argv", ["loremesh", *arguments, "--url", mesh.url])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    async def away(arguments: Sequence[str]) -> tuple[int, str, str]:
        return await asyncio.to_thread(command, arguments)

    return away


async def test_an_agent_is_made_of_options(mesh: Any, run: Run) -> None:
    options = ["--model", "local/m", "--prompt", "support", "--language", "th", "--variable", "company=A=B"]
    status, out, _ = await run(
        ["agents", "create", "ada", *options, "--tool", "search", "--store", "s", "--top-k", "0"]
    )
    assert (status, out) == (0, "ada, revision 1\n")
    made = mesh.agents.kept["ada"]
    assert (made.model, made.prompt.language, dict(made.prompt.variables)) == ("local/m", "th", {"company": "A=B"})
    assert ([tool.name for tool in made.tools], list(made.vector_store_ids)) == (["search"], ["s"])
    assert (made.HasField("top_k_documents"), made.HasField("temperature")) == (True, False)
    assert len(mesh.agents.keys) == 1


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".toml"])
async def test_an_agent_is_made_of_a_file_and_options_go_before_it(
    mesh: Any, run: Run, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"agent{suffix}"
    toml = 'name = "Ada"\ntop_k_documents = 0\n[[tools]]\nname = "search"\napproval = "APPROVAL_POLICY_ALWAYS"\n'
    path.write_text({".json": json.dumps(FIELDS), ".yaml": yaml.safe_dump(FIELDS), ".toml": toml}[suffix])
    status, out, _ = await run(["agents", "create", "--file", str(path), "--name", "Bea", "--json"])
    assert (status, json.loads(out)["id"]) == (0, "made")
    tool = pb.ToolUse(name="search", approval=pb.APPROVAL_POLICY_ALWAYS)
    expected = pb.Agent(id="made", name="Bea", tools=[tool], top_k_documents=0, revision=1, etag="1")
    assert mesh.agents.kept["made"] == expected


async def test_what_get_prints_can_be_changed_and_put_back(mesh: Any, run: Run, tmp_path: Path) -> None:
    kept = pb.Agent(
        id="ada", name="Ada", system_prompt="Line\nline: ก :warning: [b]", revision=4, etag="4", temperature=0
    )
    kept.create_time.GetCurrentTime()
    mesh.agents.kept["ada"] = kept
    path = tmp_path / "ada.yaml"
    path.write_text((await run(["agents", "get", "ada"]))[1])
    status, out, _ = await run(["agents", "update", "ada", "--file", str(path), "--clear", "name"])
    assert (status, out) == (0, "ada, revision 2\n")
    (asked,) = mesh.agents.updates
    assert list(asked.update_mask.paths) == ["name", "system_prompt", "temperature"]
    assert asked.agent == pb.Agent(id="ada", system_prompt="Line\nline: ก :warning: [b]", etag="4", temperature=0)


async def test_agents_and_revisions_are_listed(mesh: Any, run: Run) -> None:
    for name in ("default", "ada"):
        mesh.agents.kept[name] = pb.Agent(id=name, revision=1)
    status, out, _ = await run(["agents", "list", "--json"])
    assert (status, [each["id"] for each in json.loads(out)["agents"]]) == (0, ["default", "ada"])
    assert "built in" in (await run(["agents", "list"]))[1]
    assert len(json.loads((await run(["agents", "list", "--limit", "1", "--json"]))[1])["agents"]) == 1
    status, out, _ = await run(["agents", "revisions", "ada", "--json"])
    assert (status, len(json.loads(out)["revisions"])) == (0, 1)


async def test_an_agent_is_taken_back_and_deleted(mesh: Any, run: Run) -> None:
    mesh.agents.kept["ada"] = pb.Agent(id="ada")
    assert (await run(["agents", "rollback", "ada", "1", "--etag", "2"]))[:2] == (0, "ada, revision 3\n")
    assert mesh.agents.rollbacks == [pb.RollbackAgentRequest(agent_id="ada", revision=1, etag="2")]
    assert (await run(["agents", "delete", "ada"]))[0] == 0
    assert mesh.agents.kept == {}
    status, _, error = await run(["agents", "get", "ada"])
    assert status == 1
    assert "AGENT_NOT_FOUND" in error


@pytest.mark.parametrize(
    ("text", "arguments", "wrong"),
    [
        ("- a", ["create", "--file", "FILE"], "fields of an agent"),
        ("{a: b", ["create", "--file", "FILE"], "cannot be read"),
        ("colour: red", ["create", "--file", "FILE"], "colour"),
        ("name: 3", ["create", "--file", "FILE"], "no agent"),
        ("", ["create", "--file", "/no/such/file"], "cannot be read"),
        ("", ["create", "--variable", "a=b"], "--prompt"),
        ("", ["create", "--prompt", "answer", "--variable", "a"], "NAME=VALUE"),
        ("", ["update", "ada"], "nothing to change"),
    ],
)
async def test_what_is_asked_wrongly_is_said_before_anything_is_sent(
    mesh: Any, run: Run, tmp_path: Path, text: str, arguments: list[str], wrong: str
) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(text)
    status, _, error = await run(["agents", *(str(path) if each == "FILE" else each for each in arguments)])
    assert status == 2
    assert wrong in error
    assert (mesh.agents.kept, mesh.agents.updates) == ({}, [])


async def test_another_agent_can_be_asked(mesh: Any, run: Run) -> None:
    mesh.chat.events = [chat_pb2.ChatEvent(completed=chat_pb2.ChatResponse(response="Yes."))]
    assert (await run(["ask", "how?", "--agent", "ada"]))[0] == 0
    assert mesh.chat.requests[0].agent_id == "ada"
