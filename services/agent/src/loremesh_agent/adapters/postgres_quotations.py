"""Where documents are quoted, and how they are forgotten. Row-level security adds the tenant to every statement."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from loremesh_kit.inbox import first_time
from loremesh_kit.outbox import emit
from loremesh_kit.postgres import Database, Row
from psycopg import AsyncConnection

from loremesh_agent.domain.events import Completed, Incomplete, Payload, SourcesFound, ToolAnswered
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
    WHERE kind IN ('sources', 'completed', 'incomplete', 'tool_result')
), journal AS (
    UPDATE steps SET input = '{}', output = '{}' FROM answers, chat_jobs
    WHERE steps.run_id = answers.run_id AND chat_jobs.id = answers.run_id AND chat_jobs.finish_time IS NOT NULL
), forgotten AS (
    UPDATE messages SET sources = without_document(messages.sources, %(document_id)s)
    FROM answers WHERE messages.id = answers.id
), untold AS (
    UPDATE events SET
        payload = jsonb_set(events.payload, '{sources}', without_document(events.payload -> 'sources', %(document_id)s))
            || CASE WHEN kind = 'tool_result'
                AND jsonb_path_exists(
                    events.payload, '$.sources[*].passage ? (@.document_id == $id)',
                    jsonb_build_object('id', %(document_id)s::text)
                ) THEN '{"content": ""}'::jsonb ELSE '{}' END
    FROM told WHERE events.run_id = told.run_id AND events.seq = told.seq
), quoted AS (
    SELECT sources FROM answers UNION ALL SELECT payload -> 'sources' FROM told
)
SELECT count(*) AS passages FROM quoted, jsonb_array_elements(quoted.sources) AS source
WHERE source -> 'passage' ->> 'document_id' = %(document_id)s AND source -> 'passage' ->> 'content' <> ''
"""

# What an unfinished run was told it needs to go on.
_FORGET_STEPS = """
UPDATE steps SET input = '{}', output = '{}' WHERE run_id = %(run_id)s AND EXISTS (
    SELECT FROM quotations JOIN quoted_documents
        ON quoted_documents.tenant = quotations.tenant AND quoted_documents.document_id = quotations.document_id
    WHERE message_id = %(answer_id)s AND deleted
)
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


async def forget_steps(connection: AsyncConnection[Row], run_id: str, answer_id: str) -> None:
    """Empty the journal of a run that ends, where a document that it quotes was deleted meanwhile."""
    await connection.execute(_FORGET_STEPS, {"run_id": run_id, "answer_id": answer_id})


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
            case SourcesFound(sources) | ToolAnswered(sources=sources):
                found += sources
            case Completed(answer) | Incomplete(answer):
                found += answer.sources
    return found


def without_forgotten(happened: Payload, known: Known) -> Payload:
    """The event, without passages of documents that are forgotten."""
    match happened:
        case SourcesFound(sources):
            return replace(happened, sources=quotable(sources, known))
        case ToolAnswered(sources=sources) if sources:
            is_whole = documents(sources) <= known.live
            content = happened.content if is_whole else ""
            return replace(happened, sources=quotable(sources, known), content=content)
        case Completed(answer):
            return Completed(replace(answer, sources=quotable(answer.sources, known)))
        case Incomplete(answer):
            return Incomplete(replace(answer, sources=quotable(answer.sources, known)))
    return happened
