"""A document, where it stands, and where it may go from there."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum, auto
from typing import Any

from loremesh_ingestion.domain.chunking import ChunkingStrategy


class DocumentState(StrEnum):
    """Where a document stands; DELETED is only ever seen in events."""

    UPLOADED = "UPLOADED"
    PARSING = "PARSING"
    CHUNKING = "CHUNKING"
    EMBEDDING = "EMBEDDING"
    INDEXING = "INDEXING"
    READY = "READY"
    FAILED = "FAILED"
    DELETING = "DELETING"
    DELETED = "DELETED"


_PIPELINE = (
    DocumentState.UPLOADED,
    DocumentState.PARSING,
    DocumentState.CHUNKING,
    DocumentState.EMBEDDING,
    DocumentState.INDEXING,
    DocumentState.READY,
)
UNDERWAY = frozenset(_PIPELINE[:-1])
AT_REST = frozenset({DocumentState.READY, DocumentState.FAILED, DocumentState.DELETED})


def may_enter(origin: DocumentState, target: DocumentState) -> bool:
    """Whether a document may go from `origin` to `target`.

    Indexing goes forward only, but may begin anew at any time; nothing comes back from a deletion.
    """
    match target:
        case DocumentState.DELETED:
            return origin is DocumentState.DELETING
        case DocumentState.DELETING | DocumentState.UPLOADED:
            return origin not in (DocumentState.DELETING, DocumentState.DELETED)
        case DocumentState.FAILED:
            return origin in UNDERWAY
        case _:
            return origin in UNDERWAY and _PIPELINE.index(origin) < _PIPELINE.index(target)


def passage(origin: DocumentState, target: DocumentState) -> tuple[DocumentState, ...]:
    """The states a document enters on its way from `origin` through the pipeline up to `target`, which comes last.

    Empty when it is there or past it: an attempt that starts over does not take the document back.
    """
    if origin not in UNDERWAY or target not in _PIPELINE:
        return ()
    return _PIPELINE[_PIPELINE.index(origin) + 1 : _PIPELINE.index(target) + 1]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a document could not be indexed; `retryable` when indexing it again may succeed as it is."""

    stage: DocumentState
    reason: str
    message: str
    retryable: bool
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Changes:
    """What a version changed: chunks that were embedded, that kept their vectors, that went with the one before."""

    embedded: int
    kept: int
    removed: int


@dataclass(frozen=True, slots=True)
class Document:
    """A document in one generation of an index. `version` is what searches see, `latest_version` was begun last.

    The `key` is the row's; jobs, versions and chunks belong to it. It is `live` when its generation is.
    """

    key: str
    id: str
    vector_store_id: str
    generation: int
    live: bool
    title: str
    title_given: bool
    filename: str
    media_type: str
    size_bytes: int
    sha256: str
    attributes: Mapping[str, Any]
    chunking_strategy: ChunkingStrategy | None
    state: DocumentState
    failure: Failure | None
    version: int
    latest_version: int
    batches_done: int
    batches_total: int
    chunk_count: int
    token_count: int
    page_count: int
    text_chars: int
    changes: Changes | None
    metadata_revision: int
    revision: int
    create_time: datetime
    update_time: datetime

    @property
    def etag(self) -> str:
        """Changes with every change of the row."""
        return str(self.revision)


class Standing(StrEnum):
    """What has become of the work on one version by the time somebody looks."""

    CURRENT = auto()
    DONE = auto()
    FAILED = auto()
    SUPERSEDED = auto()
    GONE = auto()


def standing(document: Document | None, version: int) -> Standing:
    """Whether `version` of the document is still wanted; a deletion or a newer version wins over any work on it."""
    if document is None or document.state is DocumentState.DELETING:
        return Standing.GONE
    if document.version >= version:
        return Standing.DONE
    if document.latest_version != version:
        return Standing.SUPERSEDED
    return Standing.FAILED if document.state is DocumentState.FAILED else Standing.CURRENT


def outdated_before(document: Document, version: int) -> int:
    """Versions before this one may leave the index when `version`, which is not to go live, may be among them; 0: none.

    Nothing leaves it while an older version is the one that searches see: the next to be published will see to it.
    """
    if document.version >= version:
        return document.version
    return 0 if document.version else version + 1
