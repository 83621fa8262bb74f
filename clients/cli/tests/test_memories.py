"""What `loremesh memories` asks for and prints."""

import asyncio
import json
from typing import Any

import pytest
from loremesh.agent.v1 import memory_pb2 as pb
from loremesh_cli.main import main

pytestmark = pytest.mark.unit


@pytest.fixture
def run(mesh: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["loremesh", "memories", *arguments, "--url", mesh.url])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    async def in_thread(*arguments: str) -> tuple[int, str, str]:
        return await asyncio.to_thread(command, *arguments)

    return in_thread


async def test_a_fact_is_added_once_and_found(mesh: Any, run: Any) -> None:
    fact = ("add", "She lives in Genoa.", "--user", "ada", "--subject", "Ada", "--attribute", "home", "--ttl", "60")
    assert (await run(*fact))[:2] == (0, "m0: remembered\n")
    assert (await run(*fact))[1] == "m0: known already\n"
    request = mesh.memories.asked[0]
    assert request.memory.scope == pb.MemoryScope(user_id="ada")
    assert (request.memory.kind, request.memory.attribute) == (pb.MEMORY_KIND_LONG_TERM, "home")
    assert request.ttl.seconds == 60
    await run("add", "She is in a hurry.", "--conversation", "c")
    assert mesh.memories.asked[-1].memory.kind == pb.MEMORY_KIND_SHORT_TERM
    assert not mesh.memories.asked[-1].HasField("ttl")
    _, out, _ = await run("search", "home?", "--user", "ada", "--agent", "scout", "--words-only")
    assert out.startswith("0.50  She lives in Genoa.  (m0)\n")
    asked = mesh.memories.asked[-1]
    assert (asked.scope.agent_id, asked.words_only, asked.top_k) == ("scout", True, 5)


async def test_all_pages_are_listed(mesh: Any, run: Any) -> None:
    mesh.memories.kept = [pb.Memory(id=f"m{number}", content=f"Fact {number}.") for number in range(3)]
    _, out, _ = await run("list", "--json", "--past", "--limit", "9")
    assert [each["id"] for each in json.loads(out)["memories"]] == ["m0", "m1", "m2"]
    assert mesh.memories.asked[-1].show_past
    assert not mesh.memories.asked[-1].HasField("scope")
    _, out, _ = await run("list", "--limit", "2", "--user", "ada")
    assert "Fact 1." in out
    assert "Fact 2." not in out
    assert mesh.memories.asked[-1].scope == pb.MemoryScope(user_id="ada")


async def test_one_is_explained_with_what_took_its_place(mesh: Any, run: Any) -> None:
    mesh.memories.kept = [pb.Memory(id="m0", content="Genoa."), pb.Memory(id="m1", content="Pisa.")]
    _, out, _ = await run("explain", "m0")
    assert out == "Genoa.  (superseded)\n  said: I moved.\n  now: Pisa.  (m1)\n"
    status, _, err = await run("explain", "nothing")
    assert status == 1
    assert "MEMORY_NOT_FOUND" in err


async def test_forgetting_names_one_memory_or_a_scope(mesh: Any, run: Any) -> None:
    mesh.memories.kept = [pb.Memory(id="m0")]
    assert (await run("forget", "m0"))[1] == "1 forgotten, receipt r1\n"
    assert mesh.memories.asked[-1] == pb.ForgetMemoriesRequest(memory_id="m0")
    await run("forget", "--user", "ada")
    assert mesh.memories.asked[-1] == pb.ForgetMemoriesRequest(scope=pb.MemoryScope(user_id="ada"))
    for wrong in ((), ("m0", "--user", "ada")):
        status, _, err = await run("forget", *wrong)
        assert status == 2
        assert "name a memory" in err
    assert len(mesh.memories.asked) == 2
