"""Why the agent refuses a call or ends a run.

ServiceError
├── InvalidField                    INVALID_ARGUMENT
│   ├── MessageEmpty                                     MESSAGE_EMPTY
│   └── MessageTooLong                                   MESSAGE_TOO_LONG
├── AgentNotFound                   NOT_FOUND            AGENT_NOT_FOUND
├── ConversationNotFound            NOT_FOUND            CONVERSATION_NOT_FOUND
├── MessageNotFound                 NOT_FOUND            MESSAGE_NOT_FOUND
├── ChatJobNotFound                 NOT_FOUND            CHAT_JOB_NOT_FOUND
├── VectorStoreNotFound             NOT_FOUND            VECTOR_STORE_NOT_FOUND
├── ConversationBusy                ABORTED              CONVERSATION_BUSY
├── QueueFull                       RESOURCE_EXHAUSTED   QUEUE_FULL
├── KeptFailure                     (as the run it ended said)
├── GivenUp                         (as its cause)
└── ProviderError
    ├── ProviderUnavailable         UNAVAILABLE          PROVIDER_UNAVAILABLE
    ├── ProviderTimeout             UNAVAILABLE          PROVIDER_TIMEOUT
    ├── ProviderStreamCut           UNAVAILABLE          PROVIDER_STREAM_CUT
    └── ProviderRefused             FAILED_PRECONDITION  PROVIDER_REFUSED

The rest are the kit's own. No provider's own words are in any of them: they may quote keys and prompts.
"""

from collections.abc import Mapping
from typing import Literal

from loremesh_kit.errors import Code, InvalidField, ServiceError

Limit = Literal["connect", "first_token", "idle", "total"]


class MessageEmpty(InvalidField):
    """There is nothing to answer."""

    reason = "MESSAGE_EMPTY"

    def __init__(self) -> None:
        super().__init__("message must not be empty", field="message")


class MessageTooLong(InvalidField):
    """The message alone is longer than the model can read."""

    reason = "MESSAGE_TOO_LONG"

    def __init__(self, *, limit_tokens: int) -> None:
        super().__init__(
            f"The message is longer than the {limit_tokens} tokens the model can read of it.",
            field="message",
            metadata={"limit_tokens": str(limit_tokens)},
        )


class AgentNotFound(ServiceError):
    """No agent has this id."""

    code = Code.NOT_FOUND
    reason = "AGENT_NOT_FOUND"

    def __init__(self, agent_id: str) -> None:
        super().__init__(
            f"There is no agent {agent_id!r}.",
            metadata={"agent_id": agent_id},
            resource=("loremesh.agent.v1.Agent", agent_id),
        )


class ConversationNotFound(ServiceError):
    """The caller has no conversation of this id."""

    code = Code.NOT_FOUND
    reason = "CONVERSATION_NOT_FOUND"

    def __init__(self, conversation_id: str) -> None:
        super().__init__(
            f"There is no conversation {conversation_id!r}.",
            metadata={"conversation_id": conversation_id},
            resource=("loremesh.agent.v1.Conversation", conversation_id),
        )


class MessageNotFound(ServiceError):
    """The caller has no answer of this id."""

    code = Code.NOT_FOUND
    reason = "MESSAGE_NOT_FOUND"

    def __init__(self, message_id: str) -> None:
        super().__init__(
            f"There is no answer {message_id!r}.",
            metadata={"message_id": message_id},
            resource=("loremesh.agent.v1.Message", message_id),
        )


class ChatJobNotFound(ServiceError):
    """The caller has no chat job of this id, or not any more."""

    code = Code.NOT_FOUND
    reason = "CHAT_JOB_NOT_FOUND"

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"There is no chat job {job_id!r}.",
            metadata={"job_id": job_id},
            resource=("loremesh.agent.v1.ChatJob", job_id),
        )


class VectorStoreNotFound(ServiceError):
    """The caller has no vector store of this id."""

    code = Code.NOT_FOUND
    reason = "VECTOR_STORE_NOT_FOUND"

    def __init__(self, vector_store_id: str) -> None:
        super().__init__(
            f"There is no vector store {vector_store_id!r}.",
            metadata={"vector_store_id": vector_store_id},
            resource=("loremesh.ingestion.v1.VectorStore", vector_store_id),
        )


class ConversationBusy(ServiceError):
    """The conversation is answering another message."""

    code = Code.ABORTED
    reason = "CONVERSATION_BUSY"

    def __init__(self, conversation_id: str, *, retry_after: float) -> None:
        super().__init__(
            "The conversation is answering another message.",
            metadata={"conversation_id": conversation_id},
            retry_after=retry_after,
        )


class QueueFull(ServiceError):
    """The tenant has as many chat jobs waiting as it may."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "QUEUE_FULL"

    def __init__(self, *, limit: int) -> None:
        super().__init__("Too many chat jobs are waiting.", metadata={"limit": str(limit)}, retry_after=5.0)


class KeptFailure(ServiceError):
    """Why a run failed, as it was kept."""

    def __init__(self, message: str, *, reason: str, retryable: bool, metadata: Mapping[str, str]) -> None:
        super().__init__(message, metadata=metadata)
        self.reason = reason
        self._retryable = retryable

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self._retryable


class GivenUp(ServiceError):
    """A failure which may pass, but has been waited for long enough."""

    def __init__(self, cause: ServiceError) -> None:
        super().__init__(cause.message, metadata=cause.metadata)
        self.reason = cause.reason
        self.cause = cause

    @property
    def retryable(self) -> bool:
        """Not by us."""
        return False


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
