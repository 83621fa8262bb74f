"""Qdrant Edge's shards on disk, one for each embedding model. They are opened, made and changed on one thread."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import qdrant_edge as edge
import structlog
from loremesh_kit.errors import DependencyUnavailable

from loremesh_retrieval.adapters import edge_requests
from loremesh_retrieval.domain.collections import collection_name

_MANIFEST, _SHARD, _UNFINISHED = "manifest.json", "shard", ".new"
# Points whose garbage is swept at start: about four seconds of it at most.
_SWEPT_POINTS = 20_000
# Updates which a start after a crash has to repeat: about two seconds' worth.
_UNFLUSHED_POINTS = 20_000
# The engine writes to files which it maps: where one finds no room, the kernel ends the process.
LEAST_FREE_BYTES = 128 * 1024 * 1024
# Indexed attributes of numbers and times; more are ordered too, slower.
_RANGE_INDEXES = 64
_log = structlog.get_logger(__name__)


class DataDirectoryInUseError(RuntimeError):
    """Another process has the data directory; an embedded index serves one process only."""

    def __init__(self, directory: Path) -> None:
        super().__init__(f"{directory} is in use by another process: stop it, or set RETRIEVAL_DATA_DIR or QDRANT_URL")


@dataclass
class Shard:
    """An open shard."""

    engine: edge.EdgeShard
    dimension: int
    directory: Path
    ranges: set[str] = field(default_factory=set)
    unflushed: int = 0

    def update(self, operation: edge.UpdateOperation, *, points: int) -> None:
        """Apply a change to so many points; it is in the write-ahead log and visible when this returns."""
        self.engine.update(operation)
        self.unflushed += points
        if self.unflushed >= _UNFLUSHED_POINTS:
            self.engine.flush()
            self.unflushed = 0

    def index_ranges(self, fields: Iterable[str]) -> None:
        """Index numeric fields, as long as there are not too many."""
        for name in fields:
            if name not in self.ranges and len(self.ranges) < _RANGE_INDEXES:
                self.engine.update(edge.UpdateOperation.create_field_index(name, edge.FloatIndexParams()))
                self.ranges.add(name)

    def sync(self) -> None:
        """Force the write-ahead log to the disk, so that acknowledged changes outlive a power cut.

        The only method which may run beside others: it does not touch the engine.
        """
        log = self.directory / _SHARD / "wal"
        for path in (*log.iterdir(), log):
            _sync(path)


class Shards:
    """The shards below one directory, which no other process may open."""

    def __init__(self, directory: Path, *, least_free: int = LEAST_FREE_BYTES) -> None:
        """Nothing is added while fewer bytes than `least_free` are free on the directory's disk."""
        self._directory = directory
        self._least_free = least_free
        self._shards: dict[str, Shard] = {}
        self._open = ExitStack()

    def open(self) -> None:
        """Take the directory and load what is in it; raises DataDirectoryInUseError."""
        self._directory.mkdir(parents=True, exist_ok=True)
        lock = self._open.enter_context((self._directory / ".lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._open.close()
            raise DataDirectoryInUseError(self._directory) from error
        for unfinished in self._directory.glob(f"*{_UNFINISHED}"):
            shutil.rmtree(unfinished)
        for manifest in sorted(self._directory.glob(f"*/{_MANIFEST}")):
            model = json.loads(manifest.read_text())["model"]
            self._shards[model] = self._load(manifest.parent)

    def close(self) -> None:
        """Flush and close every shard and let go of the directory."""
        for shard in self._shards.values():
            shard.engine.flush()
            shard.engine.close()
        self._shards.clear()
        self._open.close()

    def get(self, model: str) -> Shard | None:
        """The model's shard, None when nothing was ever written to it."""
        return self._shards.get(model)

    def require_room(self) -> None:
        """Raise DependencyUnavailable while the disk is all but full; what is there can be read and deleted."""
        free = shutil.disk_usage(self._directory).free
        if free < self._least_free:
            _log.warning("no room for the index", free_bytes=free, least_bytes=self._least_free)
            raise DependencyUnavailable("engine")

    def create(self, model: str, dimension: int) -> Shard:
        """A new shard for the model; one whose making is cut short leaves nothing behind."""
        directory = self._directory / collection_name(model)
        unfinished = directory.with_name(directory.name + _UNFINISHED)
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        engine = edge.EdgeShard.create(str(unfinished / _SHARD), edge_requests.configuration(dimension))
        for operation in edge_requests.keyword_indexes():
            engine.update(operation)
        engine.flush()
        engine.close()
        (unfinished / _MANIFEST).write_text(json.dumps({"model": model, "dimension": dimension}))
        # Everything the engine made: it does not itself wait for the disk.
        os.sync()
        unfinished.rename(directory)
        _sync(self._directory)
        shard = self._shards[model] = self._load(directory)
        return shard

    def _load(self, directory: Path) -> Shard:
        manifest = json.loads((directory / _MANIFEST).read_text())
        dimension = manifest["dimension"]
        engine = edge.EdgeShard.load(str(directory / _SHARD), edge_requests.configuration(dimension))
        points = engine.info().points_count
        if points <= _SWEPT_POINTS:
            engine.optimize()
        _log.info("index loaded", model=manifest["model"], points=points)
        ranges = {name for name in engine.info().payload_schema if name.startswith(("numbers.", "times."))}
        return Shard(engine=engine, dimension=dimension, directory=directory, ranges=ranges)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
