"""A model provider that answers by a script over OpenAI's wire format, and fails as the seed says."""

import json
import random
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.ordeal.checker import LAST_WORD

WORDS = 12


class Fate(StrEnum):
    """How an answer goes."""

    WHOLE = "whole"
    REFUSED = "refused"
    CUT = "cut"
    MUTE = "ended without a word"


_SHARES = {Fate.WHOLE: 70, Fate.REFUSED: 10, Fate.CUT: 15, Fate.MUTE: 5}


class Script:
    """How each answer goes: whole, refused with words that nobody may see, cut in the middle, or without an end."""

    def __init__(self, *, seed: int, canary: str) -> None:
        self.canary = canary
        self._chance = random.Random(seed)  # noqa: S311 - a script to be played again
        self._lock = threading.Lock()

    def next(self) -> tuple[Fate, int]:
        """How the next answer goes, and after how many words it is cut, if it is."""
        with self._lock:
            (fate,) = self._chance.choices(list(_SHARES), weights=list(_SHARES.values()))
            return fate, self._chance.randrange(WORDS)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: Script

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers.get("content-length", "0"))) or b"{}")
        fate, words = self.script.next()
        if fate is Fate.REFUSED:
            self._refuse()
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        whole = fate is Fate.WHOLE
        if whole and (call := _tool_call(asked)) is not None:
            self._event({"tool_calls": [call]})
            self._event({}, finish="tool_calls")
            self._chunk(b"data: [DONE]\n\n")
            self._chunk(b"")
            return
        for number in range(WORDS if whole else words):
            self._event({"content": f"word{number} "})
        if fate is Fate.CUT:
            self.connection.close()
            self.close_connection = True
            return
        if whole:
            self._event({"content": LAST_WORD})
            self._event({}, finish="stop")
            self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _refuse(self) -> None:
        body = json.dumps({"error": {"message": f"no: {self.script.canary}", "code": self.script.canary}}).encode()
        self.send_response(500)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _event(self, delta: dict[str, str], finish: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        event = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "scripted", "choices": [choice]}
        self._chunk(b"data: " + json.dumps(event).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing: what it says must not be taken for a leak."""


def _tool_call(asked: dict[str, Any]) -> dict[str, Any] | None:
    """Call the first tool offered, with the mark of the question, unless it has answered already."""
    messages = asked.get("messages", [])
    if not asked.get("tools") or any(message.get("role") == "tool" for message in messages):
        return None
    mark = re.search(r"mark-\d+-\d+", json.dumps(messages))
    function = {
        "name": asked["tools"][0]["function"]["name"],
        "arguments": json.dumps({"text": mark[0] if mark else "no mark"}),
    }
    return {"index": 0, "id": "call_1", "type": "function", "function": function}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is no news."""


@contextmanager
def scripted(script: Script) -> Iterator[str]:
    """Serve in a thread; yields the base URL."""
    handler = type("Handler", (_Handler,), {"script": script})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
