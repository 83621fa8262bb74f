"""Turns in Postgres. Row-level security adds the tenant to every statement."""

from collections.abc import Sequence

from loremesh_kit.idempotency import once, remember
from loremesh_kit.postgres import Database, Row
from psycopg import AsyncConnection

from loremesh_agent.adapters.postgres_quotations import quote
from loremesh_agent.adapters.postgres_rows import MESSAGE, message, sources
from loremesh_agent.domain.conversations import Exchange, title_of
from loremesh_agent.domain.passages import quotable
from loremesh_agent.errors import ConversationBusy, ConversationNotFound
from loremesh_agent.ports import AnsweredBefore, Claim, FinishedTurn, NewTurn

# More would not fit into any window worth filling.
_REMEMBERED = 20
_BUSY_RETRY_SECONDS = 2.0

_CREATE = """
INSERT INTO conversations (id, title, agent_id, attributes)
VALUES (%(new_conversation_id)s, %(title)s, %(agent_id)s, '{}')
"""

# The lock makes turns of a conversation queue up here; what they then see is up to date.
_LOCK = "SELECT message_count FROM conversations WHERE id = %(conversation_id)s FOR UPDATE"

_HOLDER = """
SELECT greatest(0, extract(epoch FROM lease_until - clock_timestamp()))::float8 AS seconds
FROM messages WHERE conversation_id = %(conversation_id)s AND state = 'IN_PROGRESS'
"""

_GIVE_UP = """
UPDATE messages SET state = 'FAILED', lease_until = NULL
WHERE conversation_id = %(conversation_id)s AND state = 'IN_PROGRESS'
"""

_HISTORY = f"""
SELECT asked.content AS question, said.content AS answer,
    jsonb_path_query_array(said.sources, '$[*].passage.document_id') AS document_ids
FROM messages AS said
JOIN messages AS asked
    ON asked.conversation_id = said.conversation_id AND asked.position = said.position - 1 AND asked.role = 'USER'
WHERE said.conversation_id = %(conversation_id)s AND said.role = 'AGENT' AND said.content <> ''
    AND said.state IN ('COMPLETED', 'INCOMPLETE')
    AND said.position < coalesce((SELECT position FROM messages WHERE id = %(question_id)s), 2147483647)
ORDER BY said.position DESC LIMIT {_REMEMBERED}
"""  # noqa: S608 - made of constants

_INSERT = """
WITH counted AS (
    UPDATE conversations SET
        message_count = message_count + 2, update_time = now(),
        title = CASE WHEN title = '' AND message_count = 0 THEN %(title)s ELSE title END
    WHERE id = %(conversation_id)s
), last AS (
    SELECT coalesce(max(position), 0) AS position FROM messages WHERE conversation_id = %(conversation_id)s
)
INSERT INTO messages (id, conversation_id, position, role, content, state, lease_until, run_id, agent_revision)
SELECT %(question_id)s, %(conversation_id)s, position + 1, 'USER', %(text)s, 'COMPLETED', NULL, '', 0 FROM last
UNION ALL
SELECT %(answer_id)s, %(conversation_id)s, position + 2, 'AGENT', '', 'IN_PROGRESS',
    clock_timestamp() + make_interval(secs => %(lease)s), %(run_id)s, %(agent_revision)s FROM last
"""

_KEEP = """
UPDATE messages SET content = %(content)s, lease_until = clock_timestamp() + make_interval(secs => %(lease)s)
WHERE id = %(answer_id)s AND state = 'IN_PROGRESS' RETURNING id
"""

_FINISH = """
UPDATE messages SET
    content = %(content)s, state = %(state)s, lease_until = NULL, sources = %(sources)s, model = %(model)s,
    grounded = %(grounded)s, finish_reason = %(finish_reason)s, input_tokens = %(input_tokens)s,
    output_tokens = %(output_tokens)s
WHERE id = %(answer_id)s AND (state = 'IN_PROGRESS' OR (state = %(state)s AND content = %(content)s)) RETURNING id
"""

_CLAIMED = f"""
SELECT {MESSAGE}, greatest(0, coalesce(extract(epoch FROM lease_until - clock_timestamp()), 0))::float8 AS held
FROM messages WHERE id = %(answer_id)s
"""  # noqa: S608 - made of constants

_REPLACE_CONVERSATION = "DELETE FROM conversations WHERE id = %(conversation_id)s AND message_count = 2"

_REPLACE_TURN = """
WITH gone AS (
    DELETE FROM messages WHERE conversation_id = %(conversation_id)s AND position IN (%(position)s - 1, %(position)s)
)
UPDATE conversations SET message_count = message_count - 2 WHERE id = %(conversation_id)s
"""

_EXISTS = "SELECT id FROM conversations WHERE id = %s"

_WITHDRAW = """
WITH gone AS (DELETE FROM messages WHERE id IN (%(question_id)s, %(answer_id)s) RETURNING conversation_id),
unmade AS (DELETE FROM conversations WHERE id = %(new_conversation_id)s)
UPDATE conversations SET message_count = message_count - (SELECT count(*) FROM gone)
WHERE id IN (SELECT conversation_id FROM gone) AND id <> %(new_conversation_id)s
"""


