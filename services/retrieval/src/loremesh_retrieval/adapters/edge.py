"""The index in this process: Qdrant Edge, the engine of the server without the server.

Each of its calls holds the interpreter lock until it returns, so a thread of their own would free nobody and cost
each search two switches (0.5 ms of 1.5): reads are made where they are asked for. Changes, for which much is prepared
in Python, go through one thread in batches that last milliseconds.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import qdrant_edge as edge
from loremesh_kit import deadline
from loremesh_kit.errors import DeadlineExceeded
from loremesh_kit.filters import Filter

from loremesh_retrieval.adapters import edge_requests
from loremesh_retrieval.adapters.edge_shards import LEAST_FREE_BYTES, Shard, Shards
from loremesh_retrieval.domain.chunks import Chunk, ChunkVectors, DocumentVersion, IndexedChunk, SparseVector
from loremesh_retrieval.domain.collections import check_dimension
from loremesh_retrieval.domain.payloads import VERSION, chunk_in, described, range_fields, versions_in
from loremesh_retrieval.domain.queries import SCOPE, chunks_of
from loremesh_retrieval.domain.ranking import Hit
from loremesh_retrieval.domain.scope import Scope
from loremesh_retrieval.domain.search import Branch, QueryVectors

T = TypeVar("T")
_BATCH = 500
_SECONDS = 30.0
_OPEN_SECONDS = 300.0


class EdgeIndex:
    """Keeps each embedding model's chunks in a shard of its own below one directory."""

    def __init__(self, *, shards: Shards, thread: ThreadPoolExecutor) -> None:
        """`thread` has one worker, on which alone `shards` are changed."""
        self._shards = shards
        self._thread = thread

    @classmethod
    @asynccontextmanager
    async def open(cls, directory: Path, *, least_free: int = LEAST_FREE_BYTES) -> AsyncIterator[Self]:
        """Open the index below `directory`; raises DataDirectoryInUseError.

        With less than `least_free` bytes free on its disk it takes no more chunks: they raise DependencyUnavailable.
        """
        shards = Shards(directory, least_free=least_free)
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="edge") as thread:
            index = cls(shards=shards, thread=thread)
            await index._run(shards.open, seconds=_OPEN_SECONDS)
            try:
                yield index
            finally:
                await index._run(shards.close, seconds=_OPEN_SECONDS)

    async def rank(
        self,
        model: str,
        scope: Scope,
        vectors: QueryVectors,
        *,
        limit: int,
        filter_: Filter | None = None,
        point_ids: Sequence[str] | None = None,
        excluded: Collection[DocumentVersion] = (),
    ) -> Mapping[Branch, list[Hit]]:
        """See ports.ChunkSearch."""
        if (shard := self._shards.get(model)) is None:
            return {}
        if vectors.dense is not None:
            check_dimension(model, expected=shard.dimension, actual=len(vectors.dense))
        return edge_requests.rank(
            shard.engine,
            vectors,
            limit=limit,
            seen=edge_requests.where(chunks_of(scope, filter_=filter_, point_ids=point_ids, excluded=excluded)),
            corpus=edge_requests.where(chunks_of(scope)),
        )

    async def fetch(self, model: str, scope: Scope, point_ids: Sequence[str]) -> Mapping[str, Chunk]:
        """See ports.ChunkSearch."""
        if (shard := self._shards.get(model)) is None:
            return {}
        key = scope.key
        records = shard.engine.retrieve(list(point_ids), True, False)  # noqa: FBT003 - it takes no keywords
        return {
            edge_requests.digits(record.id): chunk_in(record.payload)
            for record in records
            if record.payload and record.payload[SCOPE] == key
        }

    async def rank_terms(
        self, model: str, scope: Scope, terms: SparseVector, *, limit: int, filter_: Filter | None = None
    ) -> Mapping[Hit, DocumentVersion]:
        """See ports.ChunkSearch."""
        if (shard := self._shards.get(model)) is None:
            return {}
        return edge_requests.rank_terms(
            shard.engine,
            terms,
            limit=limit,
            seen=edge_requests.where(chunks_of(scope, filter_=filter_)),
            corpus=edge_requests.where(chunks_of(scope)),
        )

    async def ping(self) -> None:
        """Raise when changes are stuck."""
        await self._run(lambda: None)

    async def upsert(self, model: str, dimension: int, scope: Scope, chunks: Sequence[IndexedChunk]) -> None:
        """See ports.ChunkStore."""

        def on_thread() -> Shard:
            self._shards.require_room()
            shard = self._shards.get(model) or self._shards.create(model, dimension)
            check_dimension(model, expected=shard.dimension, actual=dimension)
            shard.index_ranges(range_fields(indexed.chunk.attributes for indexed in chunks))
            points = edge_requests.points(scope, chunks)
            shard.update(edge.UpdateOperation.upsert_points(points), points=len(points))
            return shard

        await self._durably(on_thread)

    async def delete(self, model: str, scope: Scope, *, document_id: str = "", before_version: int = 0) -> int:
        """See ports.ChunkStore."""
        where = edge_requests.where(chunks_of(scope, document_id=document_id, before_version=before_version))
        deleted = 0
        async for ids in self._pages(model, where):
            await self._update(model, edge.UpdateOperation.delete_points(ids), points=len(ids))
            deleted += len(ids)
        return deleted

    async def describe(
        self, model: str, scope: Scope, *, document_id: str, title: str, attributes: Mapping[str, Any]
    ) -> None:
        """See ports.ChunkStore."""
        where = edge_requests.where(chunks_of(scope, document_id=document_id))
        payload = described(title, attributes)
        async for ids in self._pages(model, where):
            operation = edge.UpdateOperation.set_payload(ids, payload)
            await self._update(model, operation, points=len(ids), ranges=range_fields([attributes]))

    async def count(self, model: str, scope: Scope, *, document_id: str = "", version: int = 0) -> int:
        """See ports.ChunkStore."""
        if (shard := self._shards.get(model)) is None:
            return 0
        where = edge_requests.where(chunks_of(scope, document_id=document_id, version=version))
        return shard.engine.count(edge.CountRequest(filter=where))

    async def vectors(self, model: str, scope: Scope, chunk_ids: Sequence[str]) -> Mapping[str, ChunkVectors]:
        """See ports.ChunkStore."""
        if (shard := self._shards.get(model)) is None:
            return {}
        wanted = {scope.point_id(chunk_id): chunk_id for chunk_id in chunk_ids}
        records = shard.engine.retrieve(list(wanted), False, True)  # noqa: FBT003 - it takes no keywords
        return {
            wanted[edge_requests.digits(record.id)]: edge_requests.vectors_in(record.vector or {}) for record in records
        }

    async def versions(self, model: str, scope: Scope) -> AsyncIterator[Mapping[DocumentVersion, int]]:
        """See ports.ChunkStore."""
        offset: Any = None
        where = edge_requests.where(chunks_of(scope))
        while True:
            records, offset = await self._run(self._scroll, model, where, offset, VERSION)
            yield versions_in(record.payload for record in records)
            if offset is None:
                return

    async def _pages(self, model: str, where: edge.Filter) -> AsyncIterator[list[Any]]:
        """Ids of the points that fulfil `where`, a batch at a time, so that searches get their turn between."""
        offset: Any = None
        while True:
            ids, offset = await self._run(self._page, model, where, offset)
            if ids:
                yield ids
            if offset is None:
                return

    def _page(self, model: str, where: edge.Filter, offset: Any) -> tuple[list[Any], Any]:
        records, following = self._scroll(model, where, offset)
        return [record.id for record in records], following

    def _scroll(
        self, model: str, where: edge.Filter, offset: Any, fields: Sequence[str] = ()
    ) -> tuple[Sequence[Any], Any]:
        if (shard := self._shards.get(model)) is None:
            return [], None
        return shard.engine.scroll(
            edge.ScrollRequest(
                offset=offset, limit=_BATCH, filter=where, with_payload=list(fields) or False, with_vector=False
            )
        )

    async def _update(
        self, model: str, operation: edge.UpdateOperation, *, points: int, ranges: Sequence[str] = ()
    ) -> None:
        def on_thread() -> Shard | None:
            if shard := self._shards.get(model):
                shard.index_ranges(ranges)
                shard.update(operation, points=points)
            return shard

        await self._durably(on_thread)

    async def _durably(self, change: Callable[[], Shard | None]) -> None:
        if shard := await self._run(change):
            # On another thread: the disk takes its time, and searches need not wait for it.
            await asyncio.to_thread(shard.sync)

    async def _run(self, call: Callable[..., T], *arguments: Any, seconds: float = _SECONDS) -> T:
        try:
            async with asyncio.timeout(deadline.within(seconds)):
                return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)
        except TimeoutError as error:
            raise DeadlineExceeded from error
