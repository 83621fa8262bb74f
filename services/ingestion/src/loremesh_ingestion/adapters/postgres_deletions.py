"""Deletions in Postgres."""

from collections.abc import Sequence

from loremesh_kit.ids import new_id
from loremesh_kit.postgres import Database

from loremesh_ingestion.domain.document import Document
from loremesh_ingestion.records import Connection

_HIDE = """
UPDATE documents SET state = 'DELETING', failure = NULL, revision = revision + 1, update_time = now() WHERE id = %s
"""

_RECEIPT = """
INSERT INTO deletions (id, document_id, vector_store_id) VALUES (%(id)s, %(document_id)s, %(vector_store_id)s)
"""

_RECEIPT_ID = "SELECT id FROM deletions WHERE document_id = %s"

_MODELS = """
SELECT DISTINCT documents.generation, versions.embedding_model
FROM documents JOIN document_versions AS versions ON versions.document_id = documents.key WHERE documents.id = %s
"""

_COUNT = "UPDATE deletions SET index_chunks = index_chunks + %s WHERE document_id = %s"

_FINISH = """
WITH removed AS (
    DELETE FROM documents WHERE id = ANY(%(document_ids)s) AND state = 'DELETING' RETURNING id, key
), counted AS (
    SELECT removed.id, count(chunks.document_id) AS chunks
    FROM removed LEFT JOIN chunks ON chunks.document_id = removed.key GROUP BY removed.id
), finished AS (
    UPDATE deletions SET
        finish_time = now(), index_chunks = deletions.index_chunks + %(index_chunks)s,
        objects = deletions.objects + %(objects)s, chunks = counted.chunks
    FROM counted WHERE deletions.document_id = counted.id
)
SELECT id FROM counted
"""


class PostgresDeletions:
    """The table `deletions`, and the end of a document's rows."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def hide(self, connection: Connection, document: Document) -> str:
        """No read shows it from the commit on."""
        await connection.execute(_HIDE, [document.id])
        parameters = {"id": new_id(), "document_id": document.id, "vector_store_id": document.vector_store_id}
        await connection.execute(_RECEIPT, parameters)
        return parameters["id"]

    async def receipt(self, connection: Connection, document_id: str) -> str:
        """Empty where there is none."""
        row = await (await connection.execute(_RECEIPT_ID, [document_id])).fetchone()
        return row["id"] if row else ""

    async def models(self, document_id: str) -> list[tuple[int, str]]:
        """Of all its versions."""
        rows = await self._database.fetch(_MODELS, [document_id])
        return [(row["generation"], row["embedding_model"]) for row in rows]

    async def count(self, document_id: str, *, index_chunks: int) -> None:
        """Add to the receipt."""
        await self._database.fetch(_COUNT, [index_chunks, document_id])

    async def finish(
        self, connection: Connection, document_ids: Sequence[str], *, index_chunks: int, objects: int
    ) -> list[str]:
        """Versions, chunks and marks go with their documents."""
        parameters = {"document_ids": list(document_ids), "index_chunks": index_chunks, "objects": objects}
        rows = await (await connection.execute(_FINISH, parameters)).fetchall()
        return [row["id"] for row in rows]
