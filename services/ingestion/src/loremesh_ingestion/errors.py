"""The failures ingestion shows its callers, one class per public ErrorReason.

ServiceError
├── Missing                   NOT_FOUND
│   ├── VectorStoreNotFound                        VECTOR_STORE_NOT_FOUND
│   ├── DocumentNotFound                           DOCUMENT_NOT_FOUND
│   ├── JobNotFound                                JOB_NOT_FOUND
│   ├── DeletionReceiptNotFound                    DELETION_RECEIPT_NOT_FOUND
│   └── ReconciliationNotFound                     RECONCILIATION_NOT_FOUND
├── VectorStoreAlreadyExists  ALREADY_EXISTS       VECTOR_STORE_ALREADY_EXISTS
├── VectorStoreInUse          FAILED_PRECONDITION  VECTOR_STORE_IN_USE
├── GenerationNotFound        NOT_FOUND            GENERATION_NOT_FOUND
├── GenerationStateUnsuitable FAILED_PRECONDITION  GENERATION_STATE_UNSUITABLE
├── GenerationAlreadyExists   FAILED_PRECONDITION  GENERATION_ALREADY_EXISTS
├── DocumentStateUnsuitable   FAILED_PRECONDITION  DOCUMENT_STATE_UNSUITABLE
├── JobNotDead                FAILED_PRECONDITION  JOB_NOT_DEAD
├── SpanOutOfRange            OUT_OF_RANGE         SPAN_OUT_OF_RANGE
├── QueueFull                 RESOURCE_EXHAUSTED   QUEUE_FULL
├── InvalidField              INVALID_ARGUMENT
│   ├── UploadMalformed                            UPLOAD_MALFORMED
│   ├── DocumentTooLarge                           DOCUMENT_TOO_LARGE
│   ├── ChunkingStrategyInvalid                    CHUNKING_STRATEGY_INVALID
│   └── EmbeddingModelUnknown                      EMBEDDING_MODEL_UNKNOWN
├── IndexIncomplete           UNAVAILABLE          DEPENDENCY_UNAVAILABLE (of retrieval)
├── DocumentUnreadable        INVALID_ARGUMENT     (the document itself is the fault: retrying cannot help)
│   ├── DocumentEmpty                              DOCUMENT_EMPTY
│   ├── UnsupportedMediaType                       UNSUPPORTED_MEDIA_TYPE
│   ├── EncodingUnknown                            ENCODING_UNKNOWN
│   ├── PasswordProtected                          PASSWORD_PROTECTED
│   ├── DocumentCorrupt                            DOCUMENT_CORRUPT
│   └── ParseLimit                                 PARSE_LIMIT
└── ParserCrashed             INTERNAL             PARSER_CRASHED
"""

from collections.abc import Mapping
from typing import Self

from loremesh_kit.errors import Code, DependencyUnavailable, InvalidField, Missing, ServiceError


class DocumentUnreadable(ServiceError):
    """A document whose bytes yield no text, whoever tries."""

    code = Code.INVALID_ARGUMENT
    reason = "DOCUMENT_CORRUPT"

    @classmethod
    def restored(cls, message: str, metadata: Mapping[str, str]) -> Self:
        """Return the error as another process raised it."""
        error = cls.__new__(cls)
        ServiceError.__init__(error, message, metadata=metadata)
        return error


class DocumentEmpty(DocumentUnreadable):
    """Nothing but white space is in it; a scanned PDF without a text layer counts as empty."""

    reason = "DOCUMENT_EMPTY"

    def __init__(self, message: str = "The document holds no text.", *, field: str | None = None) -> None:
        """`message` may say more about where text was expected."""
        super().__init__(message, field=field)


class UnsupportedMediaType(DocumentUnreadable):
    """The content is of a type nobody here reads, whatever its name; metadata `media_type` says which."""

    reason = "UNSUPPORTED_MEDIA_TYPE"

    def __init__(self, media_type: str) -> None:
        """`media_type` is what the content is, not what it was declared to be."""
        super().__init__(
            f"The content is {media_type}, which is not a supported document type.",
            metadata={"media_type": media_type},
        )


