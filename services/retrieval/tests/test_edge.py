"""What the engine in this process promises beyond the port: its files, its one process, its crashes."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from loremesh_kit.errors import DependencyUnavailable
from loremesh_retrieval.adapters.edge import EdgeIndex
from loremesh_retrieval.adapters.edge_shards import DataDirectoryInUseError
from loremesh_retrieval.domain.chunks import SparseVector
from loremesh_retrieval.domain.collections import collection_name
from loremesh_retrieval.domain.scope import Scope
from loremesh_retrieval.domain.search import Branch, QueryVectors

pytestmark = pytest.mark.conformance

SCOPE = Scope("acme", "default")
MODEL = "a model/of: anyone's"

_WRITER = """
import asyncio, sys
from pathlib import Path
from loremesh_retrieval.adapters.edge import EdgeIndex
from loremesh_retrieval.domain.chunks import Chunk, IndexedChunk, SparseVector
from loremesh_retrieval.domain.scope import Scope

def chunk(number):
    return IndexedChunk(
        chunk=Chunk(chunk_id=str(number), document_id=f"d{number}", document_version=1, index=0, title="", content="x",
            attributes={"n": float(number)}, page=None, start_char=0, end_char=1, heading_path=()),
        dense=(1.0, float(number)), sparse=SparseVector((1,), (1.0,)))

async def write():
    async with EdgeIndex.open(Path(sys.argv[1])) as index:
        for number in range(100_000):
            await index.upsert("model", 2, Scope("acme", "default"), [chunk(number)])
            if number % 5 == 4:
                await index.delete("model", Scope("acme", "default"), document_id=f"d{number - 2}")
            print(number, flush=True)

asyncio.run(write())
"""


async def test_what_was_written_is_there_after_a_restart(tmp_path, make_chunk):
    written = make_chunk(dense=(1.0, 0.0), attributes={"year": 2024.0})
    async with EdgeIndex.open(tmp_path) as index:
        await index.upsert(MODEL, 2, SCOPE, [written])
    async with EdgeIndex.open(tmp_path) as index:
        point_id = SCOPE.point_id(written.chunk.chunk_id)
        assert await index.fetch(MODEL, SCOPE, [point_id]) == {point_id: written.chunk}
        rankings = await index.rank(MODEL, SCOPE, QueryVectors((1.0, 0.0), SparseVector([1], [1.0])), limit=5)
        assert [len(rankings[branch]) for branch in Branch] == [1, 1]


async def test_without_room_on_the_disk_it_takes_no_more_and_gives_and_deletes_what_it_has(tmp_path, make_chunk):
    """Else the kernel would end the process at a write to a mapped file."""
    async with EdgeIndex.open(tmp_path) as index:
        await index.upsert(MODEL, 2, SCOPE, [make_chunk(dense=(1.0, 0.0))])
    async with EdgeIndex.open(tmp_path, least_free=1 << 60) as index:
        for model in (MODEL, "another model"):
            with pytest.raises(DependencyUnavailable):
                await index.upsert(model, 2, SCOPE, [make_chunk("b", dense=(1.0, 0.0))])
        assert await index.count(MODEL, SCOPE) == 1
        assert await index.delete(MODEL, SCOPE) == 1
    async with EdgeIndex.open(tmp_path) as index:
        await index.upsert(MODEL, 2, SCOPE, [make_chunk("b", dense=(1.0, 0.0))])
        assert await index.count(MODEL, SCOPE) == 1


async def test_much_deleted_and_restarted_it_still_takes_writes(tmp_path, make_chunk):
    async with EdgeIndex.open(tmp_path) as index:
        for start in range(0, 2000, 500):
            chunks = [make_chunk(str(n), dense=(1.0, n)) for n in range(start, start + 500)]
            await index.upsert(MODEL, 2, SCOPE, chunks)
        await index.delete(MODEL, SCOPE)
        await index.upsert(MODEL, 2, SCOPE, [make_chunk("kept", dense=(1.0, 0.0))])
    async with EdgeIndex.open(tmp_path) as index:
        await index.upsert(MODEL, 2, SCOPE, [make_chunk("new", dense=(1.0, 0.0))])
        assert await index.count(MODEL, SCOPE) == 2
    async with EdgeIndex.open(tmp_path) as index:
        assert await index.count(MODEL, SCOPE) == 2


def test_killed_at_any_moment_it_loses_nothing_it_had_acknowledged(tmp_path):
    asyncio.run(_kill_and_check(tmp_path))


async def _kill_and_check(directory):
    for seconds in (0.3, 0.15, 0.4):
        acknowledged = _write_until_killed(directory, seconds=seconds)
        async with EdgeIndex.open(directory) as index:
            expected = {number for number in range(acknowledged + 1) if number % 5 != 2 or number + 2 > acknowledged}
            points = {SCOPE.point_id(str(number)): number for number in range(acknowledged + 1)}
            found = {points[point_id] for point_id in await index.fetch("model", SCOPE, list(points))}
            # A delete under way when it was killed may have been done.
            assert expected - found <= {acknowledged - 1}
            assert found <= expected


def _write_until_killed(directory, *, seconds):
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(directory)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    writer.stdout.readline()
    time.sleep(seconds)
    writer.send_signal(signal.SIGKILL)
    lines = writer.communicate()[0].split("\n")
    assert writer.returncode == -signal.SIGKILL
    return int(lines[-2])


async def test_a_directory_in_use_is_refused_with_a_way_out(tmp_path):
    async with EdgeIndex.open(tmp_path):
        with pytest.raises(DataDirectoryInUseError, match="RETRIEVAL_DATA_DIR"):
            await EdgeIndex.open(tmp_path).__aenter__()
    async with EdgeIndex.open(tmp_path):
        pass


async def test_a_shard_whose_making_was_cut_short_is_made_anew(tmp_path, make_chunk):
    (tmp_path / f"{collection_name(MODEL)}.new" / "shard").mkdir(parents=True)
    async with EdgeIndex.open(tmp_path) as index:
        await index.upsert(MODEL, 4, SCOPE, [make_chunk()])
        assert await index.count(MODEL, SCOPE) == 1
    assert not list(tmp_path.glob("*.new"))


async def test_searches_get_their_turn_during_a_long_delete(tmp_path, make_chunk):
    async with EdgeIndex.open(tmp_path) as index:
        for start in range(0, 5000, 500):
            await index.upsert(MODEL, 4, SCOPE, [make_chunk(str(n)) for n in range(start, start + 500)])
        deleting = asyncio.ensure_future(index.delete(MODEL, SCOPE))
        turns = 0
        while not deleting.done():
            await index.rank(MODEL, SCOPE, QueryVectors((1.0, 0.0, 0.0, 0.0), None), limit=5)
            turns += 1
            await asyncio.sleep(0.001)
        assert await deleting == 5000
        assert turns >= 5


async def test_an_acknowledged_write_is_on_the_disk(tmp_path, make_chunk, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: (synced.append(Path(f"/proc/self/fd/{file}").readlink()), fsync(file))
    )
    async with EdgeIndex.open(tmp_path) as index:
        await index.upsert(MODEL, 4, SCOPE, [make_chunk()])
        synced.clear()
        await index.upsert(MODEL, 4, SCOPE, [make_chunk("b")])
        assert any(path.match("wal/open-*") for path in synced)
