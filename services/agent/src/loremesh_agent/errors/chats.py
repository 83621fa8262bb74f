"""Why a question is not answered."""

from loremesh_kit.errors import Code, InvalidField, Missing, ServiceError


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


class AttachmentUnsupported(InvalidField):
    """The model takes no such attachment."""

    reason = "ATTACHMENT_UNSUPPORTED"

    def __init__(self, media_type: str, *, model: str) -> None:
        super().__init__(
            f"The model {model} takes no {media_type}.",
            metadata={"media_type": media_type, "model": model},
            field="attachments",
        )


class PassagesRequired(InvalidField):
    """There is neither a text with passages nor a kept answer to check."""

    reason = "PASSAGES_REQUIRED"

    def __init__(self) -> None:
        super().__init__("Give text and passages, or message_id.", field="passages")


class ConversationNotFound(Missing):
    """The caller has no conversation of this id."""

    reason = "CONVERSATION_NOT_FOUND"
    what, key, type = "conversation", "conversation_id", "loremesh.agent.v1.Conversation"


class MessageNotFound(Missing):
    """The caller has no answer of this id."""

    reason = "MESSAGE_NOT_FOUND"
    what, key, type = "answer", "message_id", "loremesh.agent.v1.Message"


class ChatJobNotFound(Missing):
    """The caller has no chat job of this id, or not any more."""

    reason = "CHAT_JOB_NOT_FOUND"
    what, key, type = "chat job", "job_id", "loremesh.agent.v1.ChatJob"


class VectorStoreNotFound(Missing):
    """The caller has no vector store of this id."""

    reason = "VECTOR_STORE_NOT_FOUND"
    what, key, type = "vector store", "vector_store_id", "loremesh.ingestion.v1.VectorStore"


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
