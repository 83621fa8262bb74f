"""Where documents are quoted, and how they are forgotten. Row-level security adds the tenant to every statement."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from loremesh_kit.inbox import first_time
from loremesh_kit.outbox import emit
from loremesh_kit.postgres import Database, Row
from psycopg import AsyncConnection

from loremesh_agent.domain.events import Completed, Incomplete, Payload, SourcesFound
from loremesh_agent.domain.passages import Known, Source, documents, quotable

CONSUMER = "forgetting"
FORGOTTEN = "DocumentForgotten"

# In one order, so that no two wait for each other.
_QUOTE = """
WITH known AS (
    INSERT INTO quoted_documents (document_id)
    SELECT document_id FROM unnest(%(document_ids)s::text[]) AS given (document_id) ORDER BY document_id
    ON CONFLICT (tenant, document_id) DO UPDATE SET document_id = excluded.document_id
    RETURNING document_id, deleted
), quoted AS (
    INSERT INTO quotations (message_id, document_id)
    SELECT messages.id, document_id FROM known, messages WHERE messages.id = %(message_id)s
    ON CONFLICT DO NOTHING
)
SELECT document_id FROM known WHERE NOT deleted
"""

_MARK = """
INSERT INTO quoted_documents (document_id, deleted) VALUES (%(document_id)s, true)
ON CONFLICT (tenant, document_id) DO UPDATE SET deleted = true
"""

_FORGET = """
WITH answers AS (
    SELECT messages.id, run_id, sources FROM quotations JOIN messages ON messages.id = message_id
    WHERE document_id = %(document_id)s
), told AS (
    SELECT events.run_id, seq, payload FROM answers JOIN events ON events.run_id = answers.run_id
    WHERE kind IN ('sources', 'completed', 'incomplete')
), forgotten AS (
    UPDATE messages SET sources = without_document(messages.sources, %(document_id)s)
    FROM answers WHERE messages.id = answers.id
), untold AS (
    UPDATE events SET
        payload = jsonb_set(events.payload, '{sources}', without_document(events.payload -> 'sources', %(document_id)s))
    FROM told WHERE events.run_id = told.run_id AND events.seq = told.seq
), quoted AS (
    SELECT sources FROM answers UNION ALL SELECT payload -> 'sources' FROM told
)
SELECT count(*) AS passages FROM quoted, jsonb_array_elements(quoted.sources) AS source
WHERE source -> 'passage' ->> 'document_id' = %(document_id)s AND source -> 'passage' ->> 'content' <> ''
"""


class PostgresQuotations:
    """The tables `quoted_documents` and `quotations`."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def forget(self, document_id: str, *, vector_store_id: str, message_id: str) -> None:
        """See ports.Quotations."""
        async with self._database.transaction() as connection:
            if not await first_time(connection, consumer=CONSUMER, message_id=message_id):
                return
            await connection.execute(_MARK, {"document_id": document_id})
            row = await (await connection.execute(_FORGET, {"document_id": document_id})).fetchone()
            payload = {
                "document_id": document_id,
                "vector_store_id": vector_store_id,
                "passages": row["passages"] if row else 0,
            }
            await emit(connection, name=FORGOTTEN, payload=payload)


async def quote(connection: AsyncConnection[Row], answer_id: str, sources: Sequence[Source]) -> Known:
    """Remember, until the answer is gone, that it quotes these documents; which of them are not forgotten yet."""
    if not sources:
        return Known()
    parameters = {"message_id": answer_id, "document_ids": list(documents(sources))}
    rows = await (await connection.execute(_QUOTE, parameters)).fetchall()
    return Known(frozenset(row["document_id"] for row in rows))


def quoted(happened: Iterable[Payload]) -> list[Source]:
    """All sources in these events."""
    found: list[Source] = []
    for payload in happened:
        match payload:
            case SourcesFound(sources):
                found += sources
            case Completed(answer) | Incomplete(answer):
                found += answer.sources
    return found


def without_forgotten(happened: Payload, known: Known) -> Payload:
    """The event, without passages of documents that are forgotten."""
    match happened:
        case SourcesFound(sources):
            return replace(happened, sources=quotable(sources, known))
        case Completed(answer):
            return Completed(replace(answer, sources=quotable(answer.sources, known)))
        case Incomplete(answer):
            return Incomplete(replace(answer, sources=quotable(answer.sources, known)))
    return happened
