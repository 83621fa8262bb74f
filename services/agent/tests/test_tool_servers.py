"""Tool servers as they are registered, shown, checked and used, on a real Postgres."""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from grpc import aio
from loremesh.agent.v1 import tool_pb2 as pb
from loremesh.agent.v1 import tool_pb2_grpc
from loremesh_agent.adapters.postgres_tool_servers import PostgresToolServers
from loremesh_agent.domain.tool_servers import Described, Kind, NewToolServer
from loremesh_agent.domain.tools import CallContext, Effect, ToolResult
from loremesh_agent.engine.operator_servers import NamedServer, OperatorServers
from loremesh_agent.engine.tool_checks import ToolChecks
from loremesh_agent.engine.tool_servers import ServerTools, ToolServers
from loremesh_agent.errors import (
    ToolNotFound,
    ToolServerExists,
    ToolServerInvalid,
    ToolServerNotFound,
    ToolServerReadOnly,
    ToolServerUnavailable,
    ToolUnavailable,
)
from loremesh_agent.ports import Claim
from loremesh_kit.channel import reason_of
from loremesh_kit.errors import IdempotencyConflict
from loremesh_kit.postgres import open_database
from loremesh_kit.settings import ServiceSettings
from loremesh_kit.telemetry.redaction import describe
from loremesh_kit.testing import DatabaseUrls, caller
from pydantic import SecretStr

from .mcp_double import Double, serving_mcp, tool
from .replicas import Mesh, until

pytestmark = pytest.mark.steelthread

CONTEXT = CallContext(run_id="run-1", agent_id="default", conversation_id="c", idempotency_key="key-1")
ECHO = Described(name="echo", description="Echoes.", input_schema={"type": "object"}, effect=Effect.READ_ONLY)
WIPE = replace(ECHO, name="wipe", effect=Effect.SIDE_EFFECTING)
WEB = NewToolServer(id="web", kind=Kind.MCP_HTTP, address="https://tools.example/mcp", token=SecretStr("s3cret"))
CLAIM = Claim(key="key", method="CreateToolServer", request_hash=b"1")


@dataclass
class Scripted:
    """A ToolServerClient whose servers all have the same tools."""

    tools: tuple[Described, ...] = (ECHO, WIPE)
    down: bool = False
    asleep: bool = False
    asked: list[str] = field(default_factory=list)
    called: list[tuple[str, str, Mapping[str, Any]]] = field(default_factory=list)

    def sleeps(self, server: NewToolServer) -> bool:
        return self.asleep

    async def describe(self, server: NewToolServer) -> tuple[Described, ...]:
        self.asked.append(server.id)
        if self.down:
            raise ToolServerUnavailable(server.id)
        return self.tools

    async def call(self, server: NewToolServer, tool: Described, arguments: Any, context: Any) -> ToolResult:
        self.called.append((server.token.get_secret_value(), tool.name, arguments))
        return ToolResult(content="done")


class Everything:
    """The use cases of one process."""

    def __init__(self, store: PostgresToolServers, named: Sequence[NamedServer] = ()) -> None:
        self.client = Scripted()
        clients = dict.fromkeys(Kind, self.client)
        self.operator = OperatorServers(named=named, store=store)
        self.servers = ToolServers(store=store, operator=self.operator, clients=clients)
        self.tools = ServerTools(servers=self.servers, clients=clients)
        self.checks = ToolChecks(store=store, operator=self.operator, clients=clients, interval=0)


@pytest.fixture
async def store(database_urls: DatabaseUrls) -> AsyncIterator[PostgresToolServers]:
    async with open_database(ServiceSettings(database_url=database_urls.plain)) as database:
        with caller():
            yield PostgresToolServers(database=database)


@pytest.fixture
def all_(store: PostgresToolServers) -> Everything:
    return Everything(store)


def named(fingerprint: str = "1", **fields: Any) -> NamedServer:
    return NamedServer(server=replace(WEB, **{"id": "ours", **fields}), fingerprint=fingerprint)


