"""Jobs as their tenant sees them: one, or a page of them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from loremesh_kit import identity
from loremesh_kit.postgres import Database

_JOB = """
SELECT id, kind, subject_id, state, attempt, max_attempts, error_reason, created_at, due_at, finished_at FROM jobs
WHERE tenant = %(tenant)s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedJob:
    """A job and where it stands; `error_reason` is that of its latest failed attempt."""

    id: str
    kind: str
    subject_id: str
    state: str
    attempt: int
    max_attempts: int
    error_reason: str | None
    created_at: datetime
    due_at: datetime
    finished_at: datetime | None


async def get(database: Database, job_id: str) -> ListedJob | None:
    """A job of the caller's tenant; finished ones are kept for a week."""
    rows = await database.fetch(_JOB + " AND id = %(id)s", {"tenant": identity.current().tenant, "id": job_id})
    return ListedJob(**rows[0]) if rows else None


async def page(
    database: Database, *, state: str = "", kind: str = "", subject_id: str = "", before: str = "", limit: int
) -> list[ListedJob]:
    """Up to `limit` jobs of the caller's tenant older than the id `before`, newest first; empty does not restrict."""
    query: LiteralString = _JOB
    if state:
        query += " AND state = %(state)s"
    if kind:
        query += " AND kind = %(kind)s"
    if subject_id:
        query += " AND subject_id = %(subject_id)s"
    if before:
        query += " AND id < %(before)s"
    parameters: dict[str, Any] = {
        "tenant": identity.current().tenant,
        "state": state,
        "kind": kind,
        "subject_id": subject_id,
        "before": before,
        "limit": limit,
    }
    rows = await database.fetch(query + " ORDER BY id DESC LIMIT %(limit)s", parameters)
    return [ListedJob(**row) for row in rows]
