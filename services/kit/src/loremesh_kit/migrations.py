"""Numbered SQL files, each applied once, in order, by one process at a time."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import structlog
from psycopg import AsyncConnection, OperationalError
from psycopg.sql import SQL, Identifier

_FILE = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_LOCK_SPACE = 0x6C6F7265
_HAS_RESTORE = 18_00_00
_log = structlog.get_logger(__name__)


class MigrationError(Exception):
    """The files and the database contradict each other; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file, and whose it is: the kit's or the service's."""

    source: str
    version: int
    name: str
    sql: str

    @property
    def digest(self) -> str:
        """SHA-256 of its text, in hexadecimal."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def read(source: str, directory: Traversable | Path) -> list[Migration]:
    """The files `0001_name.sql`, `0002_...` in order; raises MigrationError for a gap, a double or an odd name."""
    migrations = []
    for path in sorted(directory.iterdir(), key=lambda path: path.name):
        if not path.name.endswith(".sql"):
            continue
        if not (parts := _FILE.fullmatch(path.name)):
            message = f"{path.name} is not named like 0001_what_it_does.sql"
            raise MigrationError(message)
        migrations.append(Migration(source, int(parts[1]), parts[2], path.read_text(encoding="utf-8")))
    if [migration.version for migration in migrations] != list(range(1, len(migrations) + 1)):
        message = f"the migrations of {source} are not numbered 1, 2, 3 ..."
        raise MigrationError(message)
    return migrations


async def migrate(
    url: str,
    *,
    schema: str,
    role: str,
    directory: Traversable | Path | None,
    patience: float = 60.0,
) -> None:
    """Bring `schema` up to date with the kit's files and the service's, and let the plain `role` use it.

    Waits up to `patience` seconds for Postgres. Raises MigrationError when an applied file was changed since, or a
    table is left without forced row-level security.
    """
    wanted = read("kit", files("loremesh_kit") / "migrations")
    if directory is not None:
        wanted += read(schema, directory)
    async with _locked(url, schema=schema, patience=patience) as connection:
        await _create_schema(connection, schema)
        applied = await _applied(connection)
        _compare(wanted, applied)
        for migration in wanted:
            if (migration.source, migration.version) not in applied:
                await _apply(connection, migration)
        await _check_isolation(connection, schema)
        await _estimate(connection, schema)
        await _grant(connection, schema=schema, role=role)


@asynccontextmanager
async def _locked(url: str, *, schema: str, patience: float) -> AsyncIterator[AsyncConnection]:
    async with await _connect(url, patience=patience) as connection:
        await connection.execute("SELECT pg_advisory_lock(%s, hashtext(%s))", [_LOCK_SPACE, schema])
        yield connection


async def _connect(url: str, *, patience: float) -> AsyncConnection:
    delay = 0.1
    async with asyncio.timeout(patience):
        while True:
            try:
                return await AsyncConnection.connect(url, autocommit=True, connect_timeout=5)
            except OperationalError as error:
                _log.warning("waiting for postgres", error=str(error).strip(), retry_in_seconds=delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 2.0)


async def _create_schema(connection: AsyncConnection, schema: str) -> None:
    # IF NOT EXISTS alone asks for the right to create schemas even where there is nothing to create.
    found = await connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema])
    if await found.fetchone() is None:
        await connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
    await connection.execute(SQL("SET search_path TO {}").format(Identifier(schema)))
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations ("
        " source text, version integer, name text NOT NULL, digest text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (source, version))",
    )


async def _applied(connection: AsyncConnection) -> dict[tuple[str, int], str]:
    rows = await connection.execute("SELECT source, version, digest FROM schema_migrations")
    return {(source, version): digest for source, version, digest in await rows.fetchall()}


def _compare(wanted: Sequence[Migration], applied: dict[tuple[str, int], str]) -> None:
    # A database ahead of the code is fine: the previous release runs on while the next one is rolled out.
    for migration in wanted:
        digest = applied.get((migration.source, migration.version))
        if digest is not None and digest != migration.digest:
            message = f"{migration.source} {migration.version:04}_{migration.name} was changed after it was applied"
            raise MigrationError(message)


async def _apply(connection: AsyncConnection, migration: Migration) -> None:
    async with connection.transaction():
        await connection.execute(migration.sql, prepare=False)
        await connection.execute(
            "INSERT INTO schema_migrations (source, version, name, digest) VALUES (%s, %s, %s, %s)",
            [migration.source, migration.version, migration.name, migration.digest],
        )
    _log.info("migrated", source=migration.source, version=migration.version, name=migration.name)


async def _check_isolation(connection: AsyncConnection, schema: str) -> None:
    rows = await connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind IN ('r', 'p')"
        " AND NOT (relrowsecurity AND relforcerowsecurity) AND relname <> 'schema_migrations'",
        [schema],
    )
    if exposed := [name for (name,) in await rows.fetchall()]:
        message = f"tables without forced row-level security: {', '.join(exposed)}"
        raise MigrationError(message)


async def _estimate(connection: AsyncConnection, schema: str) -> None:
    """Let the planner take all rows of an empty table for one tenant's.

    Without statistics an index that begins with the tenant looks as good as the whole key, and a service that began on
    empty tables would read every row of its tenant to find one, until the tables are analysed.
    """
    if connection.info.server_version >= _HAS_RESTORE:
        await connection.execute(
            "SELECT pg_restore_attribute_stats('schemaname', %s::text, 'relname', relname::text, 'attname', 'tenant',"
            " 'inherited', false, 'null_frac', 0::real, 'avg_width', 8, 'n_distinct', 1::real)"
            " FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid"
            " WHERE relnamespace = to_regnamespace(%s) AND relkind = 'r' AND attname = 'tenant' AND reltuples <= 0",
            [schema, schema],
        )


async def _grant(connection: AsyncConnection, *, schema: str, role: str) -> None:
    names = {"schema": Identifier(schema), "role": Identifier(role)}
    for grant in (
        "GRANT USAGE ON SCHEMA {schema} TO {role}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}",
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {role}",
    ):
        await connection.execute(SQL(grant).format(**names))