async def test_what_is_registered_is_offered_and_called_without_asking_again(all_: Everything) -> None:
    made = await all_.servers.create(WEB)
    assert (made.tools, made.healthy, made.changed) == ((ECHO, WIPE), True, frozenset())
    specs = await all_.tools.specs()
    assert [(each.name, each.effect, each.unavailable) for each in specs] == [
        ("web__echo", Effect.READ_ONLY, ""),
        ("web__wipe", Effect.SIDE_EFFECTING, ""),
    ]
    assert all(each.untrusted and each.tool_server_id == "web" for each in specs)
    found = await all_.tools.find("web__echo")
    assert (await found.call({"a": 1}, CONTEXT)).content == "done"
    assert all_.client.called == [("s3cret", "echo", {"a": 1})]
    assert all_.client.asked == ["web"]


@pytest.mark.parametrize("name", ["echo", "web__gone", "other__echo", "web", "__echo", "web__", "ours@1__echo"])
async def test_a_tool_that_is_not_there_is_not_found(all_: Everything, name: str) -> None:
    await all_.servers.create(WEB)
    with pytest.raises(ToolNotFound):
        await all_.tools.find(name)


async def test_what_a_server_describes_later_is_in_force_only_after_a_refresh(all_: Everything) -> None:
    await all_.servers.create(WEB)
    all_.client.tools = (replace(ECHO, description="Now it deletes."), replace(WIPE, name="new"))
    assert await all_.checks.check() == 1
    kept = await all_.servers.get("web")
    assert (kept.tools, kept.changed, kept.healthy) == ((ECHO, WIPE), {"echo", "wipe"}, True)
    assert [bool(each.unavailable) for each in await all_.tools.specs()] == [True, True]
    with pytest.raises(ToolUnavailable):
        await all_.tools.find("web__echo")
    refreshed = await all_.servers.refresh("web")
    assert (refreshed.tools, refreshed.changed) == (all_.client.tools, frozenset())
    assert [each.name for each in await all_.tools.specs()] == ["web__echo", "web__new"]
    assert refreshed.token.get_secret_value() == "s3cret"


async def test_a_tool_that_is_described_as_before_again_comes_back(all_: Everything) -> None:
    await all_.servers.create(WEB)
    all_.client.tools = ()
    await all_.checks.check()
    all_.client.tools = (ECHO, WIPE)
    await all_.checks.check()
    assert (await all_.servers.get("web")).changed == frozenset()


async def test_a_server_that_does_not_answer_is_unavailable_until_it_does(all_: Everything) -> None:
    await all_.servers.create(WEB)
    all_.client.down = True
    await all_.checks.check()
    assert not (await all_.servers.get("web")).healthy
    with pytest.raises(ToolUnavailable):
        await all_.tools.find("web__echo")
    assert "does not answer" in (await all_.tools.specs())[0].unavailable
    with pytest.raises(ToolServerUnavailable):
        await all_.servers.refresh("web")
    all_.client.down = False
    await all_.checks.check()
    assert (await all_.tools.find("web__echo")).spec.unavailable == ""


async def test_each_server_is_checked_by_one_of_many(store: PostgresToolServers) -> None:
    some = [Everything(store) for _ in range(4)]
    for n in range(6):
        await some[0].servers.create(replace(WEB, id=f"web-{n}"))
    some[0].client.asked.clear()
    for each in some:
        each.checks._interval = 600
    async with asyncio.TaskGroup() as group:
        for each in some:
            group.create_task(each.checks.check())
    assert sorted(asked for each in some for asked in each.client.asked) == [f"web-{n}" for n in range(6)]


async def test_tenants_know_nothing_of_each_other(all_: Everything) -> None:
    await all_.servers.create(WEB)
    with caller(tenant="globex"):
        assert list(await all_.servers.page(after="", limit=10)) == []
        assert list(await all_.tools.specs()) == []
        for denied in (all_.servers.get, all_.servers.refresh, all_.servers.delete):
            with pytest.raises(ToolServerNotFound):
                await denied("web")
        with pytest.raises(ToolNotFound):
            await all_.tools.find("web__echo")
        theirs = await all_.servers.create(replace(WEB, token=SecretStr("other")))
        assert theirs.token.get_secret_value() == "other"
        assert await all_.checks.check() == 2
    assert (await all_.servers.get("web")).token.get_secret_value() == "s3cret"


