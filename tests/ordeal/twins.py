"""The service without one of its mechanisms each: what a promise is worth shows when what it rests on is taken away."""

import asyncio
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

from loremesh_ingestion.ports import IndexedDocument, IndexEntry
from loremesh_kit.errors import DependencyUnavailable
from loremesh_kit.postgres import Connection
from loremesh_kit.server import Wired
from loremesh_kit.worker import JobWorker

from tests.ordeal.life import Killed, place
from tests.ordeal.steel import MortalDatabase, Twin

_LATER_SECONDS = 0.5


class _LateDatabase(MortalDatabase):
    """Says that an upload is committed and commits it a little later."""

    @asynccontextmanager
    async def _transaction(self, tenant: str, **how: Any) -> AsyncIterator[Connection]:
        opened = super()._transaction(tenant, **how)
        if place() != "uploads._insert":
            async with opened as connection:
                yield connection
            return
        yield await opened.__aenter__()
        self.late = asyncio.get_running_loop().create_task(self._commit(opened))

    async def _commit(self, opened: Any) -> None:
        await asyncio.sleep(_LATER_SECONDS)
        # Rolls back when the process has died meanwhile.
        error = Killed() if self.life.died.is_set() else None
        with suppress(Killed):
            await opened.__aexit__(type(error) if error else None, error, None)


class _NoSweeper:
    async def run(self, stop: asyncio.Event) -> None:
        """Sweep nothing."""
        await stop.wait()


def _unswept(wired: Wired) -> Wired:
    for worker in _job_workers(wired):
        worker._sweeper = _NoSweeper()
    return wired


def _job_workers(wired: Wired) -> list[Any]:
    return [worker for worker in wired.workers if isinstance(worker, JobWorker)]


def _acked_at_once(wired: Wired) -> Wired:
    for worker in _job_workers(_unswept(wired)):
        taking = worker._consumer.take

        async def take(limit: int, taking: Any = taking) -> Any:
            messages = await taking(limit)
            for message in messages:
                await message.ack()
            return messages

        worker._consumer.take = take
    return wired


class _RandomIds:
    """An index whose points get another id each time they are written."""

    def __init__(self, index: Any) -> None:
        self._index = index

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)

    async def upsert(self, document: IndexedDocument, entries: Sequence[IndexEntry]) -> None:
        """Write under new ids."""
        await self._index.upsert(document, [replace(entry, id=str(uuid.uuid4())) for entry in entries])


class _Hoarder:
    """An object store that keeps what it is told to delete."""

    def __init__(self, blobs: Any) -> None:
        self._blobs = blobs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    async def delete_all(self, prefix: str) -> int:
        """Delete nothing."""
        del prefix
        return 0


class _Careless:
    """An object store whose refusal to write is not heard."""

    def __init__(self, blobs: Any) -> None:
        self._blobs = blobs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    async def write(self, key: str, pieces: AsyncIterable[bytes]) -> None:
        """Whatever comes of it."""
        with suppress(DependencyUnavailable):
            await self._blobs.write(key, pieces)
        async for _ in pieces:
            pass


class _Sluggish:
    """An index whose deletions have not begun."""

    def __init__(self, index: Any) -> None:
        self._index = index

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)

    async def delete(self, **_: Any) -> int:
        """Delete nothing yet."""
        return 0


OK_BEFORE_COMMIT = Twin(database=_LateDatabase)
ACK_BEFORE_CLAIM = Twin(wired=_acked_at_once)
NO_SWEEPER = Twin(wired=_unswept)
NO_OUTBOX = Twin(
    # What is to be sent is forgotten before it is sent.
    rewrites=[
        (
            r"UPDATE outbox SET held_until = now\(\) \+ interval '15 s'\s+FROM unsent",
            "DELETE FROM outbox USING unsent",
        )
    ],
    wired=_unswept,
)
RANDOM_POINT_IDS = Twin(ports=lambda name, port: _RandomIds(port) if name == "index" else port)
NO_FENCE = Twin(
    rewrites=[
        (r" AND jobs\.fence = given\.fence\s+WHERE jobs\.state = 'RUNNING' AND", " WHERE"),
        (r"\s+AND latest_version = held\.version AND documents\.state IN \([^)]*\)", ""),
        # Nor does the heartbeat stop a worker whose job went to another.
        (r" AND jobs\.fence = mine\.fence\s+WHERE state = 'RUNNING'", ""),
        # The purge of the older version's rows is still to come: without them its chunks could not be saved.
        (r"DELETE FROM document_versions WHERE document_id = %s AND version < %s", r"\g<0> AND false"),
    ]
)
NO_PURGE = Twin(ports=lambda name, port: _Hoarder(port) if name == "blobs" else port)
REFUSAL_UNHEARD = Twin(ports=lambda name, port: _Careless(port) if name == "blobs" else port)
CONTENT_UNKNOWN = Twin(
    # The bytes a document has are not compared with those that come for it.
    rewrites=[
        (r"documents\.sha256(?=.* FROM documents WHERE id = %s ORDER BY live DESC, key FOR UPDATE)", "'' AS sha256"),
    ]
)
SLUGGISH_INDEX = Twin(ports=lambda name, port: _Sluggish(port) if name == "index" else port)
KEY_IGNORED = Twin(
    rewrites=[
        (r"RETURNING request_hash, response", "RETURNING %(request_hash)s::bytea AS request_hash, NULL AS response")
    ]
)
