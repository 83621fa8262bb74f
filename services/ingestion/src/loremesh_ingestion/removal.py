"""Puts together what removes documents, proves it and finds what was left behind."""

from collections.abc import Mapping, Sequence

from loremesh.ingestion.v1 import deletion_pb2_grpc
from loremesh_kit.events import Bus
from loremesh_kit.jobs import Handler
from loremesh_kit.postgres import Database
from loremesh_kit.server import Servicer
from loremesh_kit.serving import Worker

from loremesh_ingestion.adapters.postgres_deletions import PostgresDeletions
from loremesh_ingestion.adapters.postgres_documents import PostgresDocuments
from loremesh_ingestion.adapters.postgres_queue import PostgresQueue
from loremesh_ingestion.adapters.postgres_reconciliations import PostgresReconciliations
from loremesh_ingestion.adapters.postgres_vector_stores import PostgresVectorStores
from loremesh_ingestion.consumers import ForgottenDocuments
from loremesh_ingestion.domain import jobs
from loremesh_ingestion.engine.deletion import Deletions
from loremesh_ingestion.engine.documents import Documents
from loremesh_ingestion.engine.purging import Purger
from loremesh_ingestion.engine.receipts import Receipts
from loremesh_ingestion.engine.reconciliations import DailyReconciliation, Reconciliations
from loremesh_ingestion.engine.reconciling import Reconciler
from loremesh_ingestion.engine.store_deletion import VectorStoreDeletion
from loremesh_ingestion.engine.vector_stores import VectorStores
from loremesh_ingestion.ports import BlobStore, Embedder, SearchIndex
from loremesh_ingestion.servicers.deletions import DeletionServicer


class Removal:
    """The use case DeleteDocument, DeletionService, its jobs, and what works in the background for it."""

    def __init__(
        self, *, database: Database, bus: Bus, blobs: BlobStore, embedder: Embedder, index: SearchIndex
    ) -> None:
        documents, queue = PostgresDocuments(database=database), PostgresQueue(database=database)
        stores, deletions = PostgresVectorStores(database=database), PostgresDeletions(database=database)
        self.reconciliations = PostgresReconciliations(database=database)
        purger = Purger(database=database, records=deletions, queue=queue, blobs=blobs, index=index)
        self.deletions = Deletions(
            database=database, documents=documents, records=deletions, queue=queue, purger=purger
        )
        vector_stores = VectorStores(
            database=database, records=stores, deletions=stores, queue=queue, embedder=embedder
        )
        receipts = Receipts(database=database, records=deletions)
        self.servicer = Servicer(
            add=deletion_pb2_grpc.add_DeletionServiceServicer_to_server,
            servicer=DeletionServicer(
                receipts=receipts,
                reconciliations=Reconciliations(
                    database=database, records=self.reconciliations, vector_stores=vector_stores
                ),
            ),
            name="loremesh.ingestion.v1.DeletionService",
        )
        self.workers: Sequence[Worker] = (
            ForgottenDocuments(bus=bus, receipts=receipts),
            DailyReconciliation(database=database, records=self.reconciliations),
        )
        self.handlers: Mapping[str, Handler] = {
            jobs.DELETE: self.deletions.remove,
            jobs.DELETE_VECTOR_STORE: VectorStoreDeletion(
                database=database, records=stores, purger=purger, index=index
            ),
            jobs.RECONCILE: Reconciler(
                database=database,
                records=self.reconciliations,
                documents=Documents(database=database, records=documents, queue=queue, vector_stores=vector_stores),
                blobs=blobs,
                index=index,
            ),
        }
