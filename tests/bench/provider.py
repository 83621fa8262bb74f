"""A model provider with a fixed pace, speaking the OpenAI wire format: what the mesh adds shows against it.

`python provider.py PORT` serves until it is ended. The model `paced` sends its first token after FIRST seconds, then
TOKENS of them; `instant` answers at once with a line, `slow` after SLOW seconds.
"""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FIRST = 0.05
TOKENS = 20
SLOW = 0.3
LINE = "It is written."


class Handler(BaseHTTPRequestHandler):
    """Answers every chat completion as its model says, streamed or whole."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Answers one completion."""
        asked = json.loads(self.rfile.read(int(self.headers.get("content-length", "0"))) or b"{}")
        pace = {"instant": 0.0, "slow": SLOW}.get(asked.get("model", ""), FIRST)
        pieces = [f"word{number} " for number in range(TOKENS)] if pace == FIRST else [LINE]
        if asked.get("stream"):
            self._stream(pieces, pace)
        else:
            time.sleep(pace)
            self._whole("".join(pieces))

    def _stream(self, pieces: list[str], pace: float) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        time.sleep(pace)
        for piece in pieces:
            self._event({"content": piece})
        self._event({}, finish="stop")
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _whole(self, text: str) -> None:
        message = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        completion = {"id": "1", "object": "chat.completion", "created": 0, "model": "paced", "choices": [choice]}
        body = json.dumps({**completion, "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _event(self, delta: dict[str, str], finish: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        event = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "paced", "choices": [choice]}
        self._chunk(b"data: " + json.dumps(event).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing: the bench prints its own lines."""


def main() -> None:
    """Serve on loopback."""
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()


if __name__ == "__main__":
    main()
