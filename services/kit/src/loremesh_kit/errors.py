"""The errors a service may show its callers; no class here knows about gRPC.

    ServiceError
    ├── InvalidField            INVALID_ARGUMENT     INVALID_FIELD
    │   ├── PageTokenInvalid                         PAGE_TOKEN_INVALID
    │   ├── FilterInvalid                            FILTER_INVALID
    │   ├── AttributesInvalid                        ATTRIBUTES_INVALID
    │   ├── IdempotencyKeyInvalid                    IDEMPOTENCY_KEY_INVALID
    │   └── ValidationFailed                         (the broken rule's own reason)
    ├── Missing                 NOT_FOUND            (of what, says the service)
    ├── AfterSeqOutOfRange      OUT_OF_RANGE         AFTER_SEQ_OUT_OF_RANGE
    ├── IdempotencyConflict     ALREADY_EXISTS       IDEMPOTENCY_CONFLICT
    ├── EtagMismatch            ABORTED              ETAG_MISMATCH
    ├── IdentityMissing         UNAUTHENTICATED      IDENTITY_MISSING
    ├── Overloaded              RESOURCE_EXHAUSTED   OVERLOADED
    ├── DependencyUnavailable   UNAVAILABLE          DEPENDENCY_UNAVAILABLE
    ├── DeadlineExceeded        DEADLINE_EXCEEDED    DEADLINE_EXCEEDED
    ├── AttemptsExhausted       ABORTED              ATTEMPTS_EXHAUSTED
    └── Internal                INTERNAL             INTERNAL

Each service's `errors.py` adds one class per public ErrorReason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


class Code(StrEnum):
    """The kinds of failure a caller can tell apart, named as gRPC names them."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNAVAILABLE = "UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    ABORTED = "ABORTED"
    CANCELLED = "CANCELLED"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    DATA_LOSS = "DATA_LOSS"
    INTERNAL = "INTERNAL"


_RETRYABLE = frozenset(
    {Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED, Code.ABORTED, Code.INTERNAL},
)


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One request field and what is wrong with it, in words its sender understands."""

    field: str
    description: str
    reason: str = "INVALID_FIELD"


class ServiceError(Exception):
    """A failure with a public reason; its message is shown to the caller as it stands."""

    code: Code = Code.INTERNAL
    reason: str = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        resource: tuple[str, str] | None = None,
    ) -> None:
        """`field` is the offending request field's path, `retry_after` seconds, `resource` its (type, name)."""
        super().__init__(message)
        self.message = message
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.retry_after = retry_after
        self.resource = resource
        self.violations: tuple[FieldViolation, ...] = (
            (FieldViolation(field=field, description=message, reason=self.reason),) if field else ()
        )

    @property
    def retryable(self) -> bool:
        """Whether the same work may succeed later; a job that fails otherwise is dead-lettered at once."""
        return self.code in _RETRYABLE


class InvalidField(ServiceError):
    """A request field breaks its rule."""

    code = Code.INVALID_ARGUMENT
    reason = "INVALID_FIELD"


class Missing(ServiceError):
    """There is nothing of this id for the caller; a class of a service each says of what."""

    code = Code.NOT_FOUND
    # As in a sentence, in metadata, and the type of the resource.
    what: ClassVar[str]
    key: ClassVar[str]
    type: ClassVar[str]

    def __init__(self, id_: str) -> None:
        super().__init__(f"There is no {self.what} {id_!r}.", metadata={self.key: id_}, resource=(self.type, id_))


class PageTokenInvalid(InvalidField):
    """The page token is damaged or was made for another query."""

    reason = "PAGE_TOKEN_INVALID"

    def __init__(self, message: str = "The page token does not belong to this query.") -> None:
        """Name the one field this error is ever about."""
        super().__init__(message, field="page_token")


class FilterInvalid(InvalidField):
    """The filter is too deep, too large or compares with a value it cannot."""

    reason = "FILTER_INVALID"


