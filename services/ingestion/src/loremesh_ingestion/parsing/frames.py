"""JSON messages between parent and child: four bytes of length, then UTF-8."""

import asyncio
import json
import struct
from typing import Any, BinaryIO

HEADER = struct.Struct(">I")
LARGEST = 1 << 24  # bytes; the largest message is the page list of a document with a hundred thousand pages


def encode(message: dict[str, Any]) -> bytes:
    """Return `message` as one frame."""
    body = json.dumps(message).encode()
    return HEADER.pack(len(body)) + body


def read(stream: BinaryIO) -> dict[str, Any] | None:
    """Return the next message from a blocking `stream`, None at its end."""
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    message: dict[str, Any] = json.loads(stream.read(HEADER.unpack(header)[0]))
    return message


async def receive(stream: asyncio.StreamReader) -> dict[str, Any]:
    """Return the next message from `stream`; raises IncompleteReadError at its end, ValueError on nonsense."""
    size = HEADER.unpack(await stream.readexactly(HEADER.size))[0]
    if size > LARGEST:
        message = f"a frame of {size} bytes"
        raise ValueError(message)
    body = json.loads(await stream.readexactly(size))
    if not isinstance(body, dict):
        message = "a frame without fields"
        raise ValueError(message)  # noqa: TRY004 - one kind of error for whatever is wrong with a frame
    return body
