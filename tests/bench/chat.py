"""The first streamed token through the gateway, against the provider's own."""

import json
import time

import httpx

from tests.bench import cranfield, measure
from tests.bench.mesh import Mesh

ROUNDS = 100


def first_token(mesh: Mesh, base_url: str) -> None:
    """Print how much later the first token comes through the mesh than from the provider."""
    questions = [question.text for question in cranfield.questions()][: ROUNDS + 10]
    with httpx.Client(timeout=60) as client:
        ours = [_until(client, f"{mesh.url}/api/v1/chat/stream", {"message": q}, "text_delta") for q in questions]
        body = {"model": "paced", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
        theirs = [_until(client, f"{base_url}/chat/completions", body, '"content"') for _ in questions]
    direct, through = measure.p50(theirs[10:]), measure.p50(ours[10:])
    measure.row("first token from the provider, ms p50", f"{direct:.1f}", "-", met=True)
    added = through - direct
    measure.row("first token through the gateway adds, ms p50", f"{added:.1f}", "<= 15", met=added <= 15)


def _until(client: httpx.Client, url: str, body: dict[str, object], mark: str) -> float:
    """Milliseconds until a line of the stream holds `mark`; the rest of the stream is read too."""
    started = time.perf_counter()
    found: float | None = None
    with client.stream("POST", url, json=body) as response:
        for line in response.iter_lines():
            if found is None and mark in line:
                found = (time.perf_counter() - started) * 1000
    if found is None:
        raise SystemExit(f"no token came from {url}: {json.dumps(body)}")
    return found
