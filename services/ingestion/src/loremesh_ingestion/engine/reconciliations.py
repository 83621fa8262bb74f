"""Reconciliations: asked for by somebody, or by the day."""

import asyncio

from loremesh_kit import identity, jobs
from loremesh_kit.identity import Identity
from loremesh_kit.loops import repeat, unless
from loremesh_kit.postgres import Database

from loremesh_ingestion.domain.jobs import MAX_ATTEMPTS, RECONCILE
from loremesh_ingestion.domain.reconciliation import Reconciliation
from loremesh_ingestion.engine.vector_stores import VectorStores
from loremesh_ingestion.errors import ReconciliationNotFound
from loremesh_ingestion.reconciliation_records import ReconciliationRecords
from loremesh_ingestion.records import Connection

_LOOK_SECONDS = 300.0
_STORES_AT_ONCE = 100
_NOBODY = "reconciler"


class Reconciliations:
    """The use cases of DeletionService on reconciliations."""

    def __init__(self, *, database: Database, records: ReconciliationRecords, vector_stores: VectorStores) -> None:
        self._database = database
        self._records = records
        self._vector_stores = vector_stores

    async def start(self, vector_store_id: str, *, repair: bool) -> Reconciliation:
        """Have the vector store reconciled; raises VectorStoreNotFound."""
        await self._vector_stores.get(vector_store_id)
        async with self._database.transaction() as connection:
            id_ = await _enqueue(connection, vector_store_id, repair=repair)
            await self._records.begin(connection, id_, vector_store_id, repair=repair)
        return await self.get(id_)

    async def get(self, reconciliation_id: str) -> Reconciliation:
        """Raises ReconciliationNotFound."""
        reconciliation = await self._records.get(reconciliation_id)
        if reconciliation is None:
            raise ReconciliationNotFound(reconciliation_id)
        return reconciliation


class DailyReconciliation:
    """Has every tenant's vector stores reconciled and repaired once a day; any number of processes may see to it."""

    def __init__(self, *, database: Database, records: ReconciliationRecords) -> None:
        self._database = database
        self._records = records

    async def run(self, stop: asyncio.Event) -> None:
        """Look every few minutes whose turn it is, until `stop`."""

        async def step() -> None:
            if await self.enqueue_due() < _STORES_AT_ONCE:
                await unless(stop, asyncio.sleep(_LOOK_SECONDS))

        await repeat(step, stop=stop, name="daily reconciliation")

    async def enqueue_due(self) -> int:
        """Enqueue the jobs of some vector stores whose turn it is; how many."""
        async with self._database.transaction_across_tenants() as connection:
            due = await self._records.due(connection, limit=_STORES_AT_ONCE)
            for tenant, vector_store_id in due:
                with identity.scope(Identity(tenant=tenant, principal=_NOBODY, request_id="")):
                    await _enqueue(connection, vector_store_id, repair=True)
        return len(due)


async def _enqueue(connection: Connection, vector_store_id: str, *, repair: bool) -> str:
    accepted = await jobs.enqueue(
        connection, kind=RECONCILE, subject_id=vector_store_id, payload={"repair": repair}, max_attempts=MAX_ATTEMPTS
    )
    return accepted.job_id
