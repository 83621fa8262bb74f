"""The tool web_search against doubles which speak the formats of SearXNG, Tavily and Brave."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from loremesh_agent.adapters.tools.web_search import Brave, Engine, SearXNG, Tavily, WebSearch, chosen
from loremesh_agent.domain.tools import CallContext
from loremesh_agent.errors import ToolFailed, ToolTimeout
from loremesh_kit.errors import DependencyUnavailable

pytestmark = pytest.mark.steelthread

CONTEXT = CallContext(run_id="r", agent_id="a", conversation_id="c", idempotency_key="k")
KEY = "canary-key"
TRUST = httpx2.create_ssl_context()
SEARXNG = {
    "query": "wings",
    "number_of_results": 0,
    "results": [
        {"url": "https://a.example/1", "title": "Wings", "content": "They stall.", "engine": "brave", "score": 2.0},
        {"url": "https://a.example/2", "title": "More", "content": None, "publishedDate": None},
        {"url": "javascript:alert(1)", "title": "Bad"},
        {"title": "no address"},
        "nonsense",
    ],
    "answers": [],
    "suggestions": [],
}
TAVILY = {
    "query": "wings",
    "answer": None,
    "images": [],
    "results": [{"title": "Wings", "url": "https://a.example/1", "content": "They stall.", "score": 0.98}],
    "response_time": "1.67",
}
BRAVE = {
    "type": "search",
    "query": {"original": "wings", "more_results_available": True},
    "web": {
        "type": "search",
        "results": [
            {
                "title": "<strong>Wings</strong> &amp; flaps",
                "url": "https://a.example/1",
                "description": "They <strong>stall</strong>.",
                "extra_snippets": [],
            }
        ]
        * 12,
    },
}


class Double:
    """Answers each request with what it was given."""

    def __init__(self) -> None:
        self.status, self.body, self.headers = 200, b"{}", ""
        self.wait = 0.0
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.url = ""
        self.tasks: set[asyncio.Task[Any] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(asyncio.current_task())
        with suppress(ConnectionError):
            try:
                await self._answer(reader, writer)
            finally:
                writer.close()
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.requests.append((head[0], headers, body))
        await asyncio.sleep(self.wait)
        lines = (
            f"HTTP/1.1 {self.status} X\r\ncontent-length: {len(self.body)}\r\nconnection: close\r\n{self.headers}\r\n"
        )
        writer.write(lines.encode() + self.body)


async def settle(tasks: Iterable[asyncio.Task[Any] | None]) -> None:
    """End what a double is still doing."""
    for task in tasks:
        if task is not None and not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture
async def double() -> AsyncIterator[Double]:
    made = Double()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    server.close()
    await settle(made.tasks)


@asynccontextmanager
async def searching(engine: Engine | None) -> AsyncIterator[Callable[..., Any]]:
    async with WebSearch.open(engine, ssl_context=TRUST) as tool:

        async def search(query: str = "wings & flaps", **more: int) -> str:
            return (await tool.call({"query": query, **more}, CONTEXT)).content

        yield search


async def test_without_an_engine_it_is_not_available_and_says_what_to_set():
    async with WebSearch.open(None, ssl_context=TRUST) as tool:
        assert tool.spec.unavailable == "SEARXNG_URL, TAVILY_API_KEY or BRAVE_API_KEY"
        with pytest.raises(ToolFailed):
            await tool.call({"query": "x"}, CONTEXT)
    async with WebSearch.open(SearXNG(url="http://127.0.0.1:9"), ssl_context=TRUST) as tool:
        assert not tool.spec.unavailable
        assert tool.spec.untrusted


def test_the_engine_of_one_s_own_comes_first():
    assert chosen(searxng_url="", tavily_key="", brave_key="") is None
    assert isinstance(chosen(searxng_url="http://s", tavily_key="t", brave_key="b"), SearXNG)
    assert isinstance(chosen(searxng_url="", tavily_key="t", brave_key="b"), Tavily)
    assert isinstance(chosen(searxng_url="", tavily_key="", brave_key="b"), Brave)


async def test_searxng_is_asked_for_json(double):
    double.body = json.dumps(SEARXNG).encode()
    async with searching(SearXNG(url=f"{double.url}/")) as search:
        assert await search() == "Wings\nhttps://a.example/1\nThey stall.\n\nMore\nhttps://a.example/2"
    line, _, _ = double.requests[0]
    assert line.startswith("GET /search?")
    assert parse_qs(urlsplit(line.split()[1]).query) == {"q": ["wings & flaps"], "format": ["json"]}


async def test_tavily_is_asked_with_its_key(double):
    double.body = json.dumps(TAVILY).encode()
    async with searching(Tavily(key=KEY, url=double.url)) as search:
        assert await search(count=3) == "Wings\nhttps://a.example/1\nThey stall."
    line, headers, body = double.requests[0]
    assert line.startswith("POST /search ")
    assert headers["authorization"] == f"Bearer {KEY}"
    assert json.loads(body) == {"query": "wings & flaps", "max_results": 3, "search_depth": "basic"}


async def test_brave_is_asked_with_its_key(double):
    double.body = json.dumps(BRAVE).encode()
    async with searching(Brave(key=KEY, url=double.url)) as search:
        found = await search("word " * 60, count=2)
    assert found == "\n\n".join(["Wings & flaps\nhttps://a.example/1\nThey stall."] * 2)
    line, headers, _ = double.requests[0]
    assert line.startswith("GET /res/v1/web/search?")
    assert headers["x-subscription-token"] == KEY
    asked = parse_qs(urlsplit(line.split()[1]).query)
    assert asked == {"q": [" ".join(["word"] * 50)], "count": ["2"]}


@pytest.mark.parametrize("body", [{}, {"results": []}, {"results": None}, {"results": [1, None]}, {"web": 7}])
async def test_nothing_found_is_said(double, body):
    double.body = json.dumps(body).encode()
    for engine in (SearXNG(url=double.url), Tavily(key=KEY, url=double.url), Brave(key=KEY, url=double.url)):
        async with searching(engine) as search:
            assert await search() == "Nothing was found."


@pytest.mark.parametrize(
    ("status", "headers", "raised", "after"),
    [
        (401, "", ToolFailed, None),
        (403, "", ToolFailed, None),
        (422, "", ToolFailed, None),
        (302, "location: http://127.0.0.1:9/\r\n", ToolFailed, None),
        (429, "retry-after: 7\r\n", DependencyUnavailable, 7.0),
        (429, "retry-after: soon\r\n", DependencyUnavailable, 1.0),
        (500, "", DependencyUnavailable, 1.0),
        (503, "", DependencyUnavailable, 1.0),
    ],
)
async def test_refusals_are_told_apart_and_without_the_engine_s_words(double, status, headers, raised, after):
    double.status, double.headers, double.body = status, headers, b'{"error": "canary-words"}'
    async with searching(Tavily(key=KEY, url=double.url)) as search:
        with pytest.raises(raised) as caught:
            await search()
    assert "canary" not in caught.value.message + str(caught.value.metadata)
    assert caught.value.retry_after == after
    assert len(double.requests) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"[" * 100_000, b'"x"', b"{" + b" " * 3_000_000])
async def test_what_is_no_answer_is_a_failure(double, body):
    double.body = body
    async with searching(SearXNG(url=double.url)) as search:
        with pytest.raises(ToolFailed, match="as it should"):
            await search()


async def test_an_engine_that_is_away_or_slow_is_told_apart(double, monkeypatch):
    async with searching(SearXNG(url="http://127.0.0.1:9")) as search:
        with pytest.raises(DependencyUnavailable):
            await search()
    monkeypatch.setattr("loremesh_agent.adapters.tools.web_search._TIMEOUT", 0.05)
    double.wait = 30.0
    async with searching(SearXNG(url=double.url)) as search:
        with pytest.raises(ToolTimeout):
            await search()
