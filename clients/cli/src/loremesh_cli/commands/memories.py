"""`memories list|search|add|forget|explain`."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import typer
from google.protobuf.duration_pb2 import Duration
from loremesh.agent.v1 import memory_pb2 as pb
from rich.table import Column, Table

from loremesh_cli import client
from loremesh_cli.commands.options import AsJson, Url, url_of
from loremesh_cli.errors import UsageError
from loremesh_cli.output import Output

PAGE_SIZE = 200
_PREFIX = "MEMORY_KIND_"

app = typer.Typer(no_args_is_help=True, help="Lists, searches, adds, explains and forgets what agents remember.")


class Kind(StrEnum):
    """What sort of memory."""

    SHORT_TERM = "short-term"
    LONG_TERM = "long-term"
    ENTITY = "entity"
    EPISODIC = "episodic"

    def proto(self) -> pb.MemoryKind.ValueType:
        """As the contract names it."""
        return pb.MemoryKind.Value(f"{_PREFIX}{self.name}")


User = Annotated[str, typer.Option("--user", help="Of this user; nobody's in particular by default.")]
Agent = Annotated[str, typer.Option("--agent", help="Of this agent; no agent's in particular by default.")]
Conversation = Annotated[str, typer.Option("--conversation", help="Of this conversation: short-term ones.")]


@app.command("list")
def list_(
    *,
    user: User = "",
    agent: Agent = "",
    conversation: Conversation = "",
    past: Annotated[bool, typer.Option("--past", help="Superseded and expired ones, too.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """List memories, newest first: all there are, or those of exactly the scope that is named."""
    output, url = Output(as_json=as_json), url_of(url)
    scope = _scope(user, agent, conversation)

    async def work() -> list[pb.Memory]:
        found: list[pb.Memory] = []
        async with client.connect(url) as mesh:
            token = ""
            while len(found) < limit:
                request = pb.ListMemoriesRequest(
                    scope=scope, show_past=past, page_size=min(PAGE_SIZE, limit - len(found)), page_token=token
                )
                page = await mesh.memories.ListMemories(request, timeout=client.UNARY_SECONDS)
                found += page.memories
                token = page.next_page_token
                if not token:
                    break
        return found

    memories = client.run(work(), url=url)
    output.result({"memories": memories})
    output.console.print(_table(memories))


@app.command()
def search(
    query: str,
    *,
    user: User = "",
    agent: Agent = "",
    conversation: Conversation = "",
    top_k: Annotated[int, typer.Option(min=1, max=50, help="How many at most.")] = 5,
    words_only: Annotated[bool, typer.Option("--words-only", help="Without embeddings.")] = False,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Find what is known about something: of everybody, of the user, of the agent, and of both."""
    output, url = Output(as_json=as_json), url_of(url)
    request = pb.SearchMemoriesRequest(
        query=query, scope=_scope(user, agent, conversation), top_k=top_k, words_only=words_only
    )

    async def work() -> pb.SearchMemoriesResponse:
        async with client.connect(url) as mesh:
            return await mesh.memories.SearchMemories(request, timeout=client.UNARY_SECONDS)

    response = client.run(work(), url=url)
    output.result(response)
    for found in response.results:
        output.say(f"{found.score:.2f}  {found.memory.content}  ({found.memory.id})")


@app.command()
def add(
    content: str,
    *,
    user: User = "",
    agent: Agent = "",
    conversation: Conversation = "",
    kind: Annotated[Kind | None, typer.Option(help="What sort; of a conversation: short-term.")] = None,
    subject: Annotated[str, typer.Option(help="What it is about.")] = "",
    attribute: Annotated[str, typer.Option(help="What of it: a later fact about the same takes its place.")] = "",
    ttl: Annotated[int, typer.Option(min=0, help="For how many seconds; 0 is for good.")] = 0,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Remember a fact."""
    output, url = Output(as_json=as_json), url_of(url)
    kind = kind or (Kind.SHORT_TERM if conversation else Kind.LONG_TERM)
    memory = pb.Memory(
        content=content,
        scope=_scope(user, agent, conversation),
        kind=kind.proto(),
        subject=subject,
        attribute=attribute,
    )
    request = pb.CreateMemoryRequest(memory=memory, ttl=Duration(seconds=ttl) if ttl else None)

    async def work() -> pb.CreateMemoryResponse:
        async with client.connect(url) as mesh:
            return await mesh.memories.CreateMemory(request, timeout=client.UNARY_SECONDS)

    response = client.run(work(), url=url)
    output.result(response)
    kept = response.memory
    instead = f" in place of {kept.supersedes}" if kept.supersedes else ""
    output.say(f"{kept.id}: {f'remembered{instead}' if response.created else 'known already'}")


@app.command()
def forget(
    memory_id: Annotated[str, typer.Argument(help="One memory; without it, all of the scope that is named.")] = "",
    *,
    user: User = "",
    agent: Agent = "",
    conversation: Conversation = "",
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Forget one memory, or all of exactly a scope."""
    output, url = Output(as_json=as_json), url_of(url)
    scope = _scope(user, agent, conversation)
    if (scope is None) != bool(memory_id):
        raise UsageError("name a memory, or else a user, an agent or both", reason="SCOPE_REQUIRED")
    request = pb.ForgetMemoriesRequest(memory_id=memory_id, scope=scope)

    async def work() -> pb.MemoryReceipt:
        async with client.connect(url) as mesh:
            return await mesh.memories.ForgetMemories(request, timeout=client.UNARY_SECONDS)

    receipt = client.run(work(), url=url)
    output.result(receipt)
    output.say(f"{receipt.memories} forgotten, receipt {receipt.id}")


@app.command()
def explain(memory_id: str, *, url: Url = "", as_json: AsJson = False) -> None:
    """Say where a memory comes from and what became of it."""
    output, url = Output(as_json=as_json), url_of(url)

    async def work() -> pb.ExplainMemoryResponse:
        async with client.connect(url) as mesh:
            request = pb.ExplainMemoryRequest(memory_id=memory_id)
            return await mesh.memories.ExplainMemory(request, timeout=client.UNARY_SECONDS)

    told = client.run(work(), url=url)
    output.result(told)
    output.say(f"{told.memory.content}  ({told.standing})")
    if told.memory.HasField("source"):
        source = told.memory.source
        output.say(f"  from run {source.run_id or '-'}, message {source.message_id or '-'}")
    if told.source_text:
        output.say(f"  said: {told.source_text}", style="dim")
    if told.HasField("superseded_by"):
        output.say(f"  now: {told.superseded_by.content}  ({told.superseded_by.id})")
    for before in told.superseded:
        output.say(f"  before: {before.content}  ({before.id})", style="dim")


def _scope(user: str, agent: str, conversation: str) -> pb.MemoryScope | None:
    if not (user or agent or conversation):
        return None
    return pb.MemoryScope(user_id=user, agent_id=agent, conversation_id=conversation)


def _table(memories: Iterable[pb.Memory]) -> Table:
    table = Table(Column("id", min_width=36), "kind", "user", "agent", "content", "about", box=None)
    for each in memories:
        kind = pb.MemoryKind.Name(each.kind).removeprefix(_PREFIX).lower()
        about = " ".join(part for part in (each.subject, each.attribute) if part)
        content = f"{each.content} (superseded)" if each.superseded_by else each.content
        table.add_row(each.id, kind, each.scope.user_id, each.scope.agent_id, content, about)
    return table
