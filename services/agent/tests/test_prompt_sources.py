"""Prompts of the file, and of a Langfuse played over real HTTP."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from loremesh_agent.adapters import langfuse
from loremesh_agent.adapters.langfuse import LangfusePrompts
from loremesh_agent.adapters.prompt_file import PromptFile
from loremesh_agent.domain.templates import KeptPrompt, variables
from loremesh_agent.errors import PromptInvalid, PromptNotFound
from loremesh_agent.settings import AgentSettings
from loremesh_kit.errors import DependencyUnavailable

ROOT = Path(__file__).parents[3]


@dataclass
class LangfuseDouble:
    """Answers as Langfuse does: prompts by name and version, the last one labelled `production`."""

    prompts: dict[str, dict[int, Any]] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    status: int = 0
    body: bytes = b""
    silent: bool = False
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        url = urlsplit(target)
        self.asked.append((url.path, dict(parse_qsl(url.query))))
        keys = base64.b64encode(b"pk-lf-1:sk-lf-1").decode()
        if self.silent:
            await reader.read()
            writer.close()
            return
        if self.status:
            status, body = self.status, self.body
        elif method != "GET" or headers.get("authorization") != f"Basic {keys}":
            status, body = 401, b'{"message": "Invalid credentials", "error": "UnauthorizedError"}'
        else:
            status, body = self._answer(unquote(url.path.removeprefix("/api/public/v2/prompts/")), url.query)
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    def _answer(self, name: str, query: str) -> tuple[int, bytes]:
        versions, asked = self.prompts.get(name, {}), dict(parse_qsl(query))
        newest = max(versions, default=0) if asked.get("label") == "production" else 0
        version = int(asked.get("version", newest))
        if version not in versions:
            return 404, b'{"message": "Prompt not found", "error": "LangfuseNotFoundError"}'
        prompt = versions[version]
        answer = {
            "id": "cm1", "createdAt": "2026-11-01T00:00:00Z", "projectId": "p", "createdBy": "API", "name": name,
            "version": version, "type": "text" if isinstance(prompt, str) else "chat", "isActive": None, "tags": [],
            "prompt": prompt, "config": self.config, "labels": ["production"] if version == newest else [],
            "commitMessage": None, "resolutionGraph": None,
        }  # fmt: skip
        return 200, json.dumps(answer).encode()


@pytest.fixture
async def double() -> AsyncIterator[LangfuseDouble]:
    double, connections = LangfuseDouble(), set[asyncio.StreamWriter]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(writer)
        await double.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    double.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield double
    server.close()
    for writer in connections:
        writer.close()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(langfuse, "_FRESH_SECONDS", 0.0)
    monkeypatch.setattr(langfuse, "_FAILED_SECONDS", 0.0)


SECRET = "sk-lf-1"
OWN = PromptFile([KeptPrompt(name="answer", version=1, language="en", text="of the file")])


@asynccontextmanager
async def library(double: LangfuseDouble, *, secret_key: str = SECRET) -> AsyncIterator[LangfusePrompts]:
    async with LangfusePrompts.open(
        base_url=double.url, public_key="pk-lf-1", secret_key=secret_key, otherwise=OWN
    ) as prompts:
        yield prompts


async def text(prompts: LangfusePrompts, name: str = "answer", version: int = 0, language: str = "en") -> str:
    return (await prompts.find(name, version=version, language=language)).text


@pytest.mark.unit
async def test_the_prompts_that_come_with_the_service_are_those_at_the_root() -> None:
    assert (ROOT / "config" / "prompts.toml").samefile(ROOT / "services/agent/src/loremesh_agent/prompts/prompts.toml")
    prompts = PromptFile.load()
    wanted = {"answer": set(), "research": {"subject"}, "support": {"company", "contact"}}
    for name, needed in wanted.items():
        for language in ("en", "th"):
            prompt = await prompts.find(name, version=0, language=language)
            assert variables(prompt.text) == needed
            assert prompt == await prompts.find(name, version=prompt.version, language=language)
            assert prompt.refusal


@pytest.mark.unit
async def test_an_operators_file_takes_the_place_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "prompts.toml"
    one = '[[prompts]]\nname="a"\nversion={}\nlanguage="en"\ntext="{}"\n'
    path.write_text(one.format(1, "first") + one.format(3, "third"))
    prompts = PromptFile.load(str(path))
    assert (await prompts.find("a", version=0, language="en")).text == "third"
    assert (await prompts.find("a", version=1, language="en")).text == "first"
    for name, version, language in (("a", 2, "en"), ("a", 0, "th"), ("answer", 0, "en")):
        with pytest.raises(PromptNotFound):
            await prompts.find(name, version=version, language=language)


ONE = 'name="a"\nversion=1\nlanguage="en"\ntext=""'


@pytest.mark.unit
@pytest.mark.parametrize(
    ("entry", "wrong"),
    [
        ('name="a"\nversion=1\nlanguage="en"', "text"),
        ('name="a"\nversion="1"\nlanguage="en"\ntext=""', "version"),
        ('name="a"\nversion=0\nlanguage="en"\ntext=""', "version"),
        ('name="a"\nversion=1\nlanguage="en"\ntext=""\nnote=""', "note"),
        ('name="a"\nversion=1\nlanguage="en"\ntext="{{"', "prompt 1"),
        (f"{ONE}\n[[prompts]]\n{ONE}", "same"),
    ],
)  # fmt: skip
def test_a_file_with_a_fault_is_refused_at_the_start(tmp_path: Path, entry: str, wrong: str) -> None:
    path = tmp_path / "prompts.toml"
    path.write_text(f"[[prompts]]\n{entry}\n")
    with pytest.raises(ValueError, match=wrong):
        PromptFile.load(str(path))


@pytest.mark.unit
def test_one_key_of_langfuse_alone_is_refused() -> None:
    given = {"retrieval_target": "x", "ingestion_target": "x", "local_model_url": "x", "provider": "local"}
    for keys in ({"langfuse_public_key": "pk"}, {"langfuse_secret_key": "sk-secret"}):
        with pytest.raises(ValueError, match="LANGFUSE_SECRET_KEY"):
            AgentSettings(**given, **keys)
    both = AgentSettings(**given, langfuse_public_key="pk", langfuse_secret_key="sk-secret")
    assert "sk-secret" not in repr(both)


@pytest.mark.conformance
async def test_a_prompt_is_the_one_in_production_or_the_version_that_is_named(double: LangfuseDouble) -> None:
    double.prompts = {"answer": {1: "one", 2: "two"}, "answer-th": {7: "ตอบ"}, "team/a b?": {1: "x"}}
    double.config = {"refusal": "Sorry."}
    async with library(double) as prompts:
        newest = await prompts.find("answer", version=0, language="en")
        assert newest == KeptPrompt(name="answer", version=2, language="en", text="two", refusal="Sorry.")
        assert await text(prompts, version=1) == "one"
        thai = await prompts.find("answer", version=0, language="th")
        assert (thai.name, thai.version, thai.language, thai.text) == ("answer", 7, "th", "ตอบ")
        assert await text(prompts, "team/a b?") == "x"
    assert double.asked[0] == ("/api/public/v2/prompts/answer", {"label": "production"})
    assert double.asked[1] == ("/api/public/v2/prompts/answer", {"version": "1"})


@pytest.mark.conformance
async def test_a_chat_prompt_may_hold_what_the_system_says_and_no_more(double: LangfuseDouble) -> None:
    system = {"role": "system", "content": "Be brief."}
    double.prompts = {"a": {1: [system, system]}, "b": {1: [system, {"role": "user", "content": "Hi"}]}}
    double.prompts |= {"c": {1: "{{a.b}}"}, "d": {1: [{"type": "placeholder", "name": "history"}]}}
    async with library(double) as prompts:
        assert await text(prompts, "a") == "Be brief.\n\nBe brief."
        for name in ("b", "c", "d"):
            with pytest.raises(PromptInvalid):
                await text(prompts, name)


@pytest.mark.conformance
async def test_what_langfuse_does_not_have_is_the_files(double: LangfuseDouble) -> None:
    async with library(double) as prompts:
        assert await text(prompts) == "of the file"
        with pytest.raises(PromptNotFound):
            await text(prompts, "nothing")


@pytest.mark.conformance
async def test_a_copy_is_asked_for_once_until_it_is_old(
    double: LangfuseDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    double.prompts = {"answer": {1: "one"}}
    monkeypatch.setattr(langfuse, "_FRESH_SECONDS", 60.0)
    async with library(double) as prompts:
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(text(prompts))
        assert len(double.asked) == 1
    monkeypatch.setattr(langfuse, "_FRESH_SECONDS", 0.0)
    async with library(double) as prompts:
        assert await text(prompts) == "one"
        double.prompts = {"answer": {2: "two"}}
        assert await text(prompts) == "two"
        double.prompts = {}
        assert await text(prompts) == "of the file"


@pytest.mark.conformance
@pytest.mark.parametrize("trouble", ["silent", "busy", "garbage", "no prompt", "flood", "broken template", "gone"])
async def test_when_langfuse_fails_the_last_copy_answers_and_then_the_file(
    double: LangfuseDouble, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    double.prompts = {"answer": {1: "one"}}
    async with library(double) as prompts, library(double) as without_a_copy:
        assert await text(prompts) == "one"
        match trouble:
            case "silent":
                double.silent = True
                monkeypatch.setattr(langfuse, "_SECONDS", 0.3)
            case "busy":
                double.status = 503
            case "garbage":
                double.status, double.body = 200, b"{"
            case "no prompt":
                double.status, double.body = 200, b'{"version": "1"}'
            case "flood":
                double.status, double.body = 200, b'"' + b"x" * 1_000_000 + b'"'
            case "broken template":
                double.prompts = {"answer": {2: "{{"}}
            case "gone":
                prompts._http.base_url = without_a_copy._http.base_url = "http://127.0.0.1:1"  # type: ignore[assignment]
        assert await text(prompts) == "one"
        if trouble != "broken template":
            assert await text(without_a_copy) == "of the file"
            with pytest.raises(DependencyUnavailable):
                await text(without_a_copy, "nothing")


@pytest.mark.conformance
async def test_a_wrong_key_is_no_answer(double: LangfuseDouble) -> None:
    double.prompts = {"answer": {1: "one"}}
    async with library(double, secret_key="wrong") as prompts:
        assert await text(prompts) == "of the file"


@pytest.mark.conformance
async def test_what_failed_is_not_waited_for_again_at_once(
    double: LangfuseDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(langfuse, "_SECONDS", 0.3)
    monkeypatch.setattr(langfuse, "_FAILED_SECONDS", 60.0)
    double.silent = True
    async with library(double) as prompts:
        for _ in range(10):
            assert await text(prompts) == "of the file"
    assert len(double.asked) <= 1
