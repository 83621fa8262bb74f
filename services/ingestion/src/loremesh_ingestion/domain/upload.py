"""What comes with the bytes of an upload."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from loremesh_ingestion.domain.chunking import ChunkingStrategy

MAX_BYTES = 100 * 1024 * 1024
UNKNOWN_MEDIA_TYPE = "application/octet-stream"

_MEDIA_TYPE = re.compile(r"[\w.+-]{1,64}/[\w.+-]{1,64}", re.ASCII)


class UploadOutcome(StrEnum):
    """What an upload came to."""

    CREATED = "CREATED"
    REPLACED = "REPLACED"
    UNCHANGED = "UNCHANGED"


@dataclass(frozen=True, kw_only=True)
class UploadParameters:
    """What the sender says about a document; all of it may be left out, `document_id` for a new one."""

    document_id: str = ""
    vector_store_id: str = ""
    title: str = ""
    filename: str = ""
    media_type: str = UNKNOWN_MEDIA_TYPE
    attributes: Mapping[str, Any] = field(default_factory=dict)
    chunking_strategy: ChunkingStrategy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBytes:
    """What came in, and where it lies in the object store."""

    object_key: str
    size_bytes: int
    sha256: str


def media_type(content_type: str) -> str:
    """The type and subtype of a Content-Type header, or that of unknown bytes when it is none."""
    declared = content_type.partition(";")[0].strip().lower()
    return declared if _MEDIA_TYPE.fullmatch(declared) else UNKNOWN_MEDIA_TYPE
