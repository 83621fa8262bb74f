"""A mutating call that is repeated under its key has one effect and one answer."""

import hashlib
from collections.abc import Collection
from typing import Any

from google.protobuf.message import Message

from loremesh_kit import idempotency
from loremesh_kit.interceptors.chain import Call, Proceed
from loremesh_kit.postgres import Database


class IdempotencyInterceptor:
    """Claims the key, runs the handler and keeps its answer in one transaction; other calls can read their key."""

    def __init__(self, *, database: Database | None = None, methods: Collection[str] = ()) -> None:
        """`methods` are full names of unary methods all of whose effects are in `database`."""
        if methods and database is None:
            message = "idempotent methods need a database"
            raise ValueError(message)
        self._database = database
        self._methods = frozenset(methods)

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        """Run the call, or answer as before, in bytes; raises IdempotencyKeyInvalid and IdempotencyConflict."""
        with idempotency.scope(call.metadata.get(idempotency.HEADER)):
            if call.method not in self._methods or self._database is None or (key := idempotency.key()) is None:
                return await proceed()
            return await _once(self._database, call, proceed, key=key)


async def _once(database: Database, call: Call, proceed: Proceed, *, key: str) -> bytes:
    request = call.request
    if not isinstance(request, Message):
        message = f"{call.method} is not unary"
        raise TypeError(message)
    request_hash = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
    async with database.joined_transaction() as connection:
        answer = await idempotency.once(connection, key=key, method=call.method, request_hash=request_hash)
        if answer is None:
            response = await proceed()
            answer = response.SerializeToString()
            await idempotency.remember(connection, key=key, method=call.method, response=answer)
    return answer
