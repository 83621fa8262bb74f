"""Asks a mesh and shows the answer as it comes, then the passages it rests on."""

from loremesh.agent.v1 import chat_pb2 as pb

from loremesh_cli.client import CHAT_SECONDS, Mesh
from loremesh_cli.errors import CommandError
from loremesh_cli.output import Output

EXCERPT_CHARS = 150


async def stream(mesh: Mesh, request: pb.ChatRequest, *, output: Output) -> pb.ChatResponse:
    """Print an answer while it is written and return it whole.

    Raises AioRpcError when the question is refused, and CommandError when the answer fails or is cut on the way.
    """
    async for event in mesh.chat.StreamChat(request, timeout=CHAT_SECONDS):
        match event.WhichOneof("payload"):
            case "text_delta":
                output.stream(event.text_delta.text)
            case "completed":
                output.say()
                return event.completed
            case "incomplete":
                output.say(f"\n(cut short: {pb.FinishReason.Name(event.incomplete.reason)})", style="yellow")
                return event.incomplete.partial
            case "failed":
                output.say()
                raise CommandError(f"{event.failed.reason}: {event.failed.message}", reason=event.failed.reason)
    raise CommandError("the stream ended without saying that the answer is complete", reason="STREAM_CUT")


def show_sources(response: pb.ChatResponse, *, output: Output) -> None:
    """Print where in which document each source is, so that a reader finds it."""
    if response.sources and not response.grounded:
        output.say("The answer rests on none of the passages it was given:", style="yellow")
    for source in response.sources:
        page = f", page {source.page}" if source.HasField("page") else ""
        place = f"{source.title}{page}, characters {source.start_char} to {source.end_char}"
        output.say(f"[{source.number}] {place}  (document {source.document_id})", style="bold")
        output.say(f"    {excerpt(source.content)}", style="dim")


def excerpt(text: str) -> str:
    """Return a passage's beginning as one line."""
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT_CHARS else f"{line[:EXCERPT_CHARS].rstrip()} ..."
