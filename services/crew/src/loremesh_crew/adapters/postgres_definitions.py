"""Crews and flows in Postgres. Row-level security adds the tenant to every statement."""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from loremesh_kit.postgres import Database, Row
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb
from pydantic import TypeAdapter

from loremesh_crew.domain.definitions import Crew, Flow
from loremesh_crew.domain.machine import RunKind
from loremesh_crew.errors import CrewExists, FlowExists

_COLUMNS = """
kept.definition_id AS id, kept.revision, definition, definition_create_time AS create_time,
kept.create_time AS update_time
"""
_JOINED = """
definitions JOIN definition_revisions AS kept ON kept.kind = definitions.kind AND kept.definition_id = definitions.id
"""

_CURRENT = f"""
SELECT {_COLUMNS} FROM {_JOINED} AND kept.revision = definitions.revision
WHERE definitions.kind = %(kind)s AND definitions.id = %(id)s AND NOT deleted
"""  # noqa: S608 - made of constants, as all here

_REVISION = f"""
SELECT {_COLUMNS} FROM definition_revisions AS kept
WHERE kind = %(kind)s AND definition_id = %(id)s AND revision = %(revision)s
"""  # noqa: S608

_PAGE = f"""
SELECT {_COLUMNS} FROM {_JOINED} AND kept.revision = definitions.revision
WHERE definitions.kind = %(kind)s AND definitions.id > %(after)s AND NOT deleted
ORDER BY definitions.id LIMIT %(limit)s
"""  # noqa: S608

_REVISIONS = f"""
SELECT {_COLUMNS} FROM definition_revisions AS kept
WHERE kind = %(kind)s AND definition_id = %(id)s AND revision < %(before)s ORDER BY revision DESC LIMIT %(limit)s
"""  # noqa: S608

_CREATE = """
INSERT INTO definitions (kind, id, revision) VALUES (%(kind)s, %(id)s, 1)
ON CONFLICT (tenant, kind, id) DO UPDATE SET revision = definitions.revision + 1, deleted = false, create_time = now()
    WHERE definitions.deleted
RETURNING revision, create_time
"""

_REVISE = """
UPDATE definitions SET revision = revision + 1
WHERE kind = %(kind)s AND id = %(id)s AND revision = %(expected)s AND NOT deleted
RETURNING revision, create_time
"""

_KEEP = """
INSERT INTO definition_revisions (kind, definition_id, revision, definition, definition_create_time)
VALUES (%(kind)s, %(id)s, %(revision)s, %(definition)s, %(create_time)s)
RETURNING definition_id AS id, revision, definition, definition_create_time AS create_time, create_time AS update_time
"""

_DELETE = """
UPDATE definitions SET deleted = true WHERE kind = %(kind)s AND id = %(id)s AND NOT deleted RETURNING id
"""

_NO_COLUMNS = frozenset({"id", "revision", "create_time", "update_time", "built_in"})
_LAST = 2**63 - 1

D = TypeVar("D", Crew, Flow)


class PostgresDefinitions(Generic[D]):
    """One kind's rows of `definitions` and `definition_revisions`; see ports.DefinitionStore."""

    def __init__(self, *, database: Database, kind: RunKind, type_: type[D]) -> None:
        self._database = database
        self._kind = kind
        self._adapter: TypeAdapter[Any] = TypeAdapter(type_)

    async def current(self, definition_id: str) -> D | None:
        """See ports.DefinitionStore."""
        return self._first(await self._database.fetch(_CURRENT, self._of(definition_id)))

    async def revision(self, definition_id: str, revision: int) -> D | None:
        """See ports.DefinitionStore."""
        return self._first(await self._database.fetch(_REVISION, {**self._of(definition_id), "revision": revision}))

    async def page(self, *, after: str, limit: int) -> Sequence[D]:
        """See ports.DefinitionStore."""
        parameters = {"kind": self._kind, "after": after, "limit": limit}
        return [self._read(row) for row in await self._database.fetch(_PAGE, parameters)]

    async def revisions(self, definition_id: str, *, before: int | None, limit: int) -> Sequence[D]:
        """See ports.DefinitionStore."""
        parameters = {**self._of(definition_id), "before": _LAST if before is None else before, "limit": limit}
        return [self._read(row) for row in await self._database.fetch(_REVISIONS, parameters)]

    async def create(self, definition: D) -> D:
        """See ports.DefinitionStore."""
        async with self._database.transaction() as connection:
            made = await (await connection.execute(_CREATE, self._of(definition.id))).fetchone()
            if made is None:
                raise self._exists(definition.id)
            return await self._keep(connection, definition, made)

    async def revise(self, definition: D, *, expected: int) -> D | None:
        """See ports.DefinitionStore."""
        parameters = {**self._of(definition.id), "expected": expected}
        async with self._database.transaction() as connection:
            moved = await (await connection.execute(_REVISE, parameters)).fetchone()
            return None if moved is None else await self._keep(connection, definition, moved)

    async def delete(self, definition_id: str) -> bool:
        """See ports.DefinitionStore."""
        async with self._database.transaction() as connection:
            return await (await connection.execute(_DELETE, self._of(definition_id))).fetchone() is not None

    async def _keep(self, connection: AsyncConnection[Row], wanted: D, made: Row) -> D:
        parameters = {**made, **self._of(wanted.id), "definition": Jsonb(self._document(wanted))}
        kept = await (await connection.execute(_KEEP, parameters)).fetchone()
        if kept is None:
            raise self._exists(wanted.id)
        return self._read(kept)

    def _of(self, definition_id: str) -> dict[str, Any]:
        return {"kind": self._kind, "id": definition_id}

    def _first(self, rows: Sequence[Row]) -> D | None:
        return self._read(rows[0]) if rows else None

    def _read(self, row: Row) -> D:
        fields = {**row["definition"], **{name: value for name, value in row.items() if name != "definition"}}
        read: D = self._adapter.validate_python(fields)
        return read

    def _document(self, definition: D) -> Any:
        """A definition as JSON, without what has columns."""
        return self._adapter.dump_python(definition, mode="json", exclude=set(_NO_COLUMNS))

    def _exists(self, id_: str) -> CrewExists | FlowExists:
        return CrewExists(id_) if self._kind is RunKind.CREW else FlowExists(id_)
