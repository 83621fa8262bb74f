"""What callers say beside their requests."""

import hashlib
from typing import Any

from google.protobuf.message import Message
from grpc import aio
from loremesh_kit import idempotency

from loremesh_agent.ports import Claim

Context = aio.ServicerContext[Any, Any]


def claim(request: Message, *, method: str) -> Claim | None:
    """The idempotency key that came with a request, None without one; raises IdempotencyKeyInvalid."""
    key = idempotency.key()
    if key is None:
        return None
    body = request.SerializeToString(deterministic=True)
    return Claim(key=key, method=method, request_hash=hashlib.sha256(body).digest())
