"""Between the contract's messages and the domain."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from loremesh.ingestion.v1 import document_pb2, vector_store_pb2
from loremesh_kit.attributes import check
from loremesh_kit.text import clean

from loremesh_ingestion.domain.attributes import cleaned
from loremesh_ingestion.domain.chunking import Chunk, ChunkingStrategy, StrategyKind
from loremesh_ingestion.domain.document import Changes, Document, DocumentState, Failure
from loremesh_ingestion.domain.upload import UploadOutcome
from loremesh_ingestion.domain.vector_store import VectorStore
from loremesh_ingestion.domain.version import chunk_id
from loremesh_ingestion.errors import ChunkingStrategyInvalid

_KINDS = {
    vector_store_pb2.CHUNKING_STRATEGY_TYPE_UNSPECIFIED: StrategyKind.AUTO,
    vector_store_pb2.CHUNKING_STRATEGY_TYPE_AUTO: StrategyKind.AUTO,
    vector_store_pb2.CHUNKING_STRATEGY_TYPE_FIXED: StrategyKind.FIXED,
    vector_store_pb2.CHUNKING_STRATEGY_TYPE_SENTENCES: StrategyKind.SENTENCES,
    vector_store_pb2.CHUNKING_STRATEGY_TYPE_STRUCTURE: StrategyKind.STRUCTURE,
    vector_store_pb2.CHUNKING_STRATEGY_TYPE_CODE: StrategyKind.CODE,
}
_TYPES = {kind: type_ for type_, kind in _KINDS.items()}
_STATES = {state: document_pb2.DocumentState.Value(f"DOCUMENT_STATE_{state}") for state in DocumentState}
_OUTCOMES = {outcome: document_pb2.UploadOutcome.Value(f"UPLOAD_OUTCOME_{outcome}") for outcome in UploadOutcome}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def state(value: DocumentState | str) -> document_pb2.DocumentState.ValueType:
    """A state by its name."""
    return _STATES[DocumentState(value)]


def state_or_none(value: document_pb2.DocumentState.ValueType) -> DocumentState | None:
    """None for the unset one."""
    name = document_pb2.DocumentState.Name(value).removeprefix("DOCUMENT_STATE_")
    return None if name == "UNSPECIFIED" else DocumentState(name)


def attributes(struct: Struct, *, field: str = "attributes") -> dict[str, Any]:
    """Attributes as plain values, cleaned; raises AttributesInvalid naming `field`."""
    values: dict[str, Any] = cleaned({key: _plain(value) for key, value in struct.fields.items()})
    check(values, field=field)
    return values


def _plain(value: Value) -> object:
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            return value.number_value
        case "bool_value":
            return value.bool_value
        case "list_value":
            return [_plain(element) for element in value.list_value.values]
        case _:
            return None


def struct(values: Mapping[str, Any]) -> Struct:
    """Plain values as a Struct."""
    message = Struct()
    message.update(dict(values))
    return message


def strategy(message: vector_store_pb2.ChunkingStrategy) -> ChunkingStrategy:
    """Unset sizes are the contract's defaults; raises ChunkingStrategyInvalid."""
    sizes = {"max_tokens": message.max_tokens} if message.HasField("max_tokens") else {}
    try:
        return ChunkingStrategy(kind=_KINDS[message.type], overlap_tokens=message.overlap_tokens, **sizes)
    except ValueError as error:
        raise ChunkingStrategyInvalid(str(error), field="chunking_strategy") from error


def strategy_message(value: ChunkingStrategy) -> vector_store_pb2.ChunkingStrategy:
    """With both sizes stated."""
    return vector_store_pb2.ChunkingStrategy(
        type=_TYPES[value.kind], max_tokens=value.max_tokens, overlap_tokens=value.overlap_tokens
    )


def document(value: Document, *, outcome: UploadOutcome | None = None) -> document_pb2.Document:
    """A document as its owner sees it."""
    return document_pb2.Document(
        id=value.id,
        vector_store_id=value.vector_store_id,
        title=value.title,
        filename=value.filename,
        media_type=value.media_type,
        size_bytes=value.size_bytes,
        sha256=value.sha256,
        attributes=struct(value.attributes) if value.attributes else None,
        state=_STATES[value.state],
        failure=None if value.failure is None else failure(value.failure),
        progress=document_pb2.IndexingProgress(batches_done=value.batches_done, batches_total=value.batches_total),
        version=value.version,
        chunk_count=value.chunk_count,
        token_count=value.token_count,
        page_count=value.page_count,
        text_chars=value.text_chars,
        create_time=timestamp(value.create_time),
        update_time=timestamp(value.update_time),
        etag=value.etag,
        chunking_strategy=None if value.chunking_strategy is None else strategy_message(value.chunking_strategy),
        changes=None if value.changes is None else changes(value.changes),
        upload_outcome=_OUTCOMES[outcome] if outcome else document_pb2.UPLOAD_OUTCOME_UNSPECIFIED,
    )


def changes(value: Changes) -> document_pb2.ChunkChanges:
    """What a version changed."""
    return document_pb2.ChunkChanges(embedded=value.embedded, kept=value.kept, removed=value.removed)


def failure(value: Failure) -> document_pb2.DocumentFailure:
    """Why a document failed."""
    return document_pb2.DocumentFailure(
        stage=state(value.stage),
        reason=value.reason,
        message=value.message,
        retryable=value.retryable,
        metadata=value.metadata,
    )


def chunk(value: Chunk, *, tenant: str, of: Document, version: int) -> document_pb2.Chunk:
    """A chunk of a document's version."""
    return document_pb2.Chunk(
        id=chunk_id(
            tenant=tenant,
            vector_store_id=of.vector_store_id,
            generation=of.generation,
            document_id=of.id,
            version=version,
            index=value.index,
        ),
        index=value.index,
        content=value.text,
        start_char=value.start,
        end_char=value.end,
        page=value.page,
        heading_path=value.heading_path,
        token_count=value.token_count,
    )


def vector_store(value: VectorStore) -> vector_store_pb2.VectorStore:
    """A vector store as its owner sees it."""
    return vector_store_pb2.VectorStore(
        id=value.id,
        display_name=value.display_name,
        description=value.description,
        embedding_model=value.embedding_model,
        chunking_strategy=strategy_message(value.chunking_strategy),
        attributes=struct(value.attributes),
        document_count=value.document_count,
        create_time=None if value.create_time is None else timestamp(value.create_time),
        update_time=None if value.update_time is None else timestamp(value.update_time),
        etag=value.etag,
        generation=value.generation,
    )


def timestamp(value: datetime) -> Timestamp:
    """An aware time."""
    since = value - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def line(text: str) -> str:
    """A title, a name or an id as it may be kept: clean, and without white space around it."""
    return clean(text).strip()
