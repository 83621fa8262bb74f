"""Puts the use cases together over what is outside."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from loremesh.ingestion.v1 import document_pb2_grpc, generation_pb2_grpc, job_pb2_grpc, vector_store_pb2_grpc
from loremesh_kit.events import Bus
from loremesh_kit.jobs import Handler
from loremesh_kit.outbox import OUTBOX, Relay
from loremesh_kit.postgres import Database
from loremesh_kit.server import Servicer, Wired
from loremesh_kit.worker import JobWorker

from loremesh_ingestion.adapters.postgres_deletions import PostgresDeletions
from loremesh_ingestion.adapters.postgres_documents import PostgresDocuments
from loremesh_ingestion.adapters.postgres_generations import PostgresGenerations
from loremesh_ingestion.adapters.postgres_indexing import PostgresIndexing
from loremesh_ingestion.adapters.postgres_liveness import PostgresLiveness
from loremesh_ingestion.adapters.postgres_queue import PostgresQueue
from loremesh_ingestion.adapters.postgres_vector_stores import PostgresVectorStores
from loremesh_ingestion.domain import jobs
from loremesh_ingestion.engine.backlog import Backlog
from loremesh_ingestion.engine.batches import Batches
from loremesh_ingestion.engine.building import BuildGeneration, DropGeneration
from loremesh_ingestion.engine.content import Content
from loremesh_ingestion.engine.deletion import LateWriter
from loremesh_ingestion.engine.documents import Documents
from loremesh_ingestion.engine.generations import Generations
from loremesh_ingestion.engine.giving_up import GivingUp
from loremesh_ingestion.engine.indexing import Indexing
from loremesh_ingestion.engine.jobs import Jobs
from loremesh_ingestion.engine.liveness import Liveness
from loremesh_ingestion.engine.publishing import Publisher
from loremesh_ingestion.engine.reading import Reader
from loremesh_ingestion.engine.replacing import Replacements
from loremesh_ingestion.engine.upkeep import Purge, SyncAttributes
from loremesh_ingestion.engine.uploads import Uploads
from loremesh_ingestion.engine.vector_stores import VectorStores
from loremesh_ingestion.engine.watching import Watching
from loremesh_ingestion.engine.writing import Writer
from loremesh_ingestion.ports import BlobStore, Embedder, Parser, SearchIndex
from loremesh_ingestion.removal import Removal
from loremesh_ingestion.servicers.documents import DocumentServicer
from loremesh_ingestion.servicers.generations import IndexGenerationServicer
from loremesh_ingestion.servicers.jobs import JobServicer
from loremesh_ingestion.servicers.vector_stores import VectorStoreServicer
from loremesh_ingestion.settings import Settings

SERVICE = "ingestion"

_DOCUMENTS = "loremesh.ingestion.v1.DocumentService"
_GENERATIONS = "loremesh.ingestion.v1.IndexGenerationService"
_DELETIONS = "loremesh.ingestion.v1.DeletionService"
_VECTOR_STORES = "loremesh.ingestion.v1.VectorStoreService"
_JOBS = "loremesh.ingestion.v1.JobService"
_LONG_LIVED = frozenset(f"/{_DOCUMENTS}/{rpc}" for rpc in ("UploadDocument", "DownloadDocument", "WatchDocument"))
_IDEMPOTENT = frozenset(
    {
        *(f"/{_DOCUMENTS}/{verb}Document" for verb in ("Update", "Index", "Retry", "Delete")),
        *(f"/{_VECTOR_STORES}/{verb}VectorStore" for verb in ("Create", "Update", "Delete")),
        *(f"/{_GENERATIONS}/{verb}IndexGeneration" for verb in ("Create", "Activate", "Delete")),
        f"/{_JOBS}/ReplayDeadLetters",
        f"/{_DELETIONS}/ReconcileVectorStore",
    }
)


@dataclass(frozen=True, kw_only=True)
class Outside:
    """What the service is connected to."""

    database: Database
    bus: Bus
    blobs: BlobStore
    parser: Parser
    embedder: Embedder
    index: SearchIndex
    probes: Mapping[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)


def assemble(outside: Outside, *, settings: Settings) -> Wired:
    """Servicers, worker and relay."""
    outside.database.listen(lambda topic: _wake_watchers(outside.bus, topic))
    records = _Records(outside.database)
    removal = Removal(
        database=outside.database,
        bus=outside.bus,
        blobs=outside.blobs,
        embedder=outside.embedder,
        index=outside.index,
    )
    return Wired(
        servicers=[*_servicers(outside, records, removal, settings), removal.servicer],
        workers=[_worker(outside, records, removal, settings), *removal.workers],
        background=[Relay(database=outside.database, bus=outside.bus, service=SERVICE)],
        probes=outside.probes,
        long_lived=_LONG_LIVED,
        idempotent=_IDEMPOTENT,
        database=outside.database,
    )


def _wake_watchers(bus: Bus, topic: str) -> None:
    # Each process relays what it has written itself: of the outbox nobody else needs to hear.
    if topic != OUTBOX:
        bus.nudge(topic)


class _Records:
    """Every table."""

    def __init__(self, database: Database) -> None:
        self.documents = PostgresDocuments(database=database)
        self.indexing = PostgresIndexing(database=database)
        self.deletions = PostgresDeletions(database=database)
        self.vector_stores = PostgresVectorStores(database=database)
        self.generations = PostgresGenerations(database=database)
        self.queue = PostgresQueue(database=database)


def _servicers(outside: Outside, records: _Records, removal: Removal, settings: Settings) -> list[Servicer]:
    vector_stores = VectorStores(
        database=outside.database,
        records=records.vector_stores,
        deletions=records.vector_stores,
        queue=records.queue,
        embedder=outside.embedder,
    )
    documents = Documents(
        database=outside.database, records=records.documents, queue=records.queue, vector_stores=vector_stores
    )
    generations = Generations(
        database=outside.database,
        records=records.generations,
        store_records=records.vector_stores,
        vector_stores=vector_stores,
        queue=records.queue,
    )
    replacements = Replacements(
        database=outside.database, records=records.documents, documents=documents, blobs=outside.blobs
    )
    uploads = Uploads(
        database=outside.database,
        documents=records.documents,
        queue=records.queue,
        vector_stores=vector_stores,
        replacements=replacements,
        backlog=Backlog(queue=records.queue, limit=settings.queue_limit),
        blobs=outside.blobs,
        at_once=settings.uploads_at_once,
        large_at_once=settings.large_uploads_at_once,
    )
    document_servicer = DocumentServicer(
        uploads=uploads,
        documents=documents,
        content=Content(documents=documents, records=records.indexing, blobs=outside.blobs),
        liveness=Liveness(records=PostgresLiveness(database=outside.database), vector_stores=vector_stores),
        deletions=removal.deletions,
        watching=Watching(database=outside.database, bus=outside.bus, documents=records.documents),
    )
    jobs_servicer = JobServicer(
        jobs=Jobs(database=outside.database, documents=records.documents, begin=documents.begin)
    )
    return [
        Servicer(
            add=document_pb2_grpc.add_DocumentServiceServicer_to_server, servicer=document_servicer, name=_DOCUMENTS
        ),
        Servicer(
            add=vector_store_pb2_grpc.add_VectorStoreServiceServicer_to_server,
            servicer=VectorStoreServicer(vector_stores=vector_stores),
            name=_VECTOR_STORES,
        ),
        Servicer(add=job_pb2_grpc.add_JobServiceServicer_to_server, servicer=jobs_servicer, name=_JOBS),
        Servicer(
            add=generation_pb2_grpc.add_IndexGenerationServiceServicer_to_server,
            servicer=IndexGenerationServicer(generations=generations),
            name=_GENERATIONS,
        ),
    ]


def _worker(outside: Outside, records: _Records, removal: Removal, settings: Settings) -> JobWorker:
    database = outside.database
    writer = Writer(embedder=outside.embedder, index=outside.index, blobs=outside.blobs, records=records.indexing)
    publisher = Publisher(database=database, records=records.indexing, queue=records.queue, writer=writer)
    reader = Reader(
        blobs=outside.blobs,
        parser=outside.parser,
        directory=settings.work_directory,
        quick_directory=settings.quick_work_directory,
    )
    handlers: dict[str, Handler] = {
        jobs.INDEX: Indexing(
            database=database,
            records=records.indexing,
            queue=records.queue,
            reader=reader,
            writer=writer,
            publisher=publisher,
        ),
        jobs.EMBED_BATCH: Batches(
            database=database, records=records.indexing, queue=records.queue, writer=writer, publisher=publisher
        ),
        jobs.PURGE: Purge(
            database=database,
            records=records.indexing,
            deletions=records.deletions,
            blobs=outside.blobs,
            index=outside.index,
        ),
        jobs.SYNC_ATTRIBUTES: SyncAttributes(
            database=database,
            documents=records.documents,
            records=records.indexing,
            queue=records.queue,
            index=outside.index,
        ),
        jobs.BUILD_GENERATION: BuildGeneration(database=database, records=records.generations, queue=records.queue),
        jobs.DROP_GENERATION: DropGeneration(
            database=database, records=records.generations, blobs=outside.blobs, index=outside.index
        ),
    }
    handlers |= removal.handlers
    handlers |= {
        kind: LateWriter(handler=handlers[kind], deletions=removal.deletions) for kind in (jobs.INDEX, jobs.EMBED_BATCH)
    }
    return JobWorker(
        database=database,
        bus=outside.bus,
        service=SERVICE,
        handlers=handlers,
        on_dead=GivingUp(
            documents=records.documents,
            records=records.indexing,
            reconciliations=removal.reconciliations,
            queue=records.queue,
        ),
        concurrency=settings.job_concurrency,
        lease=settings.job_lease_seconds,
        grace=settings.grace_seconds,
    )
