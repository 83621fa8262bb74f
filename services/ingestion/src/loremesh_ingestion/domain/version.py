"""One indexing of a document: from which bytes, how, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID, uuid5

from loremesh_ingestion.domain.chunking import ChunkingStrategy

BATCH_SIZE = 32
_CHUNK_IDS = UUID("6b1f0e0a-6f0c-5d0e-9a57-3d1c2f0b7e64")


@dataclass(frozen=True, slots=True)
class Version:
    """A version's row; `text_key` is None until it is parsed; `title` was found, `embedded_title` embedded."""

    document_id: str
    version: int
    object_key: str
    embedding_model: str
    chunking_strategy: ChunkingStrategy
    metadata_revision: int
    text_key: str | None
    text_landmarks: Sequence[int]
    text_chars: int
    media_type: str
    title: str
    embedded_title: str | None
    page_count: int
    chunk_count: int
    token_count: int


def chunk_id(*, tenant: str, vector_store_id: str, generation: int, document_id: str, version: int, index: int) -> str:
    """A UUIDv5 of where the chunk stands, so that writing it twice is writing it once."""
    # The first generation's ids are those from before there were others.
    place = document_id if generation == 1 else f"{generation}/{document_id}"
    return str(uuid5(_CHUNK_IDS, f"{tenant}/{vector_store_id}/{place}/{version}/{index}"))


def batch_count(chunk_count: int) -> int:
    """How many batches of at most BATCH_SIZE chunks there are."""
    return -(-chunk_count // BATCH_SIZE)


def batch_range(batch: int) -> range:
    """The positions of the chunks in a batch; those of the last one may go beyond the document's end."""
    return range(batch * BATCH_SIZE, (batch + 1) * BATCH_SIZE)
