"""The errors of this service, one class per public reason.

    ServiceError
    ├── ModelNotFound          NOT_FOUND            MODEL_NOT_FOUND
    ├── ModelTaskUnsupported   INVALID_ARGUMENT     MODEL_TASK_UNSUPPORTED
    ├── TextEmpty              INVALID_ARGUMENT     TEXT_EMPTY
    ├── ProviderUnavailable    UNAVAILABLE          PROVIDER_FAILED
    ├── ProviderRefused        FAILED_PRECONDITION  PROVIDER_FAILED
    └── DimensionMismatch      FAILED_PRECONDITION  DIMENSION_MISMATCH

What a provider says stays here: its words may quote the key or the text that was sent.
"""

from loremesh_kit.errors import Code, InvalidField, ServiceError


class ModelNotFound(ServiceError):
    """No model has this id."""

    code = Code.NOT_FOUND
    reason = "MODEL_NOT_FOUND"

    def __init__(self, model: str, *, field: str) -> None:
        """`field` is the request field that named the model."""
        super().__init__(
            f"There is no model {model!r}; ListModels names those there are.",
            field=field,
            metadata={"model": model},
            resource=("embedding.loremesh.dev/Model", model),
        )


class ModelTaskUnsupported(InvalidField):
    """The model is known, but not for what was asked."""

    reason = "MODEL_TASK_UNSUPPORTED"

    def __init__(self, model: str, *, task: str, field: str) -> None:
        """`task` is what was asked of it, `field` the request field that named it."""
        super().__init__(
            f"The model {model!r} is not a {task} model.",
            field=field,
            metadata={"model": model, "task": task},
        )


class TextEmpty(InvalidField):
    """A text is empty or only white space."""

    reason = "TEXT_EMPTY"

    def __init__(self, *, field: str) -> None:
        """`field` is the text's path in the request, such as `texts[3]`."""
        super().__init__("The text is empty.", field=field)


class ProviderUnavailable(ServiceError):
    """The provider is busy, unreachable or broken: the same call may succeed later."""

    code = Code.UNAVAILABLE
    reason = "PROVIDER_FAILED"

    def __init__(self, *, model: str, provider: str, status: str, retry_after: float | None = None) -> None:
        """`status` is the HTTP status or one word such as `timeout`; `retry_after`, seconds, is the provider's wish."""
        super().__init__(
            f"The provider {provider} is unavailable ({status}).",
            metadata={"model": model, "provider": provider, "status": status},
            retry_after=retry_after,
        )


class ProviderRefused(ServiceError):
    """The provider refuses, and will again: a wrong key, an unknown model, a used-up quota."""

    code = Code.FAILED_PRECONDITION
    reason = "PROVIDER_FAILED"

    def __init__(self, *, model: str, provider: str, status: str) -> None:
        """`status` is the HTTP status."""
        super().__init__(
            f"The provider {provider} refuses the call ({status}); check its key, quota and model.",
            metadata={"model": model, "provider": provider, "status": status},
        )


class DimensionMismatch(ServiceError):
    """The provider's vectors are not as long as the settings say."""

    code = Code.FAILED_PRECONDITION
    reason = "DIMENSION_MISMATCH"

    def __init__(self, *, model: str, expected: int, actual: int) -> None:
        """Both lengths are in values per vector."""
        super().__init__(
            f"The model {model!r} gives vectors of {actual} values where {expected} were expected.",
            metadata={"model": model, "expected": str(expected), "actual": str(actual)},
        )
