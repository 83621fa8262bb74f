"""MCP servers that are programs, in every mood."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from loremesh_agent.adapters import mcp_stdio, program
from loremesh_agent.adapters.mcp_stdio import McpPrograms
from loremesh_agent.domain.tool_servers import Kind, NewToolServer, Program
from loremesh_agent.domain.tools import CallContext, Effect
from loremesh_agent.errors import (
    ToolFailed,
    ToolNameClash,
    ToolServerInvalid,
    ToolServerUnavailable,
    ToolTimeout,
    ToolUnavailable,
)
from loremesh_kit.errors import DependencyUnavailable
from loremesh_kit.loops import background
from pydantic import SecretStr

from .mcp_double import until

pytestmark = [
    pytest.mark.unit,
    # asyncio now and then has not closed its end of a killed program's pipe when the loop is closed.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CONTEXT = CallContext(run_id="run-1", agent_id="default", conversation_id="c", idempotency_key="key-1")
Make = Callable[..., NewToolServer]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def make(log: Path) -> Make:
    def make(mood: str = "", **fields: Any) -> NewToolServer:
        arguments = (str(Path(__file__).parent / "mcp_program.py"), mood, str(log))
        environment = {"GIVEN": SecretStr("value")}
        named = Program(command=sys.executable, arguments=arguments, environment=environment)
        return NewToolServer(
            **{"id": "files", "kind": Kind.MCP_STDIO, "program": named, "timeout_seconds": 90.0, **fields}
        )

    return make


@pytest.fixture
async def programs(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[McpPrograms]:
    monkeypatch.setattr(mcp_stdio, "_FIRST_PAUSE", 0.0)
    monkeypatch.setattr(mcp_stdio, "_START_SECONDS", 90.0)
    monkeypatch.setattr(program, "_GOODBYE_SECONDS", 0.5)
    programs, stop = McpPrograms(), asyncio.Event()
    async with background() as group:
        group.create_task(programs.run(stop))
        await asyncio.sleep(0)
        yield programs
        stop.set()


async def call(programs: McpPrograms, server: NewToolServer, **arguments: Any) -> Any:
    (described,) = await programs.describe(server)
    return await programs.call(server, described, arguments, CONTEXT)


def noted(log: Path, word: str) -> list[str]:
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.removeprefix(word).strip() for line in lines if line.startswith(word)]


async def gone(pid: str) -> None:
    def is_gone() -> bool:
        try:
            return "zombie" in Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return True

    await until(is_gone)


@pytest.mark.parametrize("mood", ["", "sdk"])
async def test_a_program_starts_when_it_is_needed_and_serves_many_calls(
    programs: McpPrograms, make: Make, log: Path, mood: str
) -> None:
    server = make(mood)
    assert programs.sleeps(server)
    assert noted(log, "started") == []
    for text in ("one", "two"):
        assert (await call(programs, server, text=text)).content == text
    assert not programs.sleeps(server)
    assert len(noted(log, "started")) == 1


async def test_it_gets_the_environment_its_entry_names_and_nothing_else(programs: McpPrograms, make: Make) -> None:
    names = set((await call(programs, make("environment"))).content.split())
    assert names - {"LC_CTYPE"} == {"GIVEN"}


async def test_what_it_prints_beside_is_not_minded(programs: McpPrograms, make: Make) -> None:
    assert (await call(programs, make("babbles"), text="hello")).content == "hello"


@pytest.mark.parametrize("mood", ["dies", "floods", "raves"])
async def test_a_program_that_breaks_off_leaves_the_outcome_open_and_starts_again(
    programs: McpPrograms, make: Make, log: Path, mood: str
) -> None:
    with pytest.raises(DependencyUnavailable):
        await call(programs, make(mood))
    (first,) = noted(log, "started")
    await gone(first)
    await until(lambda: programs.sleeps(make(mood)))
    with pytest.raises(ToolFailed):
        await call(programs, make(mood, default_effect=Effect.READ_ONLY))
    assert len(noted(log, "started")) == len(noted(log, "called")) == 2


@pytest.mark.parametrize("mood", ["hangs", "stuck"])
async def test_a_call_that_hangs_ends_at_its_time(programs: McpPrograms, make: Make, log: Path, mood: str) -> None:
    server = make(mood)
    (described,) = await programs.describe(server)
    impatient = make(mood, timeout_seconds=0.5)
    with pytest.raises(ToolTimeout):
        await programs.call(impatient, described, {}, CONTEXT)
    assert len(noted(log, "called")) == 1


@pytest.mark.parametrize("mood", ["hangs", "stuck"])
async def test_an_abandoned_call_ends_within_a_second(programs: McpPrograms, make: Make, log: Path, mood: str) -> None:
    calling = asyncio.create_task(call(programs, make(mood)))
    await until(lambda: bool(noted(log, "called")))
    began = time.monotonic()
    calling.cancel()
    await asyncio.wait([calling])
    assert time.monotonic() - began < 1.0


async def test_one_call_that_hangs_does_not_hold_up_another(programs: McpPrograms, make: Make, log: Path) -> None:
    server = make("hangs")
    calling = asyncio.create_task(call(programs, server))
    await until(lambda: bool(noted(log, "called")))
    assert len(await programs.describe(server)) == 1
    calling.cancel()


async def test_a_tool_that_changes_is_not_called_any_more(programs: McpPrograms, make: Make, log: Path) -> None:
    server = make("changes")
    (described,) = await programs.describe(server)
    await programs.call(server, described, {}, CONTEXT)
    await until(lambda: programs._running["files"].tools is None)
    with pytest.raises(ToolUnavailable):
        await programs.call(server, described, {}, CONTEXT)
    assert len(noted(log, "called")) == 1


@pytest.mark.parametrize(("mood", "error"), [("twice", ToolNameClash), ("many", ToolServerInvalid)])
async def test_what_no_agent_could_use_is_refused(programs: McpPrograms, make: Make, mood: str, error: type) -> None:
    with pytest.raises(error):
        await programs.describe(make(mood))


async def test_a_program_that_does_not_start_is_not_started_over_and_over(
    programs: McpPrograms, make: Make, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_stdio, "_FIRST_PAUSE", 600.0)
    for _ in range(3):
        with pytest.raises(ToolServerUnavailable):
            await programs.describe(make("broken"))
    assert len(noted(log, "started")) == 1


async def test_a_program_that_is_not_there_is_unavailable(programs: McpPrograms, make: Make) -> None:
    missing = make(program=Program(command="/nowhere/program"))
    with pytest.raises(ToolServerUnavailable):
        await programs.describe(missing)


async def test_a_program_that_never_answers_is_unavailable(
    programs: McpPrograms, make: Make, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_stdio, "_START_SECONDS", 1.0)
    with pytest.raises(ToolServerUnavailable):
        await programs.describe(make("mute"))


@pytest.mark.parametrize("mood", ["parent", "mute", "stuck"])
async def test_programs_and_their_children_end_with_the_service(
    make: Make, log: Path, monkeypatch: pytest.MonkeyPatch, mood: str
) -> None:
    monkeypatch.setattr(program, "_GOODBYE_SECONDS", 0.5)
    programs, stop = McpPrograms(), asyncio.Event()
    async with background() as group:
        group.create_task(programs.run(stop))
        await asyncio.sleep(0)
        asking = group.create_task(call(programs, make(mood)))
        await until(lambda: bool(noted(log, "called" if mood != "mute" else "started")))
        asking.cancel()
        stop.set()
    for pid in noted(log, "started") + noted(log, "child"):
        await gone(pid)


async def test_without_its_worker_nothing_is_started(make: Make, log: Path) -> None:
    with pytest.raises(ToolServerUnavailable):
        await McpPrograms().describe(make())
    assert noted(log, "started") == []
