"""A database of their own, and somebody to be."""

from collections.abc import AsyncIterator, Iterator
from importlib.resources import files

import pytest
from loremesh_kit.identity import Identity
from loremesh_kit.testing import DatabaseUrls, caller, fresh_database

from .replicas import Mesh


@pytest.fixture
def who() -> Iterator[Identity]:
    with caller() as identity:
        yield identity


@pytest.fixture
async def database_urls(postgres_url: str) -> AsyncIterator[DatabaseUrls]:
    async with fresh_database(postgres_url, schema="crew", migrations=files("loremesh_crew") / "migrations") as urls:
        yield urls


@pytest.fixture
def mesh(database_urls: DatabaseUrls, nats_url: str, monkeypatch: pytest.MonkeyPatch) -> Mesh:
    monkeypatch.setattr("loremesh_kit.worker._FIRST_RETRY_SECONDS", 0.05)
    monkeypatch.setattr("loremesh_kit.sweeper._SECONDS", 0.1)
    return Mesh(database_urls, nats_url)
