"""Reads the stores of a mesh themselves, past every service: the index once it is down, the others while it runs."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import qdrant_edge as edge
from loremesh_cli.mesh.seaweedfs import S3Access
from psycopg.rows import dict_row

from tests.ordeal.clients import MARK
from tests.ordeal.mesh import Mesh
from tests.ordeal.stores import DocumentRow, JobRow, Place, RunRow, Stores

_PAGE = 1000
_QUIET_POLL_SECONDS = 0.5

_SCHEMAS = ("ingestion", "agent", "crew")

_BUSY = """
SELECT 1 FROM jobs WHERE state IN ('QUEUED', 'RUNNING') UNION ALL SELECT 1 FROM outbox WHERE sent_at IS NULL
"""

_ON_THEIR_WAY = """
SELECT 1 FROM documents WHERE state NOT IN ('READY', 'FAILED')
UNION ALL
SELECT 1 FROM deletions WHERE num_nulls(index_time, objects_time, rows_time, conversations_time) > 0
"""

_RECEIPTS = """
SELECT document_id, num_nulls(index_time, objects_time, rows_time, conversations_time) = 0 AS finished FROM deletions
"""

_UNSENT = "SELECT id FROM outbox WHERE sent_at IS NULL"

_GOING = "SELECT 1 FROM runs WHERE finish_time IS NULL"

_RUNS = "SELECT id, status, summary, parent_run_id FROM runs"

_TASKS_TOLD = """
SELECT run_id, seq, kind, payload, path FROM events WHERE kind IN ('task_started', 'task_finished') ORDER BY run_id, seq
"""

_EVENTS = "SELECT run_id, seq FROM events ORDER BY run_id, seq"

_DOCUMENTS = """
SELECT documents.id, documents.generation, documents.generation = vector_stores.generation AS live, vector_store_id,
    state, version, failure, sha256, documents.attributes, extract(epoch FROM documents.update_time) AS updated
FROM documents JOIN vector_stores ON vector_stores.id = vector_store_id
"""

# Jobs that are done once more after a long time, for whoever may have written late: let it have passed.
_PASS_TIME = """
UPDATE jobs SET due_at = now() WHERE state = 'QUEUED' AND payload ? 'once_more' AND due_at > now() RETURNING id
"""

_EXPECTED = """
SELECT documents.id AS document_id, documents.generation, chunks.version, chunks.index
FROM chunks JOIN documents ON documents.key = chunks.document_id WHERE chunks.version = documents.version
"""


@dataclass(frozen=True, slots=True)
class Quiet:
    """Whether the mesh came to rest, and after how many seconds."""

    reached: bool
    seconds: float


async def until_quiet(mesh: Mesh, *, seconds: float) -> Quiet:
    """Wait until no document is on its way, no job to be done and no message to be sent."""
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        await _rows(mesh, "ingestion", _PASS_TIME)
        busy = await _rows(mesh, "ingestion", _ON_THEIR_WAY)
        busy += await _rows(mesh, "crew", _GOING)
        for schema in _SCHEMAS:
            busy += await _rows(mesh, schema, _BUSY)
        if not busy:
            return Quiet(reached=True, seconds=time.monotonic() - began)
        await asyncio.sleep(_QUIET_POLL_SECONDS)
    return Quiet(reached=False, seconds=seconds)


async def read(mesh: Mesh, runs: Mapping[str, RunRow]) -> Stores:
    """What all stores hold, beside the runs; takes the mesh down, for the index is one process's alone."""
    lines = await _rows(mesh, "ingestion", _DOCUMENTS)
    jobs = [row for schema in _SCHEMAS for row in await _rows(mesh, schema, "SELECT id, kind, state FROM jobs")]
    unsent = [row for schema in _SCHEMAS for row in await _rows(mesh, schema, _UNSENT)]
    expected = await _rows(mesh, "ingestion", _EXPECTED)
    receipts = await _rows(mesh, "ingestion", _RECEIPTS)
    events = [row for schema in _SCHEMAS for row in await _rows(mesh, schema, _EVENTS)]
    chat_jobs = await _rows(mesh, "agent", "SELECT id, status FROM chat_jobs")
    objects = frozenset(_documents_with_objects(mesh))
    await mesh.stop()
    return Stores(
        documents={row["id"]: _document(row) for row in lines if row["live"]},
        others=[_document(row) for row in lines if not row["live"]],
        jobs=[JobRow(**row) for row in jobs],
        unsent=len(unsent),
        expected=frozenset(_place(row) for row in expected),
        indexed=list(_points(mesh.home.root / "retrieval")),
        objects=objects,
        receipts={row["document_id"]: row["finished"] for row in receipts},
        events=_numbers(events),
        chat_jobs={row["id"]: row["status"] for row in chat_jobs},
        runs=runs,
    )


