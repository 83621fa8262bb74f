"""Reconciliations in Postgres, and what they compare with."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, fields
from datetime import datetime

from loremesh_kit.postgres import Database

from loremesh_ingestion.domain.deletion import IndexPlace
from loremesh_ingestion.domain.document import DocumentState
from loremesh_ingestion.domain.reconciliation import Findings, Reconciliation, ReconciliationState, Recorded
from loremesh_ingestion.records import Connection

_FINDINGS = tuple(field.name for field in fields(Findings))

_BEGIN = """
WITH old AS (
    DELETE FROM reconciliations WHERE vector_store_id = %(store)s AND finish_time < now() - interval '30 days'
)
INSERT INTO reconciliations (id, vector_store_id, repair) VALUES (%(id)s, %(store)s, %(repair)s) ON CONFLICT DO NOTHING
"""

_SET_FINDINGS = ", ".join(f"{name} = %({name})s" for name in _FINDINGS)

_END = f"""
UPDATE reconciliations SET state = 'DONE', finish_time = now(), {_SET_FINDINGS}
WHERE id = %(id)s AND state = 'RUNNING'
"""  # noqa: S608 - made of constants, as all statements here

_FAIL = """
UPDATE reconciliations SET state = 'FAILED', finish_time = now(), error_reason = %(reason)s
WHERE id = %(id)s AND state = 'RUNNING'
"""

_PLACES = """
SELECT line.generation, line.embedding_model
FROM index_generations AS line JOIN vector_stores ON vector_stores.id = line.vector_store_id
WHERE line.vector_store_id = %(id)s AND NOT deleting ORDER BY line.generation
"""

_RECORDED = """
SELECT id, state, version, latest_version, chunk_count, update_time < %(settled_before)s AS is_settled FROM documents
WHERE vector_store_id = %(store)s AND generation = %(generation)s AND id > %(after)s
ORDER BY id LIMIT %(limit)s
"""

_UNKNOWN = """
SELECT id FROM unnest(%(ids)s::text[]) AS asked (id)
WHERE NOT EXISTS (SELECT FROM documents WHERE documents.id = asked.id)
    AND NOT EXISTS (
        SELECT FROM deletions
        WHERE deletions.document_id = asked.id AND coalesce(rows_time, now()) >= %(settled_before)s
    )
"""

# Who comes second finds the row locked or of today.
_DUE = """
WITH due AS (
    SELECT tenant, vector_store_id FROM reconciliation_days WHERE day < current_date
    ORDER BY day LIMIT %s FOR UPDATE SKIP LOCKED
)
UPDATE reconciliation_days AS days SET day = current_date FROM due
WHERE days.tenant = due.tenant AND days.vector_store_id = due.vector_store_id
RETURNING days.tenant, days.vector_store_id
"""


class PostgresReconciliations:
    """The tables `reconciliations` and `reconciliation_days`."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def begin(self, connection: Connection, id_: str, vector_store_id: str, *, repair: bool) -> None:
        """Those of the vector store that ended a month ago go."""
        await connection.execute(_BEGIN, {"id": id_, "store": vector_store_id, "repair": repair})

    async def end(self, connection: Connection, id_: str, findings: Findings) -> None:
        """DONE."""
        await connection.execute(_END, {"id": id_, **asdict(findings)})

    async def fail(self, connection: Connection, id_: str, reason: str) -> None:
        """FAILED."""
        await connection.execute(_FAIL, {"id": id_, "reason": reason})

    async def get(self, id_: str) -> Reconciliation | None:
        """One round trip."""
        rows = await self._database.fetch("SELECT * FROM reconciliations WHERE id = %s", [id_])
        if not rows:
            return None
        row = rows[0]
        return Reconciliation(
            id=row["id"],
            vector_store_id=row["vector_store_id"],
            repair=row["repair"],
            state=ReconciliationState(row["state"]),
            findings=Findings(**{name: row[name] for name in _FINDINGS}),
            error_reason=row["error_reason"],
            create_time=row["create_time"],
            finish_time=row["finish_time"],
        )

    async def places(self, vector_store_id: str) -> list[IndexPlace]:
        """One for each generation."""
        return [IndexPlace(**row) for row in await self._database.fetch(_PLACES, {"id": vector_store_id})]

    async def recorded(
        self, vector_store_id: str, generation: int, *, after: str, limit: int, settled_before: datetime
    ) -> Sequence[Recorded]:
        """Those being deleted too."""
        parameters = {
            "store": vector_store_id,
            "generation": generation,
            "after": after,
            "limit": limit,
            "settled_before": settled_before,
        }
        rows = await self._database.fetch(_RECORDED, parameters)
        return [Recorded(**{**row, "state": DocumentState(row["state"])}) for row in rows]

    async def unknown(self, document_ids: Collection[str], *, settled_before: datetime) -> set[str]:
        """A deletion that is not done yet counts as one of now."""
        parameters = {"ids": list(document_ids), "settled_before": settled_before}
        return {row["id"] for row in await self._database.fetch(_UNKNOWN, parameters)}

    async def due(self, connection: Connection, *, limit: int) -> list[tuple[str, str]]:
        """Marks them as done for today."""
        rows = await (await connection.execute(_DUE, [limit])).fetchall()
        return [(row["tenant"], row["vector_store_id"]) for row in rows]
