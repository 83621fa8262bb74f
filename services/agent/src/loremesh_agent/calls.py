"""What callers say beside their requests."""

import hashlib
from typing import Any

from google.protobuf.message import Message
from grpc import aio
from loremesh_kit.errors import InvalidField

from loremesh_agent.errors import IdempotencyKeyInvalid
from loremesh_agent.ports import Claim

Context = aio.ServicerContext[Any, Any]

_KEY = "idempotency-key"
_LAST_EVENT_ID = "last-event-id"
_LONGEST_KEY = 200


def claim(context: Context, request: Message, *, method: str) -> Claim | None:
    """The idempotency key that came with a request, None without one; raises IdempotencyKeyInvalid."""
    key = _said(context, _KEY)
    if key is None:
        return None
    if not (0 < len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable()):
        raise IdempotencyKeyInvalid
    body = request.SerializeToString(deterministic=True)
    return Claim(key=key, method=method, request_hash=hashlib.sha256(body).digest())


def after_seq(context: Context, said: int) -> int:
    """Where to resume: as the request says, else as a browser's event source does; raises InvalidField."""
    last = _said(context, _LAST_EVENT_ID)
    if said or not last:
        return said
    if not (last.isascii() and last.isdigit() and len(last) < len(str(2**63))):
        raise InvalidField("it must be the number of an event", field=_LAST_EVENT_ID)
    return int(last)


def _said(context: Context, name: str) -> str | None:
    values = (value for key, value in context.invocation_metadata() or () if key == name)
    value = next(values, None)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
