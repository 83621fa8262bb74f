"""Memories in Postgres. Row-level security adds the tenant to every statement; the user stands in each of them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from loremesh_kit import identity, jobs
from loremesh_kit.errors import PageTokenInvalid
from loremesh_kit.ids import new_id
from loremesh_kit.pages import Position
from loremesh_kit.postgres import Database, Row
from psycopg import AsyncConnection

from loremesh_agent.adapters.postgres_memory_receipts import RECEIPT, forget, purge_expired, receipt
from loremesh_agent.domain.memories import Kind, Memory, NewMemory, Receipt, looking_as
from loremesh_agent.errors import ConversationNotFound, MemoryFull, MemoryNotFound, MemoryReceiptNotFound
from loremesh_agent.ports import Scope

EMBED = "embed-memories"
# Half a day of an embedding service that is down; the next memory brings those along that were given up.
_EMBED_ATTEMPTS = 150
_LONGEST_HISTORY = 100

COLUMNS = (
    "memories.id, kind, user_id, agent_id, conversation_id, content, subject, attribute, confidence, valid_from,"
    " valid_until, run_id, message_id, seq, create_time, supersedes,"
    " CASE WHEN superseded_at <= now() THEN superseded_by ELSE '' END AS superseded_by"
)
# Of what a caller may see: a user sees nothing of other users, and nobody in particular nothing of any.
VISIBLE = "receipt_id IS NULL AND (%(user)s::text IS NULL OR user_id IN ('', %(user)s))"
STANDS = (
    "(superseded_at IS NULL OR superseded_at > now()) AND valid_from <= now()"
    " AND (valid_until IS NULL OR valid_until > now())"
)
EXACTLY = "user_id = %(user_id)s AND agent_id = %(agent_id)s AND conversation_id = %(conversation_id)s"

# Whoever remembers something of a scope waits for whoever does so now.
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('memories ' || %s, 0))"

_CONVERSATION = "SELECT 1 AS found FROM conversations WHERE id = %s FOR KEY SHARE"

# One that is over may be said again; a run that is resumed says again what it said, which may be out of date by now.
_KNOWN = f"""
SELECT {COLUMNS} FROM memories
WHERE {EXACTLY} AND {VISIBLE} AND digest = %(digest)s AND (
    superseded_at IS NULL AND (valid_until IS NULL OR valid_until > now())
    OR %(seq)s > 0 AND run_id = %(run_id)s AND seq = %(seq)s)
LIMIT 1
"""  # noqa: S608 - made of constants, as all here

_COUNT = f"""
SELECT count(*) AS memories FROM memories
WHERE {EXACTLY} AND receipt_id IS NULL AND (valid_until IS NULL OR valid_until > now())
"""  # noqa: S608

# From the instant on at which the new one holds. By digest: one that has expired.
_SUPERSEDE = f"""
UPDATE memories SET superseded_by = %(id)s, superseded_at = greatest(now(), %(valid_from)s::timestamptz)
WHERE {EXACTLY} AND receipt_id IS NULL AND (topic = %(topic)s OR digest = %(digest)s)
    AND (superseded_at IS NULL OR superseded_at > greatest(now(), %(valid_from)s::timestamptz))
