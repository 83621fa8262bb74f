"""Receipts of deletions, read and completed."""

from collections.abc import Sequence

from loremesh_kit.errors import PageTokenInvalid
from loremesh_kit.inbox import first_time
from loremesh_kit.pages import Position
from loremesh_kit.postgres import Database

from loremesh_ingestion.domain.deletion import ContentStore, Receipt
from loremesh_ingestion.errors import DeletionReceiptNotFound
from loremesh_ingestion.records import DeletionRecords

_CONSUMER = "receipts"


class Receipts:
    """The use cases of DeletionService on receipts."""

    def __init__(self, *, database: Database, records: DeletionRecords) -> None:
        self._database = database
        self._records = records

    async def get(self, receipt_id: str) -> Receipt:
        """Raises DeletionReceiptNotFound."""
        receipt = await self._records.receipt(receipt_id)
        if receipt is None:
            raise DeletionReceiptNotFound(receipt_id)
        return receipt

    async def page(self, vector_store_id: str, *, after: Position | None, limit: int) -> Sequence[Receipt]:
        """The latest deletion first, of one vector store unless empty; raises PageTokenInvalid."""
        try:
            return await self._records.receipts(vector_store_id, after=after, limit=limit)
        except ValueError as error:
            raise PageTokenInvalid from error

    async def forgotten(self, document_id: str, *, passages: int, message_id: str) -> None:
        """Conversations quote the document no more, as message `message_id` says; the same message counts once."""
        async with self._database.transaction() as connection:
            if await first_time(connection, consumer=_CONSUMER, message_id=message_id):
                await self._records.count(connection, document_id, ContentStore.CONVERSATIONS, passages)
