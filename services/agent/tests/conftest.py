"""Passages, wordings and agents to test with, and the service on a database of its own."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from importlib.resources import files
from typing import Any

import pytest
from loremesh_agent import prompts
from loremesh_agent.domain.agents import Agent, Window
from loremesh_agent.domain.passages import Found, Passage
from loremesh_kit.identity import Identity
from loremesh_kit.testing import DatabaseUrls, caller, fresh_database

from .replicas import Mesh

LIGHTHOUSE = (
    "The lighthouse of Genoa is 77 metres high. It was built in 1128 and rebuilt in 1543 after a war. "
    "Its lamp can be seen 50 kilometres away."
)
SOUP = "Pumpkin soup is made of pumpkin, ginger and coconut milk. It is boiled for half an hour."

MakePassage = Callable[..., Passage]


def make_passage(content: str = LIGHTHOUSE, **fields: Any) -> Passage:
    name = fields.pop("name", "lighthouse")
    given = {
        "document_id": f"document-{name}",
        "chunk_id": f"chunk-{name}",
        "vector_store_id": "default",
        "title": name.capitalize(),
        "content": content,
        "score": 1.0,
        "attributes": {"lang": "en"},
        "start_char": 10,
        "end_char": 10 + len(content),
        "page": 3,
        "heading_path": ("Italy", "Genoa"),
    }
    return Passage(**{**given, **fields})


def make_agent(**fields: Any) -> Agent:
    given = {
        "id": "default",
        "model": "a-model",
        "wording": prompts.load("full"),
        "window": Window(context_tokens=4096, prompt_tokens=2048),
        "max_output_tokens": 256,
        "top_k": 4,
    }
    return Agent(**{**given, **fields})


@pytest.fixture(name="make_passage")
def _make_passage() -> MakePassage:
    return make_passage


@pytest.fixture(name="make_agent")
def _make_agent() -> Callable[..., Agent]:
    return make_agent


@pytest.fixture
def found() -> Found:
    return Found(passages=(make_passage(), make_passage(SOUP, name="soup", score=0.5)), similarity=0.7)


@pytest.fixture
def who() -> Iterator[Identity]:
    with caller() as identity:
        yield identity


def agent_database(postgres_url: str) -> AbstractAsyncContextManager[DatabaseUrls]:
    return fresh_database(postgres_url, schema="agent", migrations=files("loremesh_agent") / "migrations")


@pytest.fixture
async def database_urls(postgres_url: str) -> AsyncIterator[DatabaseUrls]:
    async with agent_database(postgres_url) as urls:
        yield urls


@pytest.fixture
def mesh(database_urls: DatabaseUrls, nats_url: str, found: Found, monkeypatch: pytest.MonkeyPatch) -> Mesh:
    monkeypatch.setattr("loremesh_kit.worker._FIRST_RETRY_SECONDS", 0.05)
    monkeypatch.setattr("loremesh_kit.sweeper._SECONDS", 0.1)
    return Mesh(database_urls, nats_url, found)
