"""What the operator may write of tool servers."""

from pathlib import Path

import pytest
from loremesh_agent.adapters import tool_server_file
from loremesh_agent.adapters.tool_hosts import ToolHosts
from loremesh_agent.domain.tool_servers import Kind
from loremesh_agent.domain.tools import Effect
from loremesh_agent.settings import AgentSettings
from pydantic import ValidationError

pytestmark = pytest.mark.unit

FILE = """
[github]
kind = "MCP_STDIO"
command = "github-mcp"
args = ["--read-only"]
env = ["GITHUB_TOKEN"]

[orders]
kind = "GRPC"
address = "orders.internal:7000"
token_env = "ORDERS_TOKEN"
default_effect = "READ_ONLY"
timeout_seconds = 5
"""
ENVIRONMENT = {"GITHUB_TOKEN": "gh-secret", "ORDERS_TOKEN": "o-secret", "PATH": "/bin", "DATABASE_URL": "secret"}


def read(tmp_path: Path, text: str) -> dict[str, tool_server_file.NamedServer]:
    path = tmp_path / "tools.toml"
    path.write_text(text)
    return {each.server.id: each for each in tool_server_file.read(str(path), environment=ENVIRONMENT)}


def test_programs_and_servers_are_named_and_secrets_come_from_the_environment(tmp_path: Path) -> None:
    servers = read(tmp_path, FILE)
    program = servers["github"].server.program
    assert program is not None
    assert (program.command, program.arguments) == ("github-mcp", ("--read-only",))
    given = {name: value.get_secret_value() for name, value in program.environment.items()}
    assert given == {"GITHUB_TOKEN": "gh-secret", "PATH": "/bin"}
    orders = servers["orders"].server
    assert (orders.kind, orders.default_effect, orders.timeout_seconds) == (Kind.GRPC, Effect.READ_ONLY, 5)
    assert orders.token.get_secret_value() == "o-secret"
    assert "secret" not in repr(servers)


def test_an_entry_is_another_when_anything_of_it_changes_but_a_secret(tmp_path: Path) -> None:
    before = read(tmp_path, FILE)
    assert read(tmp_path, FILE) == before
    after = read(tmp_path, FILE.replace("[orders]", 'version = "2"\n[orders]'))
    assert after["github"].fingerprint != before["github"].fingerprint
    assert after["orders"].fingerprint == before["orders"].fingerprint


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[a", "cannot be read"),
        ("a = 1", r"\[a\]"),
        ("[A]\nkind = 'GRPC'\naddress = 'a:1'", "lower-case"),
        ("[a]\nkind = 'GRPC'", "address"),
        ("[a]\nkind = 'GRPC'\ncommand = 'x'", "address"),
        ("[a]\nkind = 'MCP_STDIO'\naddress = 'a:1'", "command"),
        ("[a]\nkind = 'SOAP'\naddress = 'a:1'", "kind"),
        ("[a]\nkind = 'GRPC'\naddress = 'a:1'\ncolour = 'red'", "colour"),
        ("[a]\nkind = 'GRPC'\naddress = 'a:1'\ntimeout_seconds = 0", "timeout_seconds"),
        ("[a]\nkind = 'MCP_STDIO'\ncommand = 'x'\nenv = ['MISSING']", "MISSING"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read(tmp_path, text)


def test_a_file_that_is_not_there_keeps_the_service_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RETRIEVAL_TARGET", "INGESTION_TARGET", "LOCAL_MODEL_URL"):
        monkeypatch.setenv(name, "127.0.0.1:1")
    with pytest.raises(ValidationError, match="tool servers' file"):
        AgentSettings(tool_servers_file="/nowhere/tools.toml")
    with pytest.raises(ValidationError, match="neither host:port"):
        AgentSettings(tool_hosts="tools.internal")
    assert AgentSettings().named_tool_servers() == []


def test_hosts_are_listed_with_a_port_or_all_of_them() -> None:
    hosts = ToolHosts.parse("tools.internal:7000, 127.0.0.1:*, [::1]:80")
    assert hosts.lists("Tools.Internal", 7000)
    assert not hosts.lists("tools.internal", 7001)
    assert hosts.lists("127.0.0.1", 1)
    assert hosts.lists("::1", 80)
    assert not hosts.lists("internal", 7000)
