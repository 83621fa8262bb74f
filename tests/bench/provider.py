"""A model provider with a fixed pace, speaking the OpenAI wire format: what the mesh adds shows against it.

`python provider.py PORT` serves until it is ended. The name of the model says how it answers:

paced    first token after FIRST seconds, then all TOKENS of them
instant  a line at once
slow     a line after SLOW seconds
acting   at once: asks for the calculator, and answers once that has
flood    FLOOD tokens at once
steady   STEADY tokens, one each PACE seconds
endless  a token each PACE seconds, until nobody listens; GET /left/WORD says when that was, of the question with WORD
"""

import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

FIRST = 0.05
TOKENS = 20
SLOW = 0.3
FLOOD = 3000
STEADY = 20
PACE = 0.1
_LENGTHS = {"acting": 1, "instant": 1, "slow": 1, "flood": FLOOD, "steady": STEADY, "endless": sys.maxsize}
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_WHOLE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "
_WHOLE = {
    "id": "1",
    "object": "chat.completion",
    "created": 0,
    "model": "paced",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "A line."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}
_WORD = re.compile(r"leaving-\w+")


class Provider:
    """Answers every chat completion as the model's name says."""

    def __init__(self) -> None:
        # Seconds of the clock that all processes of a machine share, by word.
        self._left: dict[str, float] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the requests of one connection."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
                body = await reader.readexactly(int(length[1])) if length else b""
                if head.startswith("GET"):
                    left = json.dumps(self._left.get(head.split()[1].rpartition("/")[2])).encode()
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(left), left))
                    continue
                if not await self._complete(json.loads(body), reader, writer):
                    break
        writer.close()

    async def _complete(
        self, request: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Streams one completion, or answers it whole; false when nobody listens any more."""
        if not request.get("stream"):
            await asyncio.sleep(SLOW if request["model"] == "slow" else 0.0)
            whole = json.dumps(_WHOLE).encode()
            writer.write(b"%b%d\r\n\r\n%b" % (_WHOLE_HEAD, len(whole), whole))
            return True
        writer.write(_HEAD)
        leaving = asyncio.ensure_future(reader.read(1))
        try:
            async for event in _answer(request):
                if leaving.done():
                    break
                if event:
                    writer.write(b"%x\r\n%b\r\n" % (len(event), event))
                    await writer.drain()
            if leaving.done():
                word = _WORD.search(request["messages"][-1]["content"])
                self._left[word[0] if word else ""] = time.monotonic()
                return False
        finally:
            leaving.cancel()
            await asyncio.wait({leaving})
        writer.write(b"0\r\n\r\n")
        return True


async def _answer(request: dict[str, Any]) -> AsyncIterator[bytes]:
    model = request["model"]
    if model == "acting" and request["messages"][-1]["role"] != "tool":
        function = {"name": "calculator", "arguments": '{"expression": "6 * 7"}'}
        yield _event({"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": function}]})
        yield _event({}, finish="tool_calls") + b"data: [DONE]\n\n"
        return
    await asyncio.sleep({"paced": FIRST, "slow": SLOW}.get(model, 0.0))
    for number in range(_LENGTHS.get(model, TOKENS)):
        if model in {"steady", "endless"}:
            async for silence in _pause():
                yield silence
        yield _event({"content": f"word{number} "})
    yield _event({}, finish="stop") + b"data: [DONE]\n\n"


async def _pause() -> AsyncIterator[bytes]:
    """PACE seconds in short steps: whoever leaves meanwhile is noticed."""
    for _ in range(10):
        await asyncio.sleep(PACE / 10)
        yield b""


def _event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    event = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "paced", "choices": [choice]}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


async def main() -> None:
    """Serve on loopback."""
    server = await asyncio.start_server(Provider().serve, "127.0.0.1", int(sys.argv[1]), backlog=1000)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
