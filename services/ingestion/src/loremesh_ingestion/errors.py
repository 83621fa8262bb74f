"""The failures ingestion shows its callers, one class per public ErrorReason.

    ServiceError
    ├── DocumentUnreadable      INVALID_ARGUMENT     (the document itself is the fault: retrying cannot help)
    │   ├── DocumentEmpty                            DOCUMENT_EMPTY
    │   ├── UnsupportedMediaType                     UNSUPPORTED_MEDIA_TYPE
    │   ├── EncodingUnknown                          ENCODING_UNKNOWN
    │   ├── PasswordProtected                        PASSWORD_PROTECTED
    │   ├── DocumentCorrupt                          DOCUMENT_CORRUPT
    │   └── ParseLimit                               PARSE_LIMIT
    └── ParserCrashed           INTERNAL             PARSER_CRASHED
"""

from collections.abc import Mapping
from typing import Self

from loremesh_kit.errors import Code, ServiceError


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

    def __init__(self, message: str = "The document holds no text.") -> None:
        """`message` may say more about where text was expected."""
        super().__init__(message)


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