RETURNING id
"""  # noqa: S608

_INSERT = f"""
INSERT INTO memories (
    id, kind, user_id, agent_id, conversation_id, content, subject, attribute, digest, topic, terms, confidence,
    valid_from, valid_until, run_id, message_id, seq, supersedes, vector_pending
) VALUES (
    %(id)s, %(kind)s, %(user_id)s, %(agent_id)s, %(conversation_id)s, %(content)s, %(subject)s, %(attribute)s,
    %(digest)s, %(topic)s, %(terms)s, %(confidence)s, coalesce(%(valid_from)s, now()), %(valid_until)s, %(run_id)s,
    %(message_id)s, %(seq)s, %(supersedes)s, %(embeds)s
) RETURNING {COLUMNS}
"""  # noqa: S608

_EXPIRES = "INSERT INTO memory_expiries (memory_id, valid_until) VALUES (%(id)s, %(valid_until)s)"

# Said again it holds as long as was said either time.
_PROLONG = f"""
UPDATE memories SET valid_until = %(valid_until)s
WHERE id = %(id)s AND superseded_at IS NULL AND valid_until > now()
RETURNING {COLUMNS}
"""  # noqa: S608

_EXPIRES_NOT = "DELETE FROM memory_expiries WHERE memory_id = %(id)s"

_GET = f"SELECT {COLUMNS} FROM memories WHERE id = %(id)s AND {VISIBLE}"  # noqa: S608

_PAGE = f"""
SELECT {COLUMNS} FROM memories
WHERE {VISIBLE} AND (%(anywhere)s OR {EXACTLY}) AND (%(kind)s::text IS NULL OR kind = %(kind)s)
    AND (%(show_past)s OR (superseded_at IS NULL OR superseded_at > now())
        AND (valid_until IS NULL OR valid_until > now()))
    AND (%(time)s::timestamptz IS NULL OR (create_time, id) < (%(time)s::timestamptz, %(id)s))