class ValidationFailed(InvalidField):
    """The request breaks rules written in its proto; the first broken rule names the reason."""

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        """`violations` holds at least one entry."""
        super().__init__("; ".join(_sentence(violation) for violation in violations))
        self.violations = tuple(violations)
        self.reason = violations[0].reason


def _sentence(violation: FieldViolation) -> str:
    return f"{violation.field}: {violation.description}" if violation.field else violation.description


class AttributesInvalid(InvalidField):
    """Attributes are too many, too large or of a type that filters cannot compare."""

    reason = "ATTRIBUTES_INVALID"


class EtagMismatch(ServiceError):
    """The resource changed since the caller read it."""

    code = Code.ABORTED
    reason = "ETAG_MISMATCH"

    def __init__(self, message: str = "It was changed since it was read: read it again and repeat.") -> None:
        """Nothing to tell beyond the fact."""
        super().__init__(message)


class AfterSeqOutOfRange(ServiceError):
    """The caller claims to have seen events that did not happen yet."""

    code = Code.OUT_OF_RANGE
    reason = "AFTER_SEQ_OUT_OF_RANGE"

    def __init__(self, last_seq: int) -> None:
        """`last_seq` is the number of the last event there is."""
        super().__init__(
            f"The last event is number {last_seq}.", field="after_seq", metadata={"last_seq": str(last_seq)}
        )


class IdempotencyKeyInvalid(InvalidField):
    """The idempotency key is empty, too long or not printable."""

    reason = "IDEMPOTENCY_KEY_INVALID"

    def __init__(self, message: str = "An idempotency key has 1 to 200 printable ASCII characters.") -> None:
        """Name the one field this error is ever about."""
        super().__init__(message, field="idempotency-key")


class IdempotencyConflict(ServiceError):
    """The idempotency key was used before with another request."""

    code = Code.ALREADY_EXISTS
    reason = "IDEMPOTENCY_CONFLICT"


class IdentityMissing(ServiceError):
    """The call carries no tenant."""

    code = Code.UNAUTHENTICATED
    reason = "IDENTITY_MISSING"

    def __init__(self, message: str = "The call carries no identity.") -> None:
        """Nothing to tell beyond the fact."""
        super().__init__(message)


class Overloaded(ServiceError):
    """The process has as much work as it can finish in time; try again a little later."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "OVERLOADED"

    def __init__(self, message: str = "The service is busy.", *, retry_after: float = 1.0) -> None:
        """`retry_after` is in seconds."""
        super().__init__(message, retry_after=retry_after)


class DependencyUnavailable(ServiceError):
    """Something this service needs does not answer; metadata `dependency` names it."""

    code = Code.UNAVAILABLE
    reason = "DEPENDENCY_UNAVAILABLE"

    def __init__(self, dependency: str, *, retry_after: float = 1.0) -> None:
        """`dependency` is the name it has in health and readiness, such as `postgres`."""
        super().__init__(
            f"{dependency} is unavailable.",
            metadata={"dependency": dependency},
            retry_after=retry_after,
        )


class DeadlineExceeded(ServiceError):
    """The caller's deadline passed before the work was done."""

    code = Code.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"

    def __init__(self, message: str = "The deadline passed before the work was done.") -> None:
        """Nothing to tell beyond the fact."""
        super().__init__(message)


class AttemptsExhausted(ServiceError):
    """A job's workers died or lost it at every attempt; it is not tried again."""

    code = Code.ABORTED
    reason = "ATTEMPTS_EXHAUSTED"

    def __init__(self, *, attempts: int) -> None:
        """`attempts` is how often it was tried."""
        super().__init__(f"The work was given up after {attempts} attempts.", metadata={"attempts": str(attempts)})


class Internal(ServiceError):
    """A defect of ours; the log has the details under the request id."""

    reason = "INTERNAL"

    def __init__(self, *, request_id: str = "") -> None:
        """`request_id` lets the caller point us at the log line."""
        super().__init__(
            "Something went wrong on our side.",
            metadata={"request_id": request_id} if request_id else None,
        )
