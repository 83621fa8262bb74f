"""What the stores hold when all is quiet, in the checker's words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Place = tuple[str, int, int, int]  # document, generation, version, position of a chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentRow:
    """A document in Postgres; `key` is the mark its uploader put on it, `sha256` that of its bytes."""

    id: str
    state: str
    version: int = 0
    key: str = ""
    reason: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A job in Postgres."""

    id: str
    kind: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run of a crew or flow; `finished` counts how often each task was told to be completed in its log.

    `late` are tasks that were begun again after that, `differences` how many decisions its replay makes otherwise.
    """

    id: str
    status: str
    reason: str = ""
    root: bool = True
    finished: Mapping[str, int] = field(default_factory=dict)
    late: Sequence[str] = ()
    differences: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Everything the mesh keeps. `expected` are the chunks Postgres says searches see, `indexed` every point there is.

    `documents` are as their live generation has them, `others` as other generations have them, `objects` are the
    documents that have bytes in the object store, `receipts` says of each deleted document whether its purge is
    finished, `events` are the numbers in each event log, `effects` the ids of messages that had one, `chat_jobs` the
    status of each job of the agent, `runs` those of crews and flows, `calls` and `notes` how often a tool that
    changes something was called with each key and each text.
    """

    documents: Mapping[str, DocumentRow] = field(default_factory=dict)
    others: Sequence[DocumentRow] = ()
    jobs: Sequence[JobRow] = ()
    unsent: int = 0
    expected: frozenset[Place] = frozenset()
    indexed: Sequence[Place] = ()
    objects: frozenset[str] = frozenset()
    receipts: Mapping[str, bool] = field(default_factory=dict)
    events: Mapping[str, Sequence[int]] = field(default_factory=dict)
    effects: Sequence[str] = ()
    chat_jobs: Mapping[str, str] = field(default_factory=dict)
    runs: Mapping[str, RunRow] = field(default_factory=dict)
    calls: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)
