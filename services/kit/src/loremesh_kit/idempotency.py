"""A repeated request is the same request: answers are kept under the caller's key."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from psycopg import AsyncConnection

from loremesh_kit import identity
from loremesh_kit.errors import IdempotencyConflict, IdempotencyKeyInvalid
from loremesh_kit.postgres import Row

HEADER = "idempotency-key"
_KEY = re.compile(r"[ -~]{1,200}")
_given: ContextVar[str | None] = ContextVar("loremesh_idempotency_key", default=None)

# A second request with the key waits here until the first one's transaction ends.
_CLAIM = """
INSERT INTO idempotency (tenant, method, key, request_hash) VALUES (%(tenant)s, %(method)s, %(key)s, %(request_hash)s)
ON CONFLICT (tenant, method, key) DO UPDATE SET key = excluded.key
RETURNING request_hash, response
"""

_REMEMBER = "UPDATE idempotency SET response = %s WHERE tenant = %s AND method = %s AND key = %s"


def key() -> str | None:
    """The key that came with the call in hand, None when it has none; raises IdempotencyKeyInvalid."""
    given = _given.get()
    if given is not None and not _KEY.fullmatch(given):
        raise IdempotencyKeyInvalid
    return given


@contextmanager
def scope(given: str | None) -> Iterator[None]:
    """Put a call's key in force for the block."""
    token = _given.set(given)
    try:
        yield
    finally:
        _given.reset(token)


async def once(connection: AsyncConnection[Row], *, key: str, method: str, request_hash: bytes) -> bytes | None:
    """The answer given before, None for the first time: then do the work and `remember` in this same transaction.

    Raises IdempotencyConflict when the key came with another request. Answers are kept for a day.
    """
    cursor = await connection.execute(
        _CLAIM,
        {"tenant": identity.current().tenant, "method": method, "key": key, "request_hash": request_hash},
    )
    row = await cursor.fetchone()
    if row is None or bytes(row["request_hash"]) != request_hash:
        message = "The idempotency key was used before with another request."
        raise IdempotencyConflict(message, metadata={"key": key})
    return None if row["response"] is None else bytes(row["response"])


async def remember(connection: AsyncConnection[Row], *, key: str, method: str, response: bytes) -> None:
    """Keep the answer, in the transaction of the work it tells of."""
    await connection.execute(_REMEMBER, [response, identity.current().tenant, method, key])