class PostgresTurns:
    """The tables `conversations` and `messages`, as chats write them."""

    def __init__(self, *, database: Database, lease: float) -> None:
        """`lease` is in seconds."""
        self._database = database
        self._lease = lease

    async def begin(self, turn: NewTurn) -> Sequence[Exchange]:
        """See ports.TurnStore."""
        async with self._database.pipeline() as connection:
            if turn.claim:
                await _claim(connection, turn, turn.claim)
            return await open_turn(connection, turn, lease=self._lease)

    async def keep(self, turn: NewTurn, content: str) -> None:
        """See ports.TurnStore."""
        rows = await self._database.fetch(_KEEP, {**_parameters(turn, self._lease), "content": content})
        if not rows:
            await self._say_lost(turn)

    async def finish(self, turn: NewTurn, finished: FinishedTurn) -> None:
        """See ports.TurnStore."""
        async with self._database.pipeline() as connection:
            is_kept = await write_end(connection, turn.answer_id, finished)
        if not is_kept:
            await self._say_lost(turn)

    async def withdraw(self, turn: NewTurn) -> None:
        """See ports.TurnStore."""
        await self._database.fetch(_WITHDRAW, _parameters(turn, self._lease))

    async def _say_lost(self, turn: NewTurn) -> None:
        conversation_id = turn.conversation_id or turn.new_conversation_id
        if await self._database.fetch(_EXISTS, [conversation_id]):
            raise ConversationBusy(conversation_id, retry_after=_BUSY_RETRY_SECONDS)
        raise ConversationNotFound(conversation_id)


async def open_turn(connection: AsyncConnection[Row], turn: NewTurn, *, lease: float) -> Sequence[Exchange]:
    """See ports.TurnStore.begin; in the caller's transaction, held for `lease` seconds."""
    made = turn.conversation_id is None
    conversation_id = turn.new_conversation_id if turn.conversation_id is None else turn.conversation_id
    parameters = {**_parameters(turn, lease), "conversation_id": conversation_id, "title": title_of(turn.text)}
    history: Sequence[Exchange] = []
    if made:
        await connection.execute(_CREATE, parameters)
    else:
        if await (await connection.execute(_LOCK, parameters)).fetchone() is None:
            raise ConversationNotFound(conversation_id)
        holder = await (await connection.execute(_HOLDER, parameters)).fetchone()
        if holder and holder["seconds"] > 0:
            raise ConversationBusy(conversation_id, retry_after=min(_BUSY_RETRY_SECONDS, holder["seconds"]))
        if holder:
            await connection.execute(_GIVE_UP, parameters)
        history = await history_before(connection, conversation_id, question_id=turn.question_id)
    await connection.execute(_INSERT, parameters)
    return history


async def history_before(
    connection: AsyncConnection[Row], conversation_id: str, *, question_id: str
) -> Sequence[Exchange]:
    """What was said before a question, oldest first."""
    cursor = await connection.execute(_HISTORY, {"conversation_id": conversation_id, "question_id": question_id})
    rows = await cursor.fetchall()
    return [Exchange(**{**row, "document_ids": frozenset(row["document_ids"])}) for row in reversed(rows)]


async def write_end(connection: AsyncConnection[Row], answer_id: str, finished: FinishedTurn) -> bool:
    """Keep the answer as it ended, without passages of documents that are forgotten; False where the turn is lost."""
    known = await quote(connection, answer_id, finished.sources)
    parameters = {
        "answer_id": answer_id,
        "content": finished.content,
        "state": finished.state,
        "sources": sources(quotable(finished.sources, known)),
        "model": finished.model,
        "grounded": finished.grounded,
        "finish_reason": finished.finish_reason or "",
        "input_tokens": finished.usage.input_tokens if finished.usage else None,
        "output_tokens": finished.usage.output_tokens if finished.usage else None,
    }
    return await (await connection.execute(_FINISH, parameters)).fetchone() is not None


async def _claim(connection: AsyncConnection[Row], turn: NewTurn, claim: Claim) -> None:
    """Let the key mean this turn, unless it means one that is answered or being answered."""
    before = await once(connection, key=claim.key, method=claim.method, request_hash=claim.request_hash)
    if before is not None:
        row = await (await connection.execute(_CLAIMED, {"answer_id": before.decode()})).fetchone()
        if row and row["held"] > 0:
            raise ConversationBusy(row["conversation_id"], retry_after=min(_BUSY_RETRY_SECONDS, row["held"]))
        if row and row["state"] in ("COMPLETED", "INCOMPLETE"):
            raise AnsweredBefore(message({name: value for name, value in row.items() if name != "held"}))
        if row:
            await _replace(connection, row, is_whole=turn.conversation_id is None)
    await remember(connection, key=claim.key, method=claim.method, response=turn.answer_id.encode())


async def _replace(connection: AsyncConnection[Row], failed: Row, *, is_whole: bool) -> None:
    """Remove what an earlier try of the same request left; `is_whole` where it made the conversation, too."""
    await connection.execute(_LOCK, failed)
    if is_whole:
        await connection.execute(_REPLACE_CONVERSATION, failed)
    else:
        await connection.execute(_REPLACE_TURN, failed)


def _parameters(turn: NewTurn, lease: float) -> dict[str, object]:
    return {
        "run_id": turn.run_id,
        "question_id": turn.question_id,
        "answer_id": turn.answer_id,
        "text": turn.text,
        "agent_id": turn.agent_id,
        "agent_revision": turn.agent_revision,
        "new_conversation_id": turn.new_conversation_id,
        "lease": lease,
    }