async def test_the_same_request_again_is_the_same_server(all_: Everything) -> None:
    made = await all_.servers.create(WEB, claim=CLAIM)
    all_.client.down = True
    assert await all_.servers.create(WEB, claim=CLAIM) == made
    with pytest.raises(IdempotencyConflict):
        await all_.servers.create(replace(WEB, id="b"), claim=replace(CLAIM, request_hash=b"2"))
    all_.client.down = False
    with pytest.raises(ToolServerExists):
        await all_.servers.create(WEB)


async def test_two_at_once_make_one(all_: Everything) -> None:
    async with asyncio.TaskGroup() as group:
        making = [group.create_task(all_.servers.create(WEB, claim=CLAIM)) for _ in range(4)]
    assert len({task.result().create_time for task in making}) == 1


async def test_what_cannot_be_described_is_not_kept(all_: Everything) -> None:
    all_.client.down = True
    with pytest.raises(ToolServerUnavailable):
        await all_.servers.create(WEB)
    with pytest.raises(ToolServerNotFound):
        await all_.servers.get("web")


async def test_a_tenant_has_so_many_servers_and_no_more(all_: Everything, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loremesh_agent.engine.tool_servers._MAX_SERVERS", 2)
    for n in range(2):
        await all_.servers.create(replace(WEB, id=f"web-{n}"))
    with pytest.raises(ToolServerInvalid):
        await all_.servers.create(WEB)


async def test_programs_are_the_operators(all_: Everything) -> None:
    with pytest.raises(ToolServerInvalid):
        await all_.servers.create(replace(WEB, kind=Kind.MCP_STDIO))
    assert all_.client.asked == []


async def test_the_operators_are_for_all_tenants_and_changed_by_none(store: PostgresToolServers) -> None:
    all_ = Everything(store, [named()])
    assert (await all_.servers.get("ours")).check_time is None
    await all_.checks.check()
    for tenant in ("acme", "globex"):
        with caller(tenant=tenant):
            shown = await all_.servers.get("ours")
            assert (shown.id, shown.tools, shown.create_time) == ("ours", (ECHO, WIPE), None)
            assert shown.token.get_secret_value() == "s3cret"
            assert [each.name for each in await all_.tools.specs()] == ["ours__echo", "ours__wipe"]
            for denied in (all_.servers.refresh, all_.servers.delete):
                with pytest.raises(ToolServerReadOnly):
                    await denied("ours")
            with pytest.raises(ToolServerExists):
                await all_.servers.create(replace(WEB, id="ours"))


async def test_the_operators_tools_are_pinned_for_all_processes_until_the_entry_changes(
    store: PostgresToolServers,
) -> None:
    first, second = Everything(store, [named()]), Everything(store, [named()])
    await first.checks.check()
    second.client.tools = (replace(ECHO, description="Now it deletes."),)
    await second.checks.check()
    kept = await first.servers.get("ours")
    assert (kept.tools, kept.changed) == ((ECHO, WIPE), {"echo", "wipe"})
    accepted = Everything(store, [named("2")])
    accepted.client.tools = second.client.tools
    await accepted.checks.check()
    assert (await accepted.servers.get("ours")).tools == second.client.tools
    assert (await first.servers.get("ours")).tools == (ECHO, WIPE)


async def test_a_program_that_sleeps_is_left_asleep_while_it_is_well(store: PostgresToolServers) -> None:
    all_ = Everything(store, [named()])
    await all_.checks.check()
    all_.client.asked.clear()
    all_.client.asleep = True
    await all_.checks.check()
    assert all_.client.asked == []


async def test_pages_show_the_operators_among_the_tenants(store: PostgresToolServers) -> None:
    all_ = Everything(store, [named(id="b"), named(id="d")])
    for server_id in ("a", "c", "e"):
        await all_.servers.create(replace(WEB, id=server_id))
    seen: list[str] = []
    while page := await all_.servers.page(after=seen[-1] if seen else "", limit=2):
        seen += [each.id for each in page]
    assert seen == ["a", "b", "c", "d", "e"]


async def test_a_tenants_server_gives_way_to_the_operators_of_the_same_name(store: PostgresToolServers) -> None:
    await Everything(store).servers.create(replace(WEB, id="ours", token=SecretStr("theirs")))
    all_ = Everything(store, [named()])
    (shown,) = await all_.servers.page(after="", limit=10)
    assert shown.token.get_secret_value() == "s3cret"


# Through gRPC.


@pytest.fixture
async def double() -> AsyncIterator[Double]:
    async with serving_mcp(Double()) as double:
        yield double


def wanted(double: Double, **fields: Any) -> pb.ToolServer:
    kind = pb.TOOL_SERVER_KIND_MCP_HTTP
    return pb.ToolServer(**{"id": "web", "kind": kind, "address": double.url, "token": "s3cret-canary", **fields})


async def test_a_server_is_registered_shown_refreshed_and_removed(
    mesh: Mesh, double: Double, database_urls: DatabaseUrls
) -> None:
    async with mesh.replica(tool_hosts="127.0.0.1:*") as replica:
        stub = tool_pb2_grpc.ToolServerServiceStub(replica.channel)
        request = pb.CreateToolServerRequest(tool_server=wanted(double))
        made = await stub.CreateToolServer(request, metadata=[("idempotency-key", "k")])
        again = await stub.CreateToolServer(request, metadata=[("idempotency-key", "k")])
        assert (again.create_time, again.id) == (made.create_time, "web")
        assert [each.name for each in made.tools] == ["web__echo"]
        assert made.tools[0].available
        double.tools = [tool("other")]
        refreshed = await stub.RefreshToolServer(pb.RefreshToolServerRequest(tool_server_id="web"))
        assert [each.name for each in refreshed.tools] == ["web__other"]
        shown = await stub.GetToolServer(pb.GetToolServerRequest(tool_server_id="web"))
        listed = await stub.ListToolServers(pb.ListToolServersRequest())
        assert [(each.id, list(each.tools)) for each in listed.tool_servers] == [("web", [])]
        told = "".join(map(str, (made, again, refreshed, shown, listed)))
        async with await psycopg.AsyncConnection.connect(database_urls.owner) as connection:
            await connection.execute("SELECT set_config('app.tenant', 'acme', true)")
            kept = await (await connection.execute("SELECT response FROM agent.idempotency")).fetchall()
            events = await (await connection.execute("SELECT data::text FROM agent.outbox")).fetchall()
        # The last is what a log says of a request.
        assert "canary" not in told + str(kept) + str(events) + describe(request)
        await stub.DeleteToolServer(pb.DeleteToolServerRequest(tool_server_id="web"))
        with pytest.raises(aio.AioRpcError) as raised:
            await stub.GetToolServer(pb.GetToolServerRequest(tool_server_id="web"))
        assert reason_of(raised.value) == "TOOL_SERVER_NOT_FOUND"


async def test_addresses_inside_are_forbidden_unless_the_operator_lists_them(mesh: Mesh, double: Double) -> None:
    async with mesh.replica() as replica:
        stub = tool_pb2_grpc.ToolServerServiceStub(replica.channel)
        address = "https://169.254.169.254/mcp"
        with pytest.raises(aio.AioRpcError) as raised:
            await stub.CreateToolServer(pb.CreateToolServerRequest(tool_server=wanted(double, address=address)))
        assert (raised.value.code(), reason_of(raised.value)) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "ADDRESS_FORBIDDEN",
        )
        with pytest.raises(aio.AioRpcError) as raised:
            await stub.CreateToolServer(pb.CreateToolServerRequest(tool_server=wanted(double)))
        assert reason_of(raised.value) == "TOOL_SERVER_INVALID"


async def test_the_operators_file_brings_programs(mesh: Mesh, tmp_path: Path) -> None:
    program = Path(__file__).parent / "mcp_program.py"
    arguments = [str(program), "", str(tmp_path / "log")]
    file = tmp_path / "tools.toml"
    file.write_text(f'[files]\nkind = "MCP_STDIO"\ncommand = "{sys.executable}"\nargs = {arguments}\n')
    async with mesh.replica(tool_servers_file=str(file)) as replica:
        stub = tool_pb2_grpc.ToolServerServiceStub(replica.channel)

        async def has_tools() -> bool:
            shown = await stub.GetToolServer(pb.GetToolServerRequest(tool_server_id="files"))
            return [each.name for each in shown.tools] == ["files__echo"]

        await until(has_tools)
        with pytest.raises(aio.AioRpcError) as raised:
            await stub.DeleteToolServer(pb.DeleteToolServerRequest(tool_server_id="files"))
        assert reason_of(raised.value) == "TOOL_SERVER_READ_ONLY"
