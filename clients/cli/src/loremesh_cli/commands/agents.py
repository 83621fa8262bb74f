"""`agents list|get|create|update|delete|revisions|rollback`."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar
from uuid import uuid4

import typer
from google.protobuf.field_mask_pb2 import FieldMask
from loremesh.agent.v1 import agent_pb2 as pb
from rich.table import Column, Table

from loremesh_cli import agent_files, client
from loremesh_cli.commands.options import AsJson, Url, url_of
from loremesh_cli.errors import UsageError
from loremesh_cli.output import Output

PAGE_SIZE = 200

app = typer.Typer(no_args_is_help=True, help="Lists, shows, makes, changes and deletes agents.")

T = TypeVar("T")

AgentId = Annotated[str, typer.Argument(metavar="AGENT", help="Its id.")]
File = Annotated[
    Path | None,
    typer.Option("--file", "-f", help="JSON, YAML or TOML with its fields; - for standard input. Options go before."),
]
Name = Annotated[str | None, typer.Option(help="Its name, for people.")]
Description = Annotated[str | None, typer.Option(help="What it is for.")]
Model = Annotated[str | None, typer.Option(help="The model, as provider/model.")]
Instructions = Annotated[str | None, typer.Option(help="What the model is told first.")]
Prompt = Annotated[str | None, typer.Option(help="The kept prompt that the model is told, in place of instructions.")]
Language = Annotated[str, typer.Option(help="The prompt's language.")]
Variables = Annotated[list[str], typer.Option("--variable", metavar="NAME=VALUE", help="A variable of the prompt.")]
Tools = Annotated[list[str], typer.Option("--tool", help="A tool it may use; may be given several times.")]
Stores = Annotated[list[str], typer.Option("--store", help="A vector store it searches; may be given several times.")]
Temperature = Annotated[float | None, typer.Option(help="Randomness, 0 to 2.")]
TopK = Annotated[int | None, typer.Option(help="Passages an answer is made from, 0 to 50.")]
Etag = Annotated[str, typer.Option(help="Only if nobody changed it since: the etag that was read.")]
Limit = Annotated[int, typer.Option(min=1, help="How many at most.")]


@app.command("list")
def list_(*, limit: Limit = 50, url: Url = "", as_json: AsJson = False) -> None:
    """List agents, `default` first."""
    output, request, found = Output(as_json=as_json), pb.ListAgentsRequest(), list[pb.Agent]()

    async def work(mesh: client.Mesh) -> None:
        while len(found) < limit:
            request.page_size = min(PAGE_SIZE, limit - len(found))
            page = await mesh.agents.ListAgents(request, timeout=client.UNARY_SECONDS)
            found.extend(page.agents)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break

    _run(work, url=url)
    output.result({"agents": found})
    _table(found, output=output)


@app.command()
def get(
    agent_id: AgentId,
    *,
    revision: Annotated[int, typer.Option(min=0, help="As it was in this revision.")] = 0,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Show an agent as YAML, which `create` and `update` take as a file."""
    request = pb.GetAgentRequest(agent_id=agent_id, revision=revision)
    found = _run(lambda mesh: mesh.agents.GetAgent(request, timeout=client.UNARY_SECONDS), url=url)
    output = Output(as_json=as_json)
    output.result(found)
    output.console.print(agent_files.show(found), markup=False, emoji=False, soft_wrap=True)