class EncodingUnknown(DocumentUnreadable):
    """It looks like text, but in no character encoding that could be told."""

    reason = "ENCODING_UNKNOWN"

    def __init__(self) -> None:
        """Nothing to tell beyond the fact."""
        super().__init__("The text's character encoding could not be told; send it as UTF-8.")


class PasswordProtected(DocumentUnreadable):
    """The document opens only with a password."""

    reason = "PASSWORD_PROTECTED"

    def __init__(self) -> None:
        """Nothing to tell beyond the fact."""
        super().__init__("The document is protected by a password.")


class DocumentCorrupt(DocumentUnreadable):
    """The bytes begin as a known format and then break its rules: cut off, damaged or forged."""

    reason = "DOCUMENT_CORRUPT"


class ParseLimit(DocumentUnreadable):
    """Reading it would take more than one document may; metadata `limit` names the limit.

    Limits: memory, cpu, time, ratio (of unpacked to packed bytes), entries (of an archive), depth, pages, text.
    """

    reason = "PARSE_LIMIT"

    def __init__(self, limit: str) -> None:
        """`limit` is one of the names above."""
        super().__init__(f"Reading the document exceeds the {limit} limit.", metadata={"limit": limit})


class ParserCrashed(ServiceError):
    """The process that read the document died of a defect; another attempt may do better."""

    code = Code.INTERNAL
    reason = "PARSER_CRASHED"

    def __init__(self) -> None:
        """Nothing to tell beyond the fact."""
        super().__init__("The parser stopped unexpectedly.")


class VectorStoreNotFound(Missing):
    """No vector store has this id, or it is being deleted."""

    reason = "VECTOR_STORE_NOT_FOUND"
    what, key, type = "vector store", "vector_store_id", "loremesh.ingestion.v1.VectorStore"


class VectorStoreAlreadyExists(ServiceError):
    """A vector store with this id exists, or is not quite deleted yet."""

    code = Code.ALREADY_EXISTS
    reason = "VECTOR_STORE_ALREADY_EXISTS"

    def __init__(self, vector_store_id: str) -> None:
        """`vector_store_id` is the one asked for."""
        super().__init__(
            f"There is a vector store {vector_store_id} already.",
            metadata={"vector_store_id": vector_store_id},
            resource=("loremesh.ingestion.v1.VectorStore", vector_store_id),
        )


class VectorStoreInUse(ServiceError):
    """The vector store cannot go as long as it holds documents, the default one never."""

    code = Code.FAILED_PRECONDITION
    reason = "VECTOR_STORE_IN_USE"

    def __init__(self, message: str, *, vector_store_id: str) -> None:
        """`message` says which of the two it is."""
        super().__init__(message, metadata={"vector_store_id": vector_store_id})


class GenerationNotFound(ServiceError):
    """The vector store has no such generation, or not any more."""

    code = Code.NOT_FOUND
    reason = "GENERATION_NOT_FOUND"

    def __init__(self, vector_store_id: str, generation: int) -> None:
        """`generation` is the number asked for."""
        super().__init__(
            f"Vector store {vector_store_id} has no generation {generation}.",
            metadata={"vector_store_id": vector_store_id, "generation": str(generation)},
            resource=("loremesh.ingestion.v1.IndexGeneration", f"{vector_store_id}/{generation}"),
        )


class GenerationStateUnsuitable(ServiceError):
    """What was asked cannot be done to the generation where it stands."""

    code = Code.FAILED_PRECONDITION
    reason = "GENERATION_STATE_UNSUITABLE"

    def __init__(self, message: str, vector_store_id: str, generation: int, state: str) -> None:
        """`state` is the one it is in."""
        metadata = {"vector_store_id": vector_store_id, "generation": str(generation), "state": state}
        super().__init__(message, metadata=metadata)


