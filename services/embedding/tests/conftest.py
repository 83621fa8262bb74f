"""Doubles of the providers that speak their HTTP wire formats on loopback, and the local weights, loaded once."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from loremesh_embedding.adapters.memory import MemoryEmbedder, MemoryReranker
from loremesh_embedding.adapters.minilm import MiniLm
from loremesh_embedding.adapters.providers import Patience
from loremesh_embedding.domain.models import Purpose

KEY = "sk-canary-key"
DIMENSION = 64


@dataclass(frozen=True)
class Reply:
    """What the double answers instead of an answer."""

    status: int = 200
    body: bytes = b'{"error": {"message": "canary words of the provider", "code": "x"}}'
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0


@dataclass
class Provider:
    """Speaks OpenAI's /embeddings and Cohere's /v2/embed and /v2/rerank; `script` is replied first, in order."""

    url: str = ""
    script: list[Reply] = field(default_factory=list)
    requests: list[tuple[str, Mapping[str, str], Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
            body = json.loads(await reader.readexactly(int(headers["content-length"])))
            path = head[0].split(" ")[1]
            self.requests.append((path, headers, body))
            self.times.append(asyncio.get_running_loop().time())
            reply = self.script.pop(0) if self.script else Reply(body=json.dumps(await _answer(path, body)).encode())
            await asyncio.sleep(reply.delay)
            extra = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
            writer.write(
                f"HTTP/1.1 {reply.status} X\r\ncontent-type: application/json\r\nconnection: close\r\n"
                f"content-length: {len(reply.body)}\r\n{extra}\r\n".encode()
                + reply.body,
            )
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client gave up
        finally:
            writer.close()


async def _answer(path: str, body: Any) -> Any:
    if path.endswith("/rerank"):
        scores = await MemoryReranker().score(body["query"], body["documents"])
        ranked = sorted(enumerate(scores), key=lambda pair: -pair[1])
        return {"id": "1", "results": [{"index": index, "relevance_score": score} for index, score in ranked]}
    texts = body["texts"] if "texts" in body else body["input"]
    embedded = await MemoryEmbedder(dimension=DIMENSION).embed(texts, purpose=Purpose.DOCUMENT)
    # Real ones are not of unit length everywhere.
    rows = (embedded.values * 3).tolist()
    if "texts" in body:
        billed = {"billed_units": {"input_tokens": embedded.input_tokens}}
        return {"id": "1", "embeddings": {"float": rows}, "texts": texts, "meta": billed}
    # In no particular order: the index says which is which.
    data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)][::-1]
    usage = {"prompt_tokens": embedded.input_tokens, "total_tokens": embedded.input_tokens}
    return {"object": "list", "model": body["model"], "data": data, "usage": usage}


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    double = Provider()
    server = await asyncio.start_server(double.serve, "127.0.0.1", 0, limit=2**24)
    double.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield double


@pytest.fixture
def patience() -> Patience:
    return Patience(attempts=3, connect=1, attempt=5, total=10)


@pytest.fixture(scope="session")
def minilm() -> MiniLm:
    return MiniLm(intra_op_threads=1)


@pytest.fixture
def reply() -> Callable[..., Reply]:
    return Reply


@pytest.fixture
def key() -> str:
    return KEY
