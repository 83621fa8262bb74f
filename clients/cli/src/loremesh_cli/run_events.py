"""A run's events, from the first to the terminal one, whatever is restarted meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator

from grpc import StatusCode
from grpc.aio import AioRpcError
from loremesh.crew.v1 import run_pb2 as pb

from loremesh_cli.client import Mesh
from loremesh_cli.errors import CommandError

# For a mesh that is restarted.
PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 0.5
TERMINAL = frozenset({"completed", "incomplete", "failed", "cancelled", "expired"})


async def events(mesh: Mesh, run_id: str, *, after_seq: int = 0) -> AsyncIterator[pb.RunEvent]:
    """Each event once, heartbeats left out; a stream that was cut goes on where it ended.

    Raises AioRpcError when there is no such run or the mesh stays away, CommandError when it falls silent.
    """
    seq, ends_at = after_seq, time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            async for event in mesh.runs.WatchRun(pb.WatchRunRequest(run_id=run_id, after_seq=seq)):
                ends_at = time.monotonic() + PATIENCE_SECONDS
                if event.seq <= seq:
                    continue
                seq = event.seq
                yield event
                if event.WhichOneof("payload") in TERMINAL:
                    return
        except AioRpcError as error:
            if error.code() is not StatusCode.UNAVAILABLE or time.monotonic() > ends_at:
                raise
        if time.monotonic() > ends_at:
            raise CommandError("the run's events end without saying how it ended", reason="STREAM_CUT")
        await asyncio.sleep(PAUSE_SECONDS)
