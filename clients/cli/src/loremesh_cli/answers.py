"""Asks a mesh and shows the answer as it comes, then the passages it rests on."""

import asyncio
import time

from grpc import StatusCode
from grpc.aio import AioRpcError
from loremesh.agent.v1 import chat_job_pb2 as job_pb
from loremesh.agent.v1 import chat_pb2 as pb

from loremesh_cli.client import CHAT_SECONDS, Mesh
from loremesh_cli.errors import CommandError
from loremesh_cli.output import Output

EXCERPT_CHARS = 150
# For a mesh that is restarted.
PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 0.5


async def stream(mesh: Mesh, request: pb.ChatRequest, *, output: Output) -> pb.ChatResponse:
    """Print an answer while it is written and return it whole.

    Raises AioRpcError when the question is refused, and CommandError when the answer fails or is cut on the way.
    """
    async for event in mesh.chat.StreamChat(request, timeout=CHAT_SECONDS):
        if answer := _show(event, output=output):
            return answer
    raise CommandError("the stream ended without saying that the answer is complete", reason="STREAM_CUT")


async def follow(mesh: Mesh, job_id: str, *, output: Output) -> pb.ChatResponse:
    """Print a job's answer while it is written and return it whole; a stream that was cut goes on where it ended.

    Raises AioRpcError when there is no such job or the mesh stays away, and CommandError when the answer fails.
    """
    seq, attempt, ends_at = 0, 1, time.monotonic() + PATIENCE_SECONDS
    while True:
        request = job_pb.WatchChatJobRequest(job_id=job_id, after_seq=seq)
        try:
            async for event in mesh.chat_jobs.WatchChatJob(request):
                seq, ends_at = event.seq or seq, time.monotonic() + PATIENCE_SECONDS
                if event.attempt > attempt:
                    attempt = event.attempt
                    output.say(f"\n(attempt {attempt}: what was said so far is void)", style="yellow")
                if answer := _show(event, output=output):
                    return answer
        except AioRpcError as error:
            if error.code() is not StatusCode.UNAVAILABLE or time.monotonic() > ends_at:
                raise
        await asyncio.sleep(PAUSE_SECONDS)


def _show(event: pb.ChatEvent, *, output: Output) -> pb.ChatResponse | None:
    """Print what happened; the answer if that was its end."""
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
        case "cancelled":
            output.say()
            raise CommandError("it was cancelled", reason="CANCELLED")
    return None


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
