"""What the stores of a vector store should hold, compared with what they do."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum, auto

from loremesh_ingestion.domain.document import AT_REST, DocumentState

# What is younger may be on its way: an upload before its row, a purge behind a queue.
SETTLED_SECONDS = 3600.0


class ReconciliationState(StrEnum):
    """Where a reconciliation stands."""

    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"


@dataclass(slots=True)
class Findings:
    """What was looked at and what was wrong with it."""

    documents_checked: int = 0
    chunks_checked: int = 0
    orphan_chunks: int = 0
    drifted_documents: int = 0
    orphan_objects: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """A comparison of a vector store's records with its index and objects."""

    id: str
    vector_store_id: str
    repair: bool
    state: ReconciliationState
    findings: Findings
    error_reason: str
    create_time: datetime
    finish_time: datetime | None


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is recorded of a document; `is_settled` when nothing about it changed for SETTLED_SECONDS."""

    id: str
    state: DocumentState
    version: int
    latest_version: int
    chunk_count: int
    is_settled: bool


class Remedy(StrEnum):
    """What puts a document's chunks right."""

    NOTHING = auto()
    CLEAR = auto()
    INDEX_AGAIN = auto()


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many of a document's chunks are orphans, those of versions before `before` (0: all), and what to do."""

    remedy: Remedy
    orphans: int = 0
    before: int = 0


def judge(recorded: Recorded, held: Mapping[int, int]) -> Verdict:
    """Whether the index holds what it should of a document; `held` counts its chunks there by version.

    Versions after the live one are left alone: the next to be published removes them.
    """
    if recorded.state not in AT_REST or not recorded.is_settled:
        return Verdict(Remedy.NOTHING)
    before = recorded.version or recorded.latest_version + 1
    orphans = sum(count for version, count in held.items() if version < before)
    if recorded.state is DocumentState.READY and held.get(recorded.version, 0) != recorded.chunk_count:
        return Verdict(Remedy.INDEX_AGAIN, orphans, before)
    return Verdict(Remedy.CLEAR if orphans else Remedy.NOTHING, orphans, before)
