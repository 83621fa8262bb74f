"""The index in a Qdrant server, over gRPC."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self

from grpc import aio
from loremesh_kit import deadline
from loremesh_kit.errors import DeadlineExceeded, Overloaded
from loremesh_kit.filters import Filter
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse

from loremesh_retrieval.adapters import qdrant_requests
from loremesh_retrieval.adapters.peers import calling
from loremesh_retrieval.domain.chunks import Chunk, ChunkVectors, DocumentVersion, IndexedChunk, SparseVector
from loremesh_retrieval.domain.collections import check_dimension, collection_name
from loremesh_retrieval.domain.payloads import VERSION, chunk_in, described, range_fields, version_in, versions_in
from loremesh_retrieval.domain.queries import SCOPE, chunks_of
from loremesh_retrieval.domain.ranking import Hit, ranked
from loremesh_retrieval.domain.scope import Scope
from loremesh_retrieval.domain.search import Branch, QueryVectors

_SECONDS = 30.0
# The first with term statistics of one scope; an older one ignores that they are asked for.
_OLDEST = (1, 19)
_PAGE = 1000
# Indexed attributes of numbers and times; more are ordered too, slower.
_RANGE_INDEXES = 64


class QdrantIndex:
    """Keeps each embedding model's chunks in a collection of its own."""

    def __init__(self, *, client: AsyncQdrantClient) -> None:
        self._client = client
        self._dimensions: dict[str, int] = {}
        self._indexed: dict[str, set[str]] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, grpc_port: int, api_key: str) -> AsyncIterator[Self]:
        """The index at a server's address; connects when it is first used."""
        client = AsyncQdrantClient(
            url=url,
            grpc_port=grpc_port,
            api_key=api_key or None,
            prefer_grpc=True,
            timeout=int(_SECONDS),
            check_compatibility=False,
        )
        try:
            yield cls(client=client)
        finally:
            await client.close()

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
        async with _answering():
            if (dimension := await self._dimension(model)) is None:
                return {}
            if vectors.dense is not None:
                check_dimension(model, expected=dimension, actual=len(vectors.dense))
            asked = qdrant_requests.rankings(
                vectors,
                limit=limit,
                seen=qdrant_requests.where(chunks_of(scope, filter_=filter_, point_ids=point_ids, excluded=excluded)),
                corpus=qdrant_requests.where(chunks_of(scope)),
            )
            answers = await self._client.query_batch_points(collection_name(model), list(asked.values()))
        return {
            branch: ranked(Hit(_digits(point.id), point.score) for point in answer.points)
            for branch, answer in zip(asked, answers, strict=True)
        }

    async def fetch(self, model: str, scope: Scope, point_ids: Sequence[str]) -> Mapping[str, Chunk]:
        """See ports.ChunkSearch."""
        async with _answering():
            if await self._dimension(model) is None:
                return {}
            records = await self._client.retrieve(collection_name(model), list(point_ids))
        key = scope.key
        return {
            _digits(record.id): chunk_in(record.payload)
            for record in records
            if record.payload and record.payload[SCOPE] == key
        }

    async def rank_terms(
        self, model: str, scope: Scope, terms: SparseVector, *, limit: int, filter_: Filter | None = None
    ) -> Mapping[Hit, DocumentVersion]:
        """See ports.ChunkSearch."""
        async with _answering():
            if await self._dimension(model) is None:
                return {}
            asked = qdrant_requests.by_terms(
                terms,
                limit=limit,
                seen=qdrant_requests.where(chunks_of(scope, filter_=filter_)),
                corpus=qdrant_requests.where(chunks_of(scope)),
                fields=VERSION,
            )
            (answer,) = await self._client.query_batch_points(collection_name(model), [asked])
        found = {Hit(_digits(point.id), point.score): version_in(point.payload or {}) for point in answer.points}
        return {hit: found[hit] for hit in ranked(found)}

    async def ping(self) -> None:
        """Raise when the server does not answer, or is one that would score over all tenants' documents together."""
        version = (await self._client.info()).version
        if tuple(map(int, version.split(".")[:2])) < _OLDEST:
            raise RuntimeError(f"Qdrant {'.'.join(map(str, _OLDEST))} or newer is needed, not {version}")

    async def upsert(self, model: str, dimension: int, scope: Scope, chunks: Sequence[IndexedChunk]) -> None:
        """See ports.ChunkStore."""
        async with _answering():
            await self._prepare(model, dimension)
            await self._index_ranges(model, range_fields(indexed.chunk.attributes for indexed in chunks))
            await self._client.upsert(collection_name(model), qdrant_requests.points(scope, chunks), wait=True)

    async def delete(self, model: str, scope: Scope, *, document_id: str = "", before_version: int = 0) -> int:
        """See ports.ChunkStore; what others write between counting and deleting is not counted."""
        where = qdrant_requests.where(chunks_of(scope, document_id=document_id, before_version=before_version))
        async with _answering():
            if await self._dimension(model) is None:
                return 0
            found = await self._client.count(collection_name(model), where, exact=True)
            await self._client.delete(collection_name(model), models.FilterSelector(filter=where), wait=True)
        return found.count

    async def describe(
        self, model: str, scope: Scope, *, document_id: str, title: str, attributes: Mapping[str, Any]
    ) -> None:
        """See ports.ChunkStore."""
        where = qdrant_requests.where(chunks_of(scope, document_id=document_id))
        async with _answering():
            if await self._dimension(model) is None:
                return
            await self._index_ranges(model, range_fields([attributes]))
            await self._client.set_payload(
                collection_name(model), described(title, attributes), models.FilterSelector(filter=where), wait=True
            )

    async def count(self, model: str, scope: Scope, *, document_id: str = "", version: int = 0) -> int:
        """See ports.ChunkStore."""
        where = qdrant_requests.where(chunks_of(scope, document_id=document_id, version=version))
        async with _answering():
            if await self._dimension(model) is None:
                return 0
            return (await self._client.count(collection_name(model), where, exact=True)).count

    async def vectors(self, model: str, scope: Scope, chunk_ids: Sequence[str]) -> Mapping[str, ChunkVectors]:
        """See ports.ChunkStore."""
        wanted = {scope.point_id(chunk_id): chunk_id for chunk_id in chunk_ids}
        async with _answering():
            if await self._dimension(model) is None:
                return {}
            records = await self._client.retrieve(
                collection_name(model), list(wanted), with_payload=False, with_vectors=True
            )
        return {wanted[_digits(record.id)]: qdrant_requests.vectors_in(record.vector) for record in records}

    async def versions(self, model: str, scope: Scope) -> AsyncIterator[Mapping[DocumentVersion, int]]:
        """See ports.ChunkStore."""
        offset: Any = None
        while True:
            async with _answering():
                if await self._dimension(model) is None:
                    return
                records, offset = await self._client.scroll(
                    collection_name(model),
                    qdrant_requests.where(chunks_of(scope)),
                    limit=_PAGE,
                    offset=offset,
                    with_payload=list(VERSION),
                )
            yield versions_in(record.payload for record in records)
            if offset is None:
                return

    async def _dimension(self, model: str) -> int | None:
        """Length of the collection's vectors, None when nothing was ever written to it."""
        if (known := self._dimensions.get(model)) is not None:
            return known
        name = collection_name(model)
        if not await self._client.collection_exists(name):
            return None
        info = await self._client.get_collection(name)
        vectors = info.config.params.vectors
        if not isinstance(vectors, Mapping):
            raise TypeError(f"collection {name} was not made by this service")
        self._indexed[model] = set(info.payload_schema)
        dimension = self._dimensions[model] = vectors[qdrant_requests.DENSE].size
        return dimension

    async def _prepare(self, model: str, dimension: int) -> None:
        """Make the collection and its indexes, whatever of them another process has not made yet."""
        name = collection_name(model)
        if await self._dimension(model) is None:
            try:
                await self._client.create_collection(name, **qdrant_requests.collection(dimension))
            except (aio.AioRpcError, ValueError):
                # Another process may have been quicker.
                if not await self._client.collection_exists(name):
                    raise
        check_dimension(model, expected=await self._dimension(model) or dimension, actual=dimension)
        for field, schema in qdrant_requests.keyword_indexes().items():
            await self._index(model, field, schema)

    async def _index_ranges(self, model: str, fields: Iterable[str]) -> None:
        for field in fields:
            if len(self._indexed[model]) < _RANGE_INDEXES:
                await self._index(model, field, models.PayloadSchemaType.FLOAT)

    async def _index(self, model: str, field: str, schema: Any) -> None:
        if field not in self._indexed[model]:
            await self._client.create_payload_index(collection_name(model), field, schema, wait=True)
            self._indexed[model].add(field)


def _digits(point_id: object) -> str:
    return str(point_id).replace("-", "")


@asynccontextmanager
async def _answering() -> AsyncIterator[None]:
    """Bound the enclosed calls by the deadline, and give their failures our names."""
    try:
        async with asyncio.timeout(deadline.within(_SECONDS)):
            with calling("engine"), _limited():
                yield
    except TimeoutError as error:
        raise DeadlineExceeded from error


@contextmanager
def _limited() -> Iterator[None]:
    try:
        yield
    except ResourceExhaustedResponse as error:
        raise Overloaded(retry_after=float(error.retry_after_s)) from error
