"""What the reconciler needs of Postgres."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

from loremesh_ingestion.domain.deletion import IndexPlace
from loremesh_ingestion.domain.reconciliation import Findings, Reconciliation, Recorded
from loremesh_ingestion.records import Connection


class ReconciliationRecords(Protocol):
    """Reconciliations, and the records they compare with."""

    async def begin(self, connection: Connection, id_: str, vector_store_id: str, *, repair: bool) -> None:
        """Keep that it runs, unless that is known."""
        ...

    async def end(self, connection: Connection, id_: str, findings: Findings) -> None:
        """Keep what it found."""
        ...

    async def fail(self, connection: Connection, id_: str, reason: str) -> None:
        """Keep why it was given up."""
        ...

    async def get(self, id_: str) -> Reconciliation | None:
        """By its id."""
        ...

    async def places(self, vector_store_id: str) -> list[IndexPlace]:
        """The indexes that may hold chunks of the vector store; none when it is not there."""
        ...

    async def recorded(
        self, vector_store_id: str, generation: int, *, after: str, limit: int, settled_before: datetime
    ) -> Sequence[Recorded]:
        """Documents of a vector store in a generation, by id from `after` (exclusive) on."""
        ...

    async def unknown(self, document_ids: Collection[str], *, settled_before: datetime) -> set[str]:
        """Those of the documents, of whatever vector store, that have no row and were not deleted since."""
        ...

    async def due(self, connection: Connection, *, limit: int) -> list[tuple[str, str]]:
        """Tenant and id of vector stores whose turn it is today, to one caller only; across tenants."""
        ...
