"""Deletions in Postgres."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from loremesh_kit.ids import new_id
from loremesh_kit.pages import Position
from loremesh_kit.postgres import Database

from loremesh_ingestion.adapters.postgres_rows import INDEX_PLACES
from loremesh_ingestion.domain.deletion import ContentStore, IndexPlace, Receipt, StorePurge, Tombstone
from loremesh_ingestion.domain.document import Document
from loremesh_ingestion.records import Connection

_HIDE = """
UPDATE documents SET state = 'DELETING', failure = NULL, revision = revision + 1, update_time = now() WHERE id = %s
"""

_RECEIPT = f"""
INSERT INTO deletions (id, document_id, vector_store_id, indexes)
SELECT %(id)s, id, vector_store_id, {INDEX_PLACES} FROM documents WHERE id = %(document_id)s LIMIT 1
"""  # noqa: S608 - made of constants, as all statements here

_RECEIPT_ID = "SELECT id FROM deletions WHERE document_id = %s"

_TOMBSTONE = "SELECT document_id, vector_store_id, indexes FROM deletions WHERE document_id = %s"

_MODELS = """
SELECT DISTINCT documents.generation, versions.embedding_model
FROM documents JOIN document_versions AS versions ON versions.document_id = documents.key WHERE documents.id = %s
"""

# What a store's purge counts, and when it was.
_COLUMNS = {
    ContentStore.SEARCH_INDEX: ("index_chunks", "index_time"),
    ContentStore.OBJECTS: ("objects", "objects_time"),
    ContentStore.DATABASE: ("chunks", "rows_time"),
    ContentStore.CONVERSATIONS: ("passages", "conversations_time"),
}

# A purge that comes again, for what was written late, adds what it finds.
_COUNT = {
    store: f"UPDATE deletions SET {count} = {count} + %s, {time} = now() WHERE document_id = %s"  # noqa: S608
    for store, (count, time) in _COLUMNS.items()
}

_FINISH = """
WITH removed AS (
    DELETE FROM documents WHERE id = %(document_id)s AND state = 'DELETING' RETURNING id, key
), counted AS (
    SELECT removed.id, count(chunks.document_id) AS chunks
    FROM removed LEFT JOIN chunks ON chunks.document_id = removed.key GROUP BY removed.id
)
UPDATE deletions SET rows_time = now(), chunks = counted.chunks
FROM counted WHERE deletions.document_id = counted.id
"""

_RECEIPTS = """
SELECT * FROM deletions
WHERE (create_time, id) < (%(create_time)s, %(id)s) AND %(vector_store_id)s IN ('', vector_store_id)
ORDER BY create_time DESC, id DESC LIMIT %(limit)s
"""


class PostgresDeletions:
    """The table `deletions`, and the end of a document's rows."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def hide(self, connection: Connection, document: Document) -> str:
        """No read shows it from the commit on."""
        receipt_id = new_id()
        await connection.execute(_HIDE, [document.id])
        await connection.execute(_RECEIPT, {"id": receipt_id, "document_id": document.id})
        return receipt_id

    async def receipt_id(self, connection: Connection, document_id: str) -> str:
        """Empty where there is none."""
        row = await (await connection.execute(_RECEIPT_ID, [document_id])).fetchone()
        return row["id"] if row else ""

    async def tombstone(self, document_id: str) -> Tombstone | None:
        """None for a document that nobody deleted."""
        rows = await self._database.fetch(_TOMBSTONE, [document_id])
        if not rows:
            return None
        places = [IndexPlace(*place) for place in rows[0]["indexes"]]
        return Tombstone(rows[0]["document_id"], rows[0]["vector_store_id"], places)

    async def models(self, document_id: str) -> list[tuple[int, str]]:
        """Of all its versions."""
        rows = await self._database.fetch(_MODELS, [document_id])
        return [(row["generation"], row["embedding_model"]) for row in rows]

    async def count(self, connection: Connection, document_id: str, store: ContentStore, removed: int) -> None:
        """Add to the receipt."""
        await connection.execute(_COUNT[store], [removed, document_id])

    async def finish(self, connection: Connection, document_id: str) -> bool:
        """Versions, chunks and marks go with their document."""
        return (await connection.execute(_FINISH, {"document_id": document_id})).rowcount == 1

    async def receipt(self, receipt_id: str) -> Receipt | None:
        """By its id."""
        rows = await self._database.fetch("SELECT * FROM deletions WHERE id = %s", [receipt_id])
        return _receipt(rows[0]) if rows else None

    async def receipts(self, vector_store_id: str, *, after: Position | None, limit: int) -> Sequence[Receipt]:
        """The position's sort key is the creation time in ISO 8601; raises ValueError when it is not."""
        after = after or Position(sort_key="9999-12-31T23:59:59+00:00", id="")
        parameters = {
            "create_time": datetime.fromisoformat(after.sort_key),
            "id": after.id,
            "vector_store_id": vector_store_id,
            "limit": limit,
        }
        return [_receipt(row) for row in await self._database.fetch(_RECEIPTS, parameters)]


def _receipt(row: Mapping[str, Any]) -> Receipt:
    return Receipt(
        id=row["id"],
        document_id=row["document_id"],
        vector_store_id=row["vector_store_id"],
        create_time=row["create_time"],
        purges=[StorePurge(store, row[count], _time(row, store, time)) for store, (count, time) in _COLUMNS.items()],
    )


def _time(row: Mapping[str, Any], store: ContentStore, time: str) -> datetime | None:
    # The times of index and objects are kept since receipts have four stores; before, the rows went last of three.
    at: datetime | None = row[time] or (None if store is ContentStore.CONVERSATIONS else row["rows_time"])
    return at
