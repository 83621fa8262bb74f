"""Who the work is done for: tenant, principal and request id ride in a context variable."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from loremesh_kit.errors import IdentityMissing

TENANT_HEADER = "x-loremesh-tenant"
PRINCIPAL_HEADER = "x-loremesh-principal"
REQUEST_ID_HEADER = "x-request-id"


@dataclass(frozen=True, slots=True)
class Identity:
    """The verified caller, as the gateway or the job's row states it."""

    tenant: str
    principal: str
    request_id: str


_current: ContextVar[Identity | None] = ContextVar("loremesh_identity", default=None)


def current() -> Identity:
    """The identity in force; raises IdentityMissing outside any scope."""
    identity = _current.get()
    if identity is None:
        raise IdentityMissing
    return identity


def current_or_none() -> Identity | None:
    """The identity in force, for logs and metadata, which do without."""
    return _current.get()


@contextmanager
def scope(identity: Identity) -> Iterator[Identity]:
    """Put `identity` in force for the enclosed block and what it starts."""
    token = _current.set(identity)
    try:
        yield identity
    finally:
        _current.reset(token)
