"""`ask`, `chat` and `search`."""

import uuid
from typing import Annotated

import typer
from loremesh.agent.v1 import chat_pb2
from loremesh.retrieval.v1 import retrieval_pb2

from loremesh_cli import answers, client
from loremesh_cli.commands.options import AsJson, Store, Url, url_of
from loremesh_cli.errors import CommandError
from loremesh_cli.output import Output

Stores = Annotated[list[str], typer.Option("--store", help="A vector store to search; may be given several times.")]

AgentOption = Annotated[str, typer.Option("--agent", help="The agent that answers; the default one if none.")]
Background = Annotated[
    bool, typer.Option("--async", help="Ask in the background: print the job's id, then follow its events.")
]


def ask(
    question: str,
    *,
    agent: AgentOption = "",
    store: Stores = [],  # noqa: B006 - typer's way
    background: Background = False,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Ask a question and print the answer with its sources."""
    output, url = Output(as_json=as_json), url_of(url)
    request = chat_pb2.ChatRequest(message=question, agent_id=agent, vector_store_ids=store)
    asking = ask_in_background if background else ask_once
    output.result(asking(request, url=url, output=output))


def ask_in_background(request: chat_pb2.ChatRequest, *, url: str, output: Output) -> chat_pb2.ChatResponse:
    """Have a job answer; its id is printed first, so that whoever goes away finds the answer later."""

    async def work() -> chat_pb2.ChatResponse:
        async with client.connect(url) as mesh:
            key = [("idempotency-key", str(uuid.uuid4()))]
            made = await mesh.chat_jobs.CreateChatJob(request, metadata=key, timeout=client.UNARY_SECONDS)
            output.say(f"job {made.job_id}", style="bold")
            output.result(made)
            return await answers.follow(mesh, made.job_id, output=output)

    response = client.run(work(), url=url)
    answers.show_sources(response, output=output)
    return response


def ask_once(request: chat_pb2.ChatRequest, *, url: str, output: Output) -> chat_pb2.ChatResponse:
    """Stream one answer to the terminal, then its sources."""

    async def work() -> chat_pb2.ChatResponse:
        async with client.connect(url) as mesh:
            return await answers.stream(mesh, request, output=output)

    response = client.run(work(), url=url)
    answers.show_sources(response, output=output)
    return response


def chat(
    *,
    agent: AgentOption = "",
    store: Stores = [],  # noqa: B006 - typer's way
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Hold a conversation; an empty line or Ctrl-D ends it. With --json, one answer a line for each line read."""
    output, url = Output(as_json=as_json), url_of(url)
    conversation_id = ""
    while message := _next_line(output):
        request = chat_pb2.ChatRequest(
            message=message, conversation_id=conversation_id, agent_id=agent, vector_store_ids=store
        )
        try:
            response = ask_once(request, url=url, output=output)
        except CommandError as error:
            output.result({"error": {"reason": error.reason, "message": str(error)}})
            output.say(str(error), style="red")
            continue
        conversation_id = response.conversation_id
        output.result(response)


def _next_line(output: Output) -> str:
    try:
        return input("" if output.as_json else "\n> ").strip()
    except EOFError:
        return ""


def search(
    query: str,
    *,
    store: Store = "",
    top_k: Annotated[int | None, typer.Option(help="How many passages, 1 to 100; 5 by default.")] = None,
    rerank: Annotated[bool, typer.Option("--rerank", help="Order the best anew with a reranking model.")] = False,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Find the passages that answer a query best."""
    output, url = Output(as_json=as_json), url_of(url)
    request = retrieval_pb2.SearchRequest(
        query=query,
        vector_store_id=store,
        top_k=top_k,
        ranking_options=retrieval_pb2.RankingOptions(rerank=rerank),
    )

    async def work() -> retrieval_pb2.SearchResponse:
        async with client.connect(url) as mesh:
            return await mesh.retrieval.Search(request, timeout=client.UNARY_SECONDS)

    response = client.run(work(), url=url)
    output.result(response)
    for rank, found in enumerate(response.results, start=1):
        page = f", page {found.page}" if found.HasField("page") else ""
        place = f"{found.title}{page}, characters {found.start_char} to {found.end_char}"
        output.say(f"{rank}. {found.score:.3f}  {place}  (document {found.document_id})", style="bold")
        output.say(f"   {answers.excerpt(found.content)}", style="dim")
    if not response.results:
        output.say("Nothing found.")