@app.command()
def create(
    agent_id: Annotated[str, typer.Argument(metavar="[AGENT]", help="Its id; one is made if none.")] = "",
    *,
    file: File = None,
    name: Name = None,
    description: Description = None,
    model: Model = None,
    instructions: Instructions = None,
    prompt: Prompt = None,
    language: Language = "",
    variable: Variables = [],  # noqa: B006 - typer's way, as all here
    tool: Tools = [],  # noqa: B006
    store: Stores = [],  # noqa: B006
    temperature: Temperature = None,
    top_k: TopK = None,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Make an agent of a file, of options, or of both."""
    fields = agent_files.read(file) if file else {}
    fields |= _options(
        name=name,
        description=description,
        model=model,
        system_prompt=instructions,
        temperature=temperature,
        top_k_documents=top_k,
        tools=tool,
        stores=store,
    )
    fields |= _prompt(prompt, language, variable) | ({"id": agent_id} if agent_id else {})
    request = pb.CreateAgentRequest(agent=agent_files.parse(fields))
    key = [("idempotency-key", str(uuid4()))]
    made = _run(
        lambda mesh: mesh.agents.CreateAgent(request, metadata=key, timeout=client.UNARY_SECONDS),
        url=url,
    )
    _tell(made, as_json=as_json)


@app.command()
def update(
    agent_id: AgentId,
    *,
    file: File = None,
    name: Name = None,
    description: Description = None,
    model: Model = None,
    instructions: Instructions = None,
    prompt: Prompt = None,
    language: Language = "",
    variable: Variables = [],  # noqa: B006
    tool: Tools = [],  # noqa: B006
    store: Stores = [],  # noqa: B006
    temperature: Temperature = None,
    top_k: TopK = None,
    clear: Annotated[list[str], typer.Option("--clear", help="A field to unset; may be given several times.")] = [],  # noqa: B006
    etag: Etag = "",
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Change the fields that a file or options name; the others stay. A file's etag counts as --etag."""
    fields = agent_files.read(file) if file else {}
    fields |= _options(
        name=name,
        description=description,
        model=model,
        system_prompt=instructions,
        temperature=temperature,
        top_k_documents=top_k,
        tools=tool,
        stores=store,
    )
    fields |= _prompt(prompt, language, variable) | ({"etag": etag} if etag else {})
    mask = sorted({*fields.keys() - {"id", "etag"}, *clear})
    if not mask:
        raise UsageError("nothing to change: give --file, options or --clear", reason="NOTHING_TO_CHANGE")
    kept = {key: value for key, value in fields.items() if key not in clear}
    agent = agent_files.parse({**kept, "id": agent_id})
    request = pb.UpdateAgentRequest(agent=agent, update_mask=FieldMask(paths=mask))
    changed = _run(lambda mesh: mesh.agents.UpdateAgent(request, timeout=client.UNARY_SECONDS), url=url)
    _tell(changed, as_json=as_json)


@app.command()
def delete(agent_id: AgentId, *, url: Url = "", as_json: AsJson = False) -> None:
    """Delete an agent; `default` becomes what it was at first."""
    request = pb.DeleteAgentRequest(agent_id=agent_id)
    _run(lambda mesh: mesh.agents.DeleteAgent(request, timeout=client.UNARY_SECONDS), url=url)
    output = Output(as_json=as_json)
    output.result({"deleted": agent_id})
    output.say(f"{agent_id} is deleted")


@app.command()
def revisions(agent_id: AgentId, *, limit: Limit = 50, url: Url = "", as_json: AsJson = False) -> None:
    """List what an agent was, newest first."""
    output, found = Output(as_json=as_json), list[pb.Agent]()
    request = pb.ListAgentRevisionsRequest(agent_id=agent_id)

    async def work(mesh: client.Mesh) -> None:
        while len(found) < limit:
            request.page_size = min(PAGE_SIZE, limit - len(found))
            page = await mesh.agents.ListAgentRevisions(request, timeout=client.UNARY_SECONDS)
            found.extend(page.revisions)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break

    _run(work, url=url)
    output.result({"revisions": found})
    _table(found, output=output)


@app.command()
def rollback(
    agent_id: AgentId,
    revision: Annotated[int, typer.Argument(min=1, help="The revision to go back to.")],
    *,
    etag: Etag = "",
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Make an old revision the current one again, as a new one."""
    request = pb.RollbackAgentRequest(agent_id=agent_id, revision=revision, etag=etag)
    changed = _run(lambda mesh: mesh.agents.RollbackAgent(request, timeout=client.UNARY_SECONDS), url=url)
    _tell(changed, as_json=as_json)


def _run(work: Callable[[client.Mesh], Awaitable[T]], *, url: str) -> T:
    return client.call(work, url=url_of(url))


def _options(*, tools: list[str], stores: list[str], **fields: str | float | None) -> dict[str, Any]:
    """The fields that were given."""
    given = {
        **fields,
        "tools": [{"name": tool} for tool in tools] or None,
        "vector_store_ids": stores or None,
    }
    return {field: value for field, value in given.items() if value is not None}


def _prompt(name: str | None, language: str, variables: list[str]) -> dict[str, Any]:
    if name is None:
        if language or variables:
            raise UsageError("--language and --variable belong to a --prompt", reason="OPTIONS_INCOMPLETE")
        return {}
    if unequal := [each for each in variables if "=" not in each]:
        raise UsageError(f"write a variable as NAME=VALUE, not {unequal[0]!r}", reason="VARIABLE_INVALID")
    return {"prompt": {"name": name, "language": language, "variables": dict(each.split("=", 1) for each in variables)}}


def _tell(agent: pb.Agent, *, as_json: bool) -> None:
    output = Output(as_json=as_json)
    output.result(agent)
    output.say(f"{agent.id}, revision {agent.revision}")


def _table(agents: list[pb.Agent], *, output: Output) -> None:
    table = Table(Column("id", min_width=7), "revision", "name", "model", "tools", "changed", box=None)
    for agent in agents:
        changed = f"{agent.update_time.ToDatetime():%Y-%m-%d %H:%M:%S}" if agent.HasField("update_time") else "built in"
        tools = ", ".join(tool.name for tool in agent.tools)
        table.add_row(agent.id, str(agent.revision), agent.name, agent.model or "the default", tools, changed)
    output.console.print(table)
