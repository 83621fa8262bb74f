"""Rows of the table `runs`."""

from typing import LiteralString

from loremesh_kit.postgres import Row

from loremesh_crew.domain import codec
from loremesh_crew.domain.machine import RunKind, RunStatus, Usage
from loremesh_crew.errors import EngineVersionUnknown
from loremesh_crew.ports import ListedRun, Machines, RunRecord

_SHARED: LiteralString = (
    "pinned::text AS pinned, engine_version, status, name, revision, definition_id, last_seq, parent_run_id,"
    " parent_state, forked_from, forked_after_seq, create_time, finish_time, expire_time"
)
FULL: LiteralString = f"id, {_SHARED}, state::text AS state, principal, decisions, kind"
LISTED: LiteralString = f"id, {_SHARED}, summary"


def record(row: Row, machines: Machines) -> RunRecord:
    """A run with its state; raises EngineVersionUnknown."""
    fields = {name: value for name, value in row.items() if name not in ("id", "kind", "pinned", "state", "status")}
    machine = machines.get((RunKind(row["kind"]), row["engine_version"]))
    if machine is None:
        raise EngineVersionUnknown(row["engine_version"])
    return RunRecord(
        **fields,
        pinned=codec.load_pinned(row["pinned"]),
        state=codec.load(machine.state, row["state"]),
        status=RunStatus(row["status"]),
    )


def listed(row: Row) -> ListedRun:
    """A run without it."""
    fields = {name: value for name, value in row.items() if name not in ("id", "pinned", "status", "summary")}
    summary = dict(row["summary"])
    usage = Usage(**summary.pop("usage", {}))
    return ListedRun(
        **fields,
        **summary,
        pinned=codec.load_pinned(row["pinned"]),
        status=RunStatus(row["status"]),
        usage=usage,
    )
