"""Remembers small objects this process has just written: in one process, server and worker need not fetch them."""

from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Sequence

from loremesh_ingestion.ports import BlobStore, StoredObject


class RecentBlobs:
    """A blob store in front of another; keys are written once, so what is remembered stays true."""

    def __init__(self, *, store: BlobStore, object_bytes: int, total_bytes: int) -> None:
        """Objects of up to `object_bytes` are remembered until they are read, `total_bytes` in all."""
        self._store = store
        self._object_bytes = object_bytes
        self._room = total_bytes
        self._recent: OrderedDict[str, bytes] = OrderedDict()

    async def write(self, key: str, pieces: AsyncIterable[bytes]) -> None:
        """Write through, and remember once it is stored."""
        seen: list[bytes] = []
        await self._store.write(key, self._watched(pieces, seen))
        content = b"".join(seen)
        if 0 < len(content) <= self._object_bytes:
            self._remember(key, content)

    async def _watched(self, pieces: AsyncIterable[bytes], seen: list[bytes]) -> AsyncIterator[bytes]:
        size = 0
        async for piece in pieces:
            size += len(piece)
            if size <= self._object_bytes:
                seen.append(piece)
            else:
                seen.clear()
            yield piece

    def _remember(self, key: str, content: bytes) -> None:
        self._recent[key] = content
        self._room -= len(content)
        while self._room < 0:
            _, oldest = self._recent.popitem(last=False)
            self._room += len(oldest)

    def _forget(self, key: str) -> bytes | None:
        content = self._recent.pop(key, None)
        if content is not None:
            self._room += len(content)
        return content

    async def read(self, key: str, *, first: int = 0, last: int | None = None) -> AsyncIterator[bytes]:
        """From memory the first time, if it is there."""
        if (content := self._forget(key)) is not None:
            yield content[first:] if last is None else content[first : last + 1]
            return
        async for piece in self._store.read(key, first=first, last=last):
            yield piece

    async def delete(self, keys: Sequence[str]) -> None:
        """Forget and delete."""
        for key in keys:
            self._forget(key)
        await self._store.delete(keys)

    async def delete_all(self, prefix: str) -> int:
        """Forget and delete."""
        for key in [key for key in self._recent if key.startswith(prefix)]:
            self._forget(key)
        return await self._store.delete_all(prefix)

    def entries(self, prefix: str) -> AsyncIterator[Sequence[StoredObject]]:
        """As the store has it."""
        return self._store.entries(prefix)

    async def link(self, key: str, *, filename: str, media_type: str, seconds: int) -> str:
        """As the store makes it."""
        return await self._store.link(key, filename=filename, media_type=media_type, seconds=seconds)
