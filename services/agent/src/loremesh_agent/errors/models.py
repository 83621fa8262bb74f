"""What models and their providers do not do."""

from typing import Literal

from loremesh_kit.errors import Code, InvalidField, ServiceError

Limit = Literal["connect", "first_token", "idle", "total"]


class ProviderError(ServiceError):
    """The model's provider did not give a whole answer."""

    def __init__(
        self,
        message: str,
        *,
        provider: str,
        model: str,
        retry_after: float | None = None,
        limit: Limit | None = None,
    ) -> None:
        """`message` is in our words; `limit` is the one that ran out."""
        metadata = {"provider": provider, "model": model, **({"limit": limit} if limit else {})}
        super().__init__(message, metadata=metadata, retry_after=retry_after)


class ProviderUnavailable(ProviderError):
    """It cannot be reached, is overloaded or failed; it may pass."""

    code = Code.UNAVAILABLE
    reason = "PROVIDER_UNAVAILABLE"


class ProviderTimeout(ProviderError):
    """It took too long; metadata `limit` says for what."""

    code = Code.UNAVAILABLE
    reason = "PROVIDER_TIMEOUT"


class ProviderStreamCut(ProviderError):
    """Its stream broke before it was complete."""

    code = Code.UNAVAILABLE
    reason = "PROVIDER_STREAM_CUT"


class ProviderRefused(ProviderError):
    """It refused the request for good: a wrong key, an unknown model."""

    code = Code.FAILED_PRECONDITION
    reason = "PROVIDER_REFUSED"


class ProviderRateLimited(ProviderError):
    """Its account, or our own limit for it, is used up for now."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "PROVIDER_RATE_LIMITED"


class ProviderNotConfigured(ServiceError):
    """The model's provider has no key here."""

    code = Code.FAILED_PRECONDITION
    reason = "PROVIDER_NOT_CONFIGURED"

    def __init__(self, provider: str, *, variable: str) -> None:
        super().__init__(
            f"The provider {provider} is not configured: set {variable}.",
            metadata={"provider": provider, "variable": variable},
        )


class ModelUnknown(InvalidField):
    """No provider has this model."""

    reason = "MODEL_UNKNOWN"

    def __init__(self, model: str) -> None:
        super().__init__(
            f"{model!r} is no model: write provider/model, with a provider that ListProviders names.",
            metadata={"model": model},
            field="model",
        )


class ModelOutputInvalid(ServiceError):
    """The model answered with what is no answer."""

    code = Code.INTERNAL
    reason = "MODEL_OUTPUT_INVALID"

    def __init__(self, problem: str, *, provider: str, model: str) -> None:
        super().__init__(
            f"The model's answer cannot be used: {problem}", metadata={"provider": provider, "model": model}
        )
