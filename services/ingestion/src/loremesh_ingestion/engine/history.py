"""What is told of documents: events in their logs, facts to other services."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from loremesh_kit import identity
from loremesh_kit.telemetry import traces

from loremesh_ingestion.domain.document import Document, DocumentState, Failure
from loremesh_ingestion.domain.jobs import EMBED_BATCH, INDEX, MAX_ATTEMPTS
from loremesh_ingestion.records import NewEvent, NewFact, NewJob

STATE_CHANGED = "state_changed"
PROGRESS = "progress"
READY = "ready"
FAILED = "failed"
DELETED = "deleted"
SNAPSHOT = "snapshot"
TERMINAL = frozenset({READY, FAILED, DELETED})


class History:
    """Events of one attempt to do something with one version of a document.

    With the `key` of a row they are told only while that is the live one, whatever generations are built beside it.
    """

    def __init__(self, *, document_id: str, version: int, attempt: int = 1, key: str = "") -> None:
        self._document_id = document_id
        self._key = key
        self._version = version
        self._attempt = attempt

    def entered(self, states: Iterable[DocumentState]) -> list[NewEvent]:
        """It went through these states, none of which is its last."""
        return [self._event(STATE_CHANGED, {"state": state}) for state in states]

    def progressed(self, document: Document) -> NewEvent:
        """Batches were done."""
        done = {"batches_done": document.batches_done, "batches_total": document.batches_total}
        return self._event(PROGRESS, done)

    def ready(self, document: Document) -> NewEvent:
        """Searches see the version now."""
        changes = None if document.changes is None else asdict(document.changes)
        return self._event(READY, _found(document) | {"changes": changes})

    def failed(self, failure: Failure) -> NewEvent:
        """It was given up."""
        return self._event(FAILED, asdict(failure))

    def deleted(self) -> NewEvent:
        """It is gone from every store."""
        return self._event(DELETED, {})

    def _event(self, kind: str, payload: Mapping[str, Any]) -> NewEvent:
        return NewEvent(
            run_id=self._document_id,
            kind=kind,
            payload=payload,
            attempt=self._attempt,
            path=[str(self._version)],
            key=self._key,
        )


def indexed(document: Document) -> NewFact:
    """The fact DocumentIndexed."""
    return _fact("DocumentIndexed", document.id, document.vector_store_id, _found(document))


def failed(document: Document, failure: Failure) -> NewFact:
    """The fact DocumentFailed."""
    return _fact("DocumentFailed", document.id, document.vector_store_id, {"reason": failure.reason})


def deleted(document_id: str, vector_store_id: str) -> NewFact:
    """The fact DocumentDeleted."""
    return _fact("DocumentDeleted", document_id, vector_store_id, {})


def ending(document: Document) -> tuple[str, Mapping[str, Any]]:
    """Kind and payload of the terminal event of a document at rest."""
    return (READY, _found(document)) if document.failure is None else (FAILED, asdict(document.failure))


def _found(document: Document) -> dict[str, Any]:
    return {"version": document.version, "chunk_count": document.chunk_count, "token_count": document.token_count}


def _fact(name: str, document_id: str, vector_store_id: str, more: Mapping[str, Any]) -> NewFact:
    caller = identity.current()
    headers = {
        identity.TENANT_HEADER: caller.tenant,
        identity.PRINCIPAL_HEADER: caller.principal,
        identity.REQUEST_ID_HEADER: caller.request_id,
        traces.TRACEPARENT: traces.current_traceparent(),
    }
    return NewFact(
        name=name,
        payload={"document_id": document_id, "vector_store_id": vector_store_id, **more},
        headers={key: value for key, value in headers.items() if value},
    )


def job(kind: str, subject_id: str, *, priority: int = 0, **ids: int | str) -> NewJob:
    """A job for the caller in force; of those that wait, what has a higher `priority` is begun first."""
    caller = identity.current()
    return NewJob(
        kind=kind,
        subject_id=subject_id,
        payload=ids,
        principal=caller.principal,
        request_id=caller.request_id,
        traceparent=traces.current_traceparent(),
        max_attempts=MAX_ATTEMPTS,
        priority=priority,
    )


def index_job(document: Document, *, priority: int = 0) -> NewJob:
    """Index the latest version; the document's id goes along, since its row may be gone when the job is done."""
    return job(INDEX, document.key, priority=priority, document_id=document.id, version=document.latest_version)


def batch_job(document: Document, *, version: int, batch: int) -> NewJob:
    """Embed one batch of a version; the document's id goes along as in `index_job`."""
    return job(EMBED_BATCH, document.key, document_id=document.id, version=version, batch=batch)
