"""What is told of documents: events in their logs, facts to other services; both in the caller's transaction."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from loremesh_kit import eventlog, outbox

from loremesh_ingestion.domain.document import Document, DocumentState, Failure
from loremesh_ingestion.records import Connection

STATE_CHANGED = "state_changed"
PROGRESS = "progress"
READY = "ready"
FAILED = "failed"
DELETED = "deleted"
TERMINAL = frozenset({READY, FAILED, DELETED})


class History:
    """Events of one attempt to do something with one version of a document."""

    def __init__(self, *, document_id: str, version: int, attempt: int = 1) -> None:
        self._document_id = document_id
        self._version = version
        self._attempt = attempt

    async def entered(self, connection: Connection, states: Iterable[DocumentState]) -> None:
        """It went through these states, none of which is its last."""
        for state in states:
            await self._append(connection, STATE_CHANGED, {"state": state})

    async def progressed(self, connection: Connection, document: Document) -> None:
        """Batches were done."""
        done = {"batches_done": document.batches_done, "batches_total": document.batches_total}
        await self._append(connection, PROGRESS, done)

    async def ready(self, connection: Connection, document: Document) -> None:
        """Searches see the version now."""
        found = {
            "version": document.version,
            "chunk_count": document.chunk_count,
            "token_count": document.token_count,
        }
        await self._append(connection, READY, found)
        await self._tell(connection, "DocumentIndexed", document.vector_store_id, found)

    async def failed(self, connection: Connection, vector_store_id: str, failure: Failure) -> None:
        """It was given up."""
        await self._append(connection, FAILED, asdict(failure))
        await self._tell(connection, "DocumentFailed", vector_store_id, {"reason": failure.reason})

    async def deleted(self, connection: Connection, vector_store_id: str) -> None:
        """It is gone from every store."""
        await self._append(connection, DELETED, {})
        await self._tell(connection, "DocumentDeleted", vector_store_id, {})

    async def _append(self, connection: Connection, kind: str, payload: Mapping[str, Any]) -> None:
        await eventlog.append(
            connection,
            run_id=self._document_id,
            kind=kind,
            payload=payload,
            attempt=self._attempt,
            path=[str(self._version)],
        )

    async def _tell(self, connection: Connection, name: str, vector_store_id: str, more: Mapping[str, Any]) -> None:
        ids = {"document_id": self._document_id, "vector_store_id": vector_store_id}
        await outbox.emit(connection, name=name, payload={**ids, **more})
