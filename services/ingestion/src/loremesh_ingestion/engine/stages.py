"""Remembers what was being done when something failed."""

from collections.abc import Iterator
from contextlib import contextmanager

from loremesh_kit.errors import ServiceError

from loremesh_ingestion.domain.document import DocumentState, Failure
from loremesh_ingestion.errors import ParserCrashed


class StageFailed(ServiceError):
    """A failure and the stage it happened in; everything else is the failure's own."""

    def __init__(self, stage: DocumentState, cause: ServiceError, *, retryable: bool) -> None:
        super().__init__(cause.message, metadata=cause.metadata, retry_after=cause.retry_after)
        self.reason = cause.reason
        self.stage = stage
        self.cause = cause
        self._retryable = retryable

    @property
    def retryable(self) -> bool:
        """Whether this job is worth another attempt."""
        return self._retryable


@contextmanager
def stage(state: DocumentState) -> Iterator[None]:
    """Raise StageFailed for what fails within, unless it says a stage already."""
    try:
        yield
    except StageFailed:
        raise
    except ServiceError as error:
        # The reader has tried again already.
        hopeless = isinstance(error, ParserCrashed)
        raise StageFailed(state, error, retryable=error.retryable and not hopeless) from error


def failure(error: ServiceError, *, state: DocumentState) -> Failure:
    """Why a document failed; `state` is the one it is in, for errors that do not say their stage."""
    reached = DocumentState.PARSING if state is DocumentState.UPLOADED else state
    cause, stage_ = (error.cause, error.stage) if isinstance(error, StageFailed) else (error, reached)
    return Failure(
        stage=stage_,
        reason=cause.reason,
        message=cause.message,
        retryable=cause.retryable,
        metadata=cause.metadata,
    )
