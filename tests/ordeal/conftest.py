"""Ground for processes that die: a broker with many accounts, and lots on it."""

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
import structlog
from loremesh_cli.mesh import nats
from loremesh_cli.mesh.ports import free_ports
from loremesh_cli.mesh.running import running
from loremesh_ingestion.main import MIGRATIONS
from loremesh_ingestion.wiring import SERVICE
from loremesh_kit.testing import fresh_database

from tests.ordeal.lot import Lot
from tests.ordeal.steel import WHOLE, Ground, Twin, broker_with_accounts

_ACCOUNTS = 64

MakeLot = Callable[..., AbstractAsyncContextManager[Lot]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loremesh_kit.worker._FIRST_RETRY_SECONDS", 0.05)
    monkeypatch.setattr("loremesh_kit.sweeper._SECONDS", 0.2)
    monkeypatch.setattr("loremesh_kit.sweeper._PATIENCE", 1.0)


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    """What dying processes say of it would be most of the output."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def brokers(servers_directory: Path) -> Iterator[Iterator[str]]:
    """Addresses of brokers nobody has used yet."""
    directory, password, (port,) = servers_directory / "nats-accounts", secrets.token_urlsafe(), free_ports(1)
    program = nats.program(directory, port=port, password=password)
    names = broker_with_accounts(directory / "nats.conf", count=_ACCOUNTS, password=password)
    assert json.loads((directory / "nats.conf").read_text())["accounts"]
    with running(program, log=servers_directory / "nats-accounts.log"):
        yield iter(f"nats://{name}:{password}@127.0.0.1:{port}" for name in names)


@pytest.fixture
def make_lot(postgres_url: str, brokers: Iterator[str]) -> MakeLot:
    """A lot with a process on it; whatever process it has at the end is ended."""
    one_at_a_time = asyncio.Lock()  # two may not alter a role at once

    @asynccontextmanager
    async def make(twin: Twin = WHOLE) -> AsyncIterator[Lot]:
        async with AsyncExitStack() as stack:
            async with one_at_a_time:
                database = fresh_database(postgres_url, schema=SERVICE, migrations=MIGRATIONS)
                urls = await stack.enter_async_context(database)
            ground = Ground(database_url=urls.plain, nats_url=next(brokers))
            lot = Lot(ground=ground, superuser_url=_superuser(postgres_url, urls.plain), twin=twin)
            await lot.start()
            try:
                yield lot
            finally:
                await lot.close()

    return make


def _superuser(postgres_url: str, database_url: str) -> str:
    parts = urlsplit(postgres_url)
    options = f"options=-c%20search_path%3D{SERVICE}"
    return urlunsplit(parts._replace(path=urlsplit(database_url).path, query=options))