class GenerationAlreadyExists(ServiceError):
    """The vector store has a generation beside the live one; one of the two has to go first."""

    code = Code.FAILED_PRECONDITION
    reason = "GENERATION_ALREADY_EXISTS"

    def __init__(self, vector_store_id: str, generation: int) -> None:
        """`generation` is the one that is there."""
        super().__init__(
            f"There is generation {generation} beside the live one already.",
            metadata={"vector_store_id": vector_store_id, "generation": str(generation)},
        )


class DocumentNotFound(Missing):
    """No document has this id, or it is being deleted."""

    reason = "DOCUMENT_NOT_FOUND"
    what, key, type = "document", "document_id", "loremesh.ingestion.v1.Document"


class DeletionReceiptNotFound(Missing):
    """No deletion has this id."""

    reason = "DELETION_RECEIPT_NOT_FOUND"
    what, key, type = "deletion receipt", "receipt_id", "loremesh.ingestion.v1.DeletionReceipt"


class ReconciliationNotFound(Missing):
    """No reconciliation has this id."""

    reason = "RECONCILIATION_NOT_FOUND"
    what, key, type = "reconciliation", "reconciliation_id", "loremesh.ingestion.v1.Reconciliation"


class DocumentStateUnsuitable(ServiceError):
    """What was asked cannot be done to the document where it stands."""

    code = Code.FAILED_PRECONDITION
    reason = "DOCUMENT_STATE_UNSUITABLE"

    def __init__(self, message: str, *, document_id: str, state: str) -> None:
        """`state` is the one it is in."""
        super().__init__(message, metadata={"document_id": document_id, "state": state})


class JobNotFound(Missing):
    """No job has this id, or it is finished for long."""

    reason = "JOB_NOT_FOUND"
    what, key, type = "job", "job_id", "loremesh.ingestion.v1.Job"


class JobNotDead(ServiceError):
    """The job was not given up, or was taken up again since."""

    code = Code.FAILED_PRECONDITION
    reason = "JOB_NOT_DEAD"

    def __init__(self, job_id: str, *, state: str) -> None:
        """`state` is the one it is in."""
        super().__init__(f"The job {job_id} is not dead.", metadata={"job_id": job_id, "state": state})


class QueueFull(ServiceError):
    """As much of the tenant's work is waiting as may; documents come in again once some of it is done."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "QUEUE_FULL"

    def __init__(self, *, limit: int, retry_after: float) -> None:
        """`limit` is how many jobs may wait, `retry_after` in seconds."""
        super().__init__(f"{limit} jobs are waiting already.", metadata={"limit": str(limit)}, retry_after=retry_after)


class DocumentTooLarge(InvalidField):
    """More bytes than one upload may have."""

    reason = "DOCUMENT_TOO_LARGE"

    def __init__(self, message: str, *, limit_bytes: int) -> None:
        """`limit_bytes` is how many there may be."""
        super().__init__(message, field="file", metadata={"limit_bytes": str(limit_bytes)})


class SpanOutOfRange(ServiceError):
    """A span of characters which the document's text does not have."""

    code = Code.OUT_OF_RANGE
    reason = "SPAN_OUT_OF_RANGE"

    def __init__(self, *, field: str, text_chars: int) -> None:
        """`field` is the bound that is wrong, `text_chars` the length of the text."""
        super().__init__(
            f"The text has {text_chars} characters.", field=field, metadata={"text_chars": str(text_chars)}
        )


class UploadMalformed(InvalidField):
    """The upload cannot be taken apart, or ended before it was whole; the field names the part."""

    reason = "UPLOAD_MALFORMED"


class ChunkingStrategyInvalid(InvalidField):
    """A chunking strategy that contradicts itself."""

    reason = "CHUNKING_STRATEGY_INVALID"


class EmbeddingModelUnknown(InvalidField):
    """The embedding service has no such model for dense vectors."""

    reason = "EMBEDDING_MODEL_UNKNOWN"


class IndexIncomplete(DependencyUnavailable):
    """The index does not hold all the chunks that were written to it; the next attempt writes them again."""

    def __init__(self) -> None:
        """The index is retrieval's."""
        super().__init__("retrieval")
