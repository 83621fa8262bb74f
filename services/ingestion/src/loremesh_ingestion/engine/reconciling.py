"""The job `reconcile`: compares what a vector store's index and objects hold with what is recorded, and repairs it."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import structlog
from loremesh_kit import identity, jobs
from loremesh_kit.errors import ServiceError
from loremesh_kit.jobs import Job
from loremesh_kit.postgres import Database

from loremesh_ingestion.domain import objects
from loremesh_ingestion.domain.deletion import IndexPlace
from loremesh_ingestion.domain.reconciliation import SETTLED_SECONDS, Findings, Recorded, Remedy, judge
from loremesh_ingestion.engine.documents import Documents
from loremesh_ingestion.errors import VectorStoreNotFound
from loremesh_ingestion.ports import BlobStore, SearchIndex, StoredObject
from loremesh_ingestion.reconciliation_records import ReconciliationRecords

_DOCUMENTS_AT_ONCE = 500
_log = structlog.get_logger(__name__)

# Chunks by version, by document.
_Held = Mapping[str, Mapping[int, int]]


class Reconciler:
    """The index is listed before the records are read: what is published meanwhile is no orphan, but too young."""

    def __init__(
        self,
        *,
        database: Database,
        records: ReconciliationRecords,
        documents: Documents,
        blobs: BlobStore,
        index: SearchIndex,
    ) -> None:
        self._database = database
        self._records = records
        self._documents = documents
        self._blobs = blobs
        self._index = index

    async def __call__(self, job: Job) -> None:
        """Count, and repair if the job says so; an attempt that is cut off begins anew."""
        store, repair = job.subject_id, job.payload["repair"]
        async with self._database.transaction() as connection:
            await self._records.begin(connection, job.id, store, repair=repair)
        findings = Findings()
        settled_before = datetime.now(UTC) - timedelta(seconds=SETTLED_SECONDS)
        places = await self._records.places(store)
        for place in places:
            await self._check_index(store, place, findings, settled_before, repair=repair)
        await self._check_objects(findings, settled_before, repair=repair)
        _log.info("reconciled", vector_store_id=store, repair=repair, orphan_chunks=findings.orphan_chunks)
        async with self._database.transaction() as connection:
            if places:
                await self._records.end(connection, job.id, findings)
            else:
                await self._records.fail(connection, job.id, VectorStoreNotFound.reason)
            await jobs.complete(connection, job)

    async def _check_index(
        self, store: str, place: IndexPlace, findings: Findings, settled_before: datetime, *, repair: bool
    ) -> None:
        unseen = await self._held(store, place)
        findings.chunks_checked += sum(sum(versions.values()) for versions in unseen.values())
        after, recorded = "", None
        while recorded is None or len(recorded) == _DOCUMENTS_AT_ONCE:
            recorded = await self._records.recorded(
                store, place.generation, after=after, limit=_DOCUMENTS_AT_ONCE, settled_before=settled_before
            )
            for each in recorded:
                await self._check_document(store, place, each, unseen.pop(each.id, {}), findings, repair=repair)
            after = recorded[-1].id if recorded else after
            findings.documents_checked += len(recorded)
        await self._check_unknown(store, place, unseen, findings, settled_before, repair=repair)

    async def _held(self, store: str, place: IndexPlace) -> dict[str, Counter[int]]:
        held: dict[str, Counter[int]] = defaultdict(Counter)
        listed = self._index.versions(
            vector_store_id=store, generation=place.generation, embedding_model=place.embedding_model
        )
        async for part in listed:
            for each in part:
                held[each.document_id][each.version] += each.chunk_count
        return held

    async def _check_document(
        self,
        store: str,
        place: IndexPlace,
        recorded: Recorded,
        held: Mapping[int, int],
        findings: Findings,
        *,
        repair: bool,
    ) -> None:
        verdict = judge(recorded, held)
        findings.orphan_chunks += verdict.orphans
        findings.drifted_documents += verdict.remedy is Remedy.INDEX_AGAIN
        if repair and verdict.orphans:
            await self._clear(store, place, recorded.id, before=verdict.before)
        if repair and verdict.remedy is Remedy.INDEX_AGAIN:
            try:
                await self._documents.index(recorded.id, None)
            except ServiceError as error:
                # Deleted meanwhile, most likely; the next reconciliation sees to whatever else it was.
                _log.info("not indexed again", document_id=recorded.id, reason=error.reason)

    async def _check_unknown(
        self,
        store: str,
        place: IndexPlace,
        unseen: _Held,
        findings: Findings,
        settled_before: datetime,
        *,
        repair: bool,
    ) -> None:
        for document_id in await self._records.unknown(unseen.keys(), settled_before=settled_before):
            findings.orphan_chunks += sum(unseen[document_id].values())
            if repair:
                await self._clear(store, place, document_id)

    async def _clear(self, store: str, place: IndexPlace, document_id: str, *, before: int = 0) -> None:
        await self._index.delete(
            vector_store_id=store,
            generation=place.generation,
            embedding_model=place.embedding_model,
            document_id=document_id,
            before_version=before,
        )

    async def _check_objects(self, findings: Findings, settled_before: datetime, *, repair: bool) -> None:
        """Of the whole tenant, since an object does not say its vector store."""
        prefix = objects.tenant_prefix(identity.current().tenant)
        async for page in self._blobs.entries(prefix):
            old: dict[str, list[StoredObject]] = defaultdict(list)
            for each in page:
                if each.write_time < settled_before and (document_id := objects.document_of(each.key)):
                    old[document_id].append(each)
            unknown = await self._records.unknown(old.keys(), settled_before=settled_before) if old else ()
            orphans = [each.key for document_id in unknown for each in old[document_id]]
            findings.orphan_objects += len(orphans)
            if repair and orphans:
                await self._blobs.delete(orphans)