async def runs(mesh: Mesh) -> dict[str, RunRow]:
    """Those of crews and flows, by id."""
    told: dict[str, list[dict[str, Any]]] = {}
    for row in await _rows(mesh, "crew", _TASKS_TOLD):
        told.setdefault(row["run_id"], []).append(row)
    return {row["id"]: _run(row, told.get(row["id"], [])) for row in await _rows(mesh, "crew", _RUNS)}


def _run(row: dict[str, Any], told: Sequence[dict[str, Any]]) -> RunRow:
    finished: Counter[str] = Counter()
    late = []
    for event in told:
        # A flow comes to a state again and again: each visit is another.
        task = "/".join(event["path"]) + str(event["payload"].get("visit", ""))
        if event["kind"] == "task_started" and finished[task]:
            late.append(task)
        if event["kind"] == "task_finished":
            finished[task] += 1
    return RunRow(
        id=row["id"],
        status=row["status"],
        reason=row["summary"].get("reason", ""),
        root=not row["parent_run_id"],
        finished=finished,
        late=late,
    )


async def settled_after(
    mesh: Mesh, instant: float, documents: Collection[str], generations: Mapping[str, int]
) -> list[float]:
    """For each of these that came to rest after an instant of the wall clock: after how many seconds.

    `generations` are by vector store the ones that were live then: what is built beside them is no part of it.
    """
    rows = await _rows(mesh, "ingestion", _DOCUMENTS)
    seconds = (
        float(row["updated"]) - instant
        for row in rows
        if row["generation"] == generations.get(row["vector_store_id"]) and row["id"] in documents
    )
    return sorted(each for each in seconds if each > 0)


def texts(mesh: Mesh) -> dict[str, str]:
    """Every log file by name."""
    return {f"log {path.name}": path.read_text(errors="replace") for path in mesh.home.logs.glob("*.log*")}


async def _rows(mesh: Mesh, schema: str, query: str) -> list[dict[str, Any]]:
    options = f"-c search_path={schema}"
    async with await psycopg.AsyncConnection.connect(
        mesh.database_url, options=options, row_factory=dict_row, connect_timeout=10
    ) as connection:
        return await (await connection.execute(query)).fetchall()  # type: ignore[arg-type]


def _document(row: dict[str, Any]) -> DocumentRow:
    return DocumentRow(
        id=row["id"],
        state=row["state"],
        version=row["version"],
        key=row["attributes"].get(MARK, ""),
        reason=(row["failure"] or {}).get("reason", ""),
        sha256=row["sha256"],
    )


def _place(row: dict[str, Any]) -> Place:
    return row["document_id"], row["generation"], row["version"], row["index"]


def _numbers(rows: Sequence[dict[str, Any]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row in rows:
        found.setdefault(row["run_id"], []).append(row["seq"])
    return found


def _documents_with_objects(mesh: Mesh) -> Iterator[str]:
    import boto3

    keys = S3Access(
        f"http://127.0.0.1:{mesh.ports['seaweedfs-s3']}",
        mesh.secrets.s3_access_key_id,
        mesh.secrets.s3_secret_access_key,
        "loremesh",
    )
    client = boto3.client(
        "s3",
        endpoint_url=keys.endpoint_url,
        aws_access_key_id=keys.access_key_id,
        aws_secret_access_key=keys.secret_access_key,
        region_name=keys.region,
    )
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=keys.bucket):
        for item in page.get("Contents", ()):
            parts = item["Key"].split("/")
            if len(parts) > 2:
                yield parts[1]


def _points(directory: Path) -> Iterator[Place]:
    """Every point of every model's shard, in the engine's own files."""
    for manifest in directory.glob("*/manifest.json"):
        dimension = json.loads(manifest.read_text())["dimension"]
        shard = edge.EdgeShard.load(str(manifest.parent / "shard"), _configuration(dimension))
        offset: Any = None
        while True:
            request = edge.ScrollRequest(offset=offset, limit=_PAGE, with_payload=True, with_vector=False)
            records, offset = shard.scroll(request)
            for record in records:
                payload = record.payload or {}
                # The first generation is not named.
                _, _, *generation = json.loads(payload["scope"])
                yield payload["document_id"], *(generation or [1]), payload["document_version"], payload["index"]
            if offset is None:
                break
        shard.close()


def _configuration(dimension: int) -> Any:
    from loremesh_retrieval.adapters.edge_requests import configuration

    return configuration(dimension)