ORDER BY create_time DESC, id DESC LIMIT %(limit)s
"""  # noqa: S608

_SUPERSEDED = f"""
WITH RECURSIVE past AS (
    SELECT id FROM memories WHERE superseded_by = %(id)s
    UNION SELECT memories.id FROM memories JOIN past ON memories.superseded_by = past.id
)
SELECT {COLUMNS} FROM memories JOIN past ON past.id = memories.id
WHERE {VISIBLE} ORDER BY create_time DESC, memories.id DESC LIMIT %(limit)s
"""  # noqa: S608

_SOURCE = "SELECT content FROM messages WHERE id = %s"

_RECEIPT = f"""
SELECT {RECEIPT} FROM memory_receipts
WHERE id = %(id)s AND (%(user)s::text IS NULL OR user_id = %(user)s) AND create_time > now() - interval '90 days'
"""  # noqa: S608


class PostgresMemories:
    """The tables `memories` and `memory_receipts`."""

    def __init__(self, *, database: Database, limit: int, embeds: bool) -> None:
        """At most `limit` memories of one scope are kept; with `embeds` each is given a vector by a job."""
        self._database = database
        self._limit = limit
        self._embeds = embeds

    async def remember(self, new: NewMemory) -> tuple[Memory, bool]:
        """See ports.MemoryStore."""
        parameters = _values(new) | {"user": caller(), "id": new_id(), "embeds": self._embeds}
        async with self._database.transaction() as connection:
            await connection.execute(_LOCK, [f"{identity.current().tenant} {new.user_id} {new.agent_id}"])
            known = await (await connection.execute(_KNOWN, parameters)).fetchone()
            if known:
                return memory(await self._prolonged(connection, known, new)), False
            await self._admit(connection, new, parameters)
            superseded = await (await connection.execute(_SUPERSEDE, parameters)).fetchall()
            parameters["supersedes"] = max((row["id"] for row in superseded), default="")
            made = await (await connection.execute(_INSERT, parameters)).fetchone()
            if new.valid_until:
                await connection.execute(_EXPIRES, parameters)
            if self._embeds:
                await jobs.enqueue(
                    connection, kind=EMBED, payload={}, subject_id=parameters["id"], max_attempts=_EMBED_ATTEMPTS
                )
        if made is None:
            raise MemoryNotFound(parameters["id"])
        return memory(made), True

    async def _prolonged(self, connection: AsyncConnection[Row], known: Row, new: NewMemory) -> Row:
        until = known["valid_until"]
        if until is None or (new.valid_until and new.valid_until <= until):
            return known
        parameters = {"id": known["id"], "valid_until": new.valid_until}
        prolonged = await (await connection.execute(_PROLONG, parameters)).fetchone()
        if prolonged:
            await connection.execute(_EXPIRES_NOT, parameters)
            if new.valid_until:
                await connection.execute(_EXPIRES, parameters)
        return prolonged or known

    async def _admit(self, connection: AsyncConnection[Row], new: NewMemory, parameters: dict[str, Any]) -> None:
        if new.conversation_id:
            found = await (await connection.execute(_CONVERSATION, [new.conversation_id])).fetchone()
            if found is None:
                raise ConversationNotFound(new.conversation_id)
        row = await (await connection.execute(_COUNT, parameters)).fetchone()
        if row and row["memories"] >= self._limit:
            raise MemoryFull(limit=self._limit)

    async def get(self, memory_id: str) -> Memory:
        """See ports.MemoryStore."""
        rows = await self._database.fetch(_GET, {"id": memory_id, "user": caller()})
        if not rows:
            raise MemoryNotFound(memory_id)
        return memory(rows[0])

    async def page(
        self, scope: Scope | None, *, kind: Kind | None, show_past: bool, after: Position | None, limit: int
    ) -> Sequence[Memory]:
        """See ports.MemoryStore."""
        parameters = {
            **of_scope(scope or Scope()), "user": caller(), "anywhere": scope is None, "kind": kind, "limit": limit,
            "show_past": show_past, "time": _time(after), "id": after.id if after else "",
        }  # fmt: skip
        return [memory(row) for row in await self._database.fetch(_PAGE, parameters)]

    async def superseded(self, memory_id: str) -> Sequence[Memory]:
        """See ports.MemoryStore."""
        parameters = {"id": memory_id, "user": caller(), "limit": _LONGEST_HISTORY}
        return [memory(row) for row in await self._database.fetch(_SUPERSEDED, parameters)]

    async def source_text(self, message_id: str) -> str:
        """See ports.MemoryStore."""
        rows = await self._database.fetch(_SOURCE, [message_id])
        return str(rows[0]["content"]) if rows else ""

    async def forget(self, *, memory_id: str = "", scope: Scope | None = None) -> Receipt:
        """See ports.MemoryStore."""
        target = f"id = %(memory_id)s AND {VISIBLE}" if memory_id else f"{EXACTLY} AND {VISIBLE}"
        parameters = {**of_scope(scope or Scope()), "memory_id": memory_id, "user": caller()}
        async with self._database.transaction() as connection:
            return await forget(connection, target, parameters)

    async def receipt(self, receipt_id: str) -> Receipt:
        """See ports.MemoryStore."""
        rows = await self._database.fetch(_RECEIPT, {"id": receipt_id, "user": caller()})
        if not rows:
            raise MemoryReceiptNotFound(receipt_id)
        return receipt(rows[0])

    async def purge(self) -> int:
        """See ports.MemoryStore."""
        return await purge_expired(self._database)


def caller() -> str | None:
    """See looking_as."""
    return looking_as(identity.current().principal)


def of_scope(scope: Scope) -> dict[str, Any]:
    """As the statements name it."""
    return {"user_id": scope.user_id, "agent_id": scope.agent_id, "conversation_id": scope.conversation_id}


def memory(row: Row) -> Memory:
    """Of the columns in COLUMNS."""
    return Memory(**{**row, "kind": Kind(row["kind"])})


def _values(new: NewMemory) -> dict[str, Any]:
    return {
        "kind": new.kind, "user_id": new.user_id, "agent_id": new.agent_id, "conversation_id": new.conversation_id,
        "content": new.content, "subject": new.subject, "attribute": new.attribute, "digest": new.digest,
        "topic": new.topic, "terms": sorted(new.terms), "confidence": new.confidence, "valid_from": new.valid_from,
        "valid_until": new.valid_until, "run_id": new.run_id, "message_id": new.message_id, "seq": new.seq,
    }  # fmt: skip


def _time(after: Position | None) -> datetime | None:
    try:
        return datetime.fromisoformat(after.sort_key) if after else None
    except ValueError as error:
        raise PageTokenInvalid from error
