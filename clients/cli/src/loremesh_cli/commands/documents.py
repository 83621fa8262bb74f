"""`ingest`, and `documents list|get|delete`."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from loremesh.ingestion.v1 import document_pb2 as pb
from rich.table import Column, Table

from loremesh_cli import client, files
from loremesh_cli.commands.options import AsJson, Store, Url, url_of
from loremesh_cli.errors import UsageError
from loremesh_cli.ingest import FileProgress, Ingest
from loremesh_cli.output import Output
from loremesh_cli.progress import FilesProgress

PAGE_SIZE = 200

app = typer.Typer(no_args_is_help=True, help="Lists, shows and deletes documents.")


def ingest(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files, and folders to walk.")],
    *,
    store: Store = "",
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Put files in and wait until they can be searched; those the mesh has are skipped, changed ones replaced."""
    output, found = Output(as_json=as_json), files.find(paths)
    if not found:
        raise UsageError("there are no files in there", reason="NO_FILES")
    done = ingest_files(found, store=store, url=url_of(url), output=output)
    output.result({"files": [file.outcome_fields() for file in done]})
    if any(file.outcome == "failed" for file in done):
        raise typer.Exit(1)


def ingest_files(found: Sequence[Path], *, store: str, url: str, output: Output) -> list[FileProgress]:
    """Ingest files with progress bars and say what came of them."""

    async def work() -> list[FileProgress]:
        with FilesProgress(total=len(found), console=output.console) as progress:
            async with client.connect(url) as mesh:
                return await Ingest(mesh, vector_store_id=store, seen=progress.seen).files(found)

    done = client.run(work(), url=url)
    for file in done:
        if file.outcome == "failed":
            output.say(f"{files.legible(file.path)}: {file.reason}: {file.message}", style="red")
    counts = Counter(file.outcome for file in done)
    chunks = sum(file.chunks for file in done if file.outcome == "ready")
    words = {"ready": f"ready ({chunks} chunks)", "known": "known already", "failed": "failed"}
    output.say(", ".join(f"{counts[outcome]} {words[outcome]}" for outcome in words if counts[outcome]))
    return done


@app.command("list")
def list_(*, store: Store = "", limit: int = 50, url: Url = "", as_json: AsJson = False) -> None:
    """List documents, newest first."""
    output, url = Output(as_json=as_json), url_of(url)

    async def work() -> list[pb.Document]:
        found: list[pb.Document] = []
        async with client.connect(url) as mesh:
            token = ""
            while len(found) < limit:
                request = pb.ListDocumentsRequest(
                    vector_store_id=store, page_size=min(PAGE_SIZE, limit - len(found)), page_token=token
                )
                page = await mesh.documents.ListDocuments(request, timeout=client.UNARY_SECONDS)
                found += page.documents
                token = page.next_page_token
                if not token:
                    break
        return found

    documents = client.run(work(), url=url)
    output.result({"documents": documents})
    table = Table(Column("id", min_width=36), "title", "state", "chunks", "bytes", box=None)
    for each in documents:
        state = pb.DocumentState.Name(each.state).removeprefix("DOCUMENT_STATE_")
        state = f"{state} ({each.failure.reason})" if each.failure.reason else state
        table.add_row(each.id, each.title or each.filename, state, str(each.chunk_count), str(each.size_bytes))
    output.console.print(table)


@app.command()
def get(document_id: str, *, url: Url = "", as_json: AsJson = False) -> None:
    """Show one document."""
    output, url = Output(as_json=as_json), url_of(url)

    async def work() -> pb.Document:
        async with client.connect(url) as mesh:
            request = pb.GetDocumentRequest(document_id=document_id)
            return await mesh.documents.GetDocument(request, timeout=client.UNARY_SECONDS)

    document = client.run(work(), url=url)
    output.result(document)
    output.say(str(document).rstrip())


@app.command()
def delete(document_ids: list[str], *, url: Url = "", as_json: AsJson = False) -> None:
    """Delete documents."""
    output, url = Output(as_json=as_json), url_of(url)

    async def work() -> list[pb.DeleteDocumentResponse]:
        async with client.connect(url) as mesh:
            requests = [pb.DeleteDocumentRequest(document_id=each) for each in document_ids]
            return [await mesh.documents.DeleteDocument(each, timeout=client.UNARY_SECONDS) for each in requests]

    receipts = client.run(work(), url=url)
    output.result({"receipts": receipts})
    for document_id, receipt in zip(document_ids, receipts, strict=True):
        output.say(f"{document_id}: deleted, receipt {receipt.receipt_id}")
