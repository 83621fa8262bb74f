import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import aiohttp
import pytest
from loremesh_ingestion.adapters import s3 as s3_adapter
from loremesh_ingestion.adapters.memory import MemoryBlobStore
from loremesh_ingestion.adapters.recent_blobs import RecentBlobs
from loremesh_ingestion.adapters.s3 import open_blob_store
from loremesh_kit.errors import DependencyUnavailable

pytestmark = pytest.mark.conformance

MEBIBYTE = 1024 * 1024


def s3_store(keys):
    return open_blob_store(
        endpoint_url=keys.endpoint_url,
        public_endpoint_url="",
        access_key_id=keys.access_key_id,
        secret_access_key=keys.secret_access_key,
        region=keys.region,
        bucket=keys.bucket,
    )


@asynccontextmanager
async def opened(kind: str, request):
    if kind == "memory":
        yield MemoryBlobStore()
    elif kind == "recent":
        yield RecentBlobs(store=MemoryBlobStore(), object_bytes=1000, total_bytes=5000)
    else:
        async with s3_store(request.getfixturevalue("s3")) as store:
            yield store


@pytest.fixture(params=["memory", "recent", "s3"])
async def store(request):
    async with opened(request.param, request) as store:
        yield store


async def pieces(*values: bytes) -> AsyncIterator[bytes]:
    for value in values:
        yield value


async def read(store, key: str, **bounds) -> bytes:
    return b"".join([piece async for piece in store.read(key, **bounds)])


async def test_what_is_written_is_read_and_read_again(store):
    await store.write("conformance/a b/ปีก", pieces(b"one", b"two"))
    assert await read(store, "conformance/a b/ปีก") == b"onetwo"
    assert await read(store, "conformance/a b/ปีก") == b"onetwo"


async def test_ranges_include_both_ends(store):
    await store.write("conformance/range", pieces(b"0123456789"))
    assert await read(store, "conformance/range", first=2, last=4) == b"234"
    await store.write("conformance/range-2", pieces(b"0123456789"))
    assert await read(store, "conformance/range-2", first=7) == b"789"


async def test_a_large_object_is_written_in_parts_and_comes_back_whole(store):
    piece = os.urandom(MEBIBYTE)
    await store.write("conformance/large", pieces(*[piece] * 20, b"end"))
    digest = hashlib.sha256()
    async for part in store.read("conformance/large"):
        digest.update(part)
    assert digest.digest() == hashlib.sha256(piece * 20 + b"end").digest()
    assert await store.delete_all("conformance/large") == 1


@pytest.mark.parametrize("size", [100, 20 * MEBIBYTE])
async def test_nothing_is_stored_when_the_writer_gives_up(store, size):
    async def failing() -> AsyncIterator[bytes]:
        for _ in range(0, size, MEBIBYTE):
            yield b"x" * MEBIBYTE
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store.write("conformance/failing", failing())
    with pytest.raises(DependencyUnavailable):
        await read(store, "conformance/failing")
    assert await store.delete_all("conformance/failing") == 0


async def test_deleting_by_prefix_leaves_the_neighbours(store):
    for name in ("p/1", "p/2", "q/1"):
        await store.write(f"conformance/delete/{name}", pieces(b"x"))
    assert await store.delete_all("conformance/delete/p/") == 2
    assert await store.delete_all("conformance/delete/p/") == 0
    assert await read(store, "conformance/delete/q/1") == b"x"


async def test_deleting_what_is_not_there_is_no_error(store):
    await store.write("conformance/there", pieces(b"x"))
    await store.delete(["conformance/there", "conformance/never"])
    await store.delete([])
    with pytest.raises(DependencyUnavailable):
        await read(store, "conformance/there")


async def test_a_link_gives_the_object_under_its_name(s3):
    async with s3_store(s3) as store:
        await store.write("conformance/link", pieces(b"hello"))
        url = await store.link("conformance/link", filename="ปีก.txt", media_type="text/plain", seconds=60)
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            assert response.status == 200
            assert response.headers["content-disposition"].startswith("attachment;")
            assert await response.read() == b"hello"
        async with aiohttp.ClientSession() as session, session.delete(url) as response:
            assert response.status == 403


async def test_a_store_that_does_not_answer_is_unavailable(s3):
    async with open_blob_store(
        endpoint_url="http://127.0.0.1:9",
        public_endpoint_url="",
        access_key_id="a",
        secret_access_key="b",
        region="us-east-1",
        bucket="c",
    ) as store:
        with pytest.raises(DependencyUnavailable):
            await store.write("key", pieces(b"x"))
        with pytest.raises(DependencyUnavailable):
            await store.write("key", pieces(b"x" * s3_adapter.PART_BYTES))
        with pytest.raises(DependencyUnavailable):
            await read(store, "key")
        with pytest.raises(DependencyUnavailable):
            await store.delete_all("key")
        with pytest.raises(DependencyUnavailable):
            await store.probe()


async def test_recent_objects_are_read_from_memory_once_and_never_exceed_their_room():
    behind = MemoryBlobStore()
    store = RecentBlobs(store=behind, object_bytes=10, total_bytes=25)
    for name in ("a", "b", "c"):
        await store.write(name, pieces(b"0123456789"))
    await store.write("large", pieces(b"0123456789", b"0"))
    held = dict(behind.objects)
    behind.objects.clear()
    assert await read(store, "b") == b"0123456789"
    for gone in ("a", "b", "large"):
        with pytest.raises(DependencyUnavailable):
            await read(store, gone)
    behind.objects.update(held)
    assert await read(store, "b") == b"0123456789"


async def test_entries_are_listed_with_the_time_they_were_written(store):
    for name in ("a", "b"):
        await store.write(f"conformance/listed/{name}", pieces(b"x"))
    await store.write("conformance/listed-not", pieces(b"x"))
    found = [each async for page in store.entries("conformance/listed/") for each in page]
    assert [each.key for each in found] == ["conformance/listed/a", "conformance/listed/b"]
    assert all(abs((datetime.now(UTC) - each.write_time).total_seconds()) < 600 for each in found)
    assert [each async for page in store.entries("conformance/nothing/") for each in page] == []
