"""What a service's tests need: a database of their own, and a server in their own process."""

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import LiteralString
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
from grpc import aio
from psycopg.errors import DuplicateObject
from psycopg.sql import SQL, Identifier, Literal

from loremesh_kit import identity
from loremesh_kit.channel import open_channel
from loremesh_kit.migrations import migrate
from loremesh_kit.server import Role, Wired, serve
from loremesh_kit.settings import ServiceSettings

# Roles belong to the whole server, databases come and go: one password for all of them.
_PASSWORD = secrets.token_urlsafe(12)


@dataclass(frozen=True, kw_only=True)
class DatabaseUrls:
    """Ways into one database: as the plain role a service runs as, and as the owner who migrates."""

    plain: str
    owner: str


@asynccontextmanager
async def fresh_database(
    superuser_url: str,
    *,
    schema: str,
    migrations: Traversable | Path | None = None,
) -> AsyncIterator[DatabaseUrls]:
    """A new database with the roles `<schema>` and `<schema>_owner`, migrated; dropped at the end."""
    name, owner = f"test_{secrets.token_hex(6)}", f"{schema}_owner"
    async with await psycopg.AsyncConnection.connect(superuser_url, autocommit=True) as connection:
        for role in (schema, owner):
            await _ensure_role(connection, role)
        await _execute(connection, "CREATE DATABASE {} OWNER {}", name, owner)
    urls = DatabaseUrls(
        plain=_url(superuser_url, user=schema, database=name),
        owner=_url(superuser_url, user=owner, database=name),
    )
    try:
        await migrate(urls.owner, schema=schema, role=schema, directory=migrations)
        yield urls
    finally:
        async with await psycopg.AsyncConnection.connect(superuser_url, autocommit=True) as connection:
            await _execute(connection, "DROP DATABASE {} WITH (FORCE)", name)


async def _ensure_role(connection: psycopg.AsyncConnection, role: str) -> None:
    with suppress(DuplicateObject):
        await _execute(connection, "CREATE ROLE {} LOGIN", role)
    alter = SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(Identifier(role), Literal(_PASSWORD))
    await connection.execute(alter)


async def _execute(connection: psycopg.AsyncConnection, statement: LiteralString, *names: str) -> None:
    await connection.execute(SQL(statement).format(*map(Identifier, names)))


def _url(superuser_url: str, *, user: str, database: str) -> str:
    parts = urlsplit(superuser_url)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(user)}:{quote(_PASSWORD)}@{place}", path=f"/{database}"))


@asynccontextmanager
async def serving(
    wired: Wired,
    *,
    service: str,
    settings: ServiceSettings | None = None,
    role: Role = "all",
) -> AsyncIterator[aio.Channel]:
    """Serve in this process; the channel carries the identity that is in force when a call is made."""
    settings = settings or ServiceSettings(drain_seconds=0)
    async with (
        serve(wired, service=service, settings=settings, role=role) as running,
        open_channel(running.target) as channel,
    ):
        yield channel


@contextmanager
def caller(tenant: str = "acme", principal: str = "ada", request_id: str = "request-1") -> Iterator[identity.Identity]:
    """Be somebody for the block."""
    with identity.scope(identity.Identity(tenant=tenant, principal=principal, request_id=request_id)) as who:
        yield who
