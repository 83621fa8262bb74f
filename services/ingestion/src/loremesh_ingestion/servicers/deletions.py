"""DeletionService."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from grpc import aio
from loremesh.ingestion.v1 import deletion_pb2 as pb
from loremesh.ingestion.v1.deletion_pb2_grpc import DeletionServiceServicer
from loremesh_kit.pages import Position, decode_token, encode_token

from loremesh_ingestion.domain.deletion import ContentStore, Receipt
from loremesh_ingestion.domain.reconciliation import Reconciliation, ReconciliationState
from loremesh_ingestion.engine.receipts import Receipts
from loremesh_ingestion.engine.reconciliations import Reconciliations
from loremesh_ingestion.servicers import messages
from loremesh_ingestion.servicers.documents import DEFAULT_PAGE

_STORES = {store: pb.ContentStore.Value(f"CONTENT_STORE_{store.name}") for store in ContentStore}
_STATES = {state: pb.ReconciliationState.Value(f"RECONCILIATION_STATE_{state.name}") for state in ReconciliationState}

Context = aio.ServicerContext[Any, Any]


class DeletionServicer(DeletionServiceServicer):
    """One method per rpc."""

    def __init__(self, *, receipts: Receipts, reconciliations: Reconciliations) -> None:
        self._receipts = receipts
        self._reconciliations = reconciliations

    async def GetDeletionReceipt(  # noqa: N802 - the rpc's name, as all others here
        self, request: pb.GetDeletionReceiptRequest, context: Context
    ) -> pb.DeletionReceipt:
        """Get one."""
        del context
        return _receipt(await self._receipts.get(messages.line(request.receipt_id)))

    async def ListDeletionReceipts(  # noqa: N802
        self, request: pb.ListDeletionReceiptsRequest, context: Context
    ) -> pb.ListDeletionReceiptsResponse:
        """List a page, the latest deletion first."""
        del context
        limit = request.page_size or DEFAULT_PAGE
        after = decode_token(request.page_token, query=request)
        found = await self._receipts.page(messages.line(request.vector_store_id), after=after, limit=limit + 1)
        response = pb.ListDeletionReceiptsResponse(receipts=[_receipt(each) for each in found[:limit]])
        if len(found) > limit:
            last = found[limit - 1]
            position = Position(sort_key=last.create_time.isoformat(), id=last.id)
            response.next_page_token = encode_token(position, query=request)
        return response

    async def ReconcileVectorStore(  # noqa: N802
        self, request: pb.ReconcileVectorStoreRequest, context: Context
    ) -> pb.Reconciliation:
        """Begin one."""
        del context
        store = messages.line(request.vector_store_id)
        return _reconciliation(await self._reconciliations.start(store, repair=request.repair))

    async def GetReconciliation(  # noqa: N802
        self, request: pb.GetReconciliationRequest, context: Context
    ) -> pb.Reconciliation:
        """Get one."""
        del context
        return _reconciliation(await self._reconciliations.get(messages.line(request.reconciliation_id)))


def _reconciliation(reconciliation: Reconciliation) -> pb.Reconciliation:
    return pb.Reconciliation(
        id=reconciliation.id,
        vector_store_id=reconciliation.vector_store_id,
        repair=reconciliation.repair,
        state=_STATES[reconciliation.state],
        error_reason=reconciliation.error_reason,
        create_time=messages.timestamp(reconciliation.create_time),
        finish_time=_time(reconciliation.finish_time),
        **asdict(reconciliation.findings),
    )


def _receipt(receipt: Receipt) -> pb.DeletionReceipt:
    return pb.DeletionReceipt(
        id=receipt.id,
        document_id=receipt.document_id,
        vector_store_id=receipt.vector_store_id,
        create_time=messages.timestamp(receipt.create_time),
        finish_time=_time(receipt.finish_time),
        purges=[
            pb.StorePurge(store=_STORES[each.store], removed_count=each.removed, finish_time=_time(each.finish_time))
            for each in receipt.purges
        ],
    )


def _time(value: datetime | None) -> Timestamp | None:
    return None if value is None else messages.timestamp(value)
