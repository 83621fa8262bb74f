"""Vectors that need not be made again: those of chunks that read the same in the version which searches see."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from loremesh_kit import identity

from loremesh_ingestion.domain.chunking import Chunk
from loremesh_ingestion.domain.version import chunk_id
from loremesh_ingestion.ports import IndexedDocument, SearchIndex, Vector
from loremesh_ingestion.records import IndexingRecords


@dataclass(frozen=True, slots=True)
class Known:
    """By what is embedded of a chunk: its vector where the index has it, and where it stands in that version."""

    vectors: Mapping[str, Vector] = field(default_factory=dict)
    positions: Mapping[str, Sequence[int]] = field(default_factory=dict)


class Keeping:
    """Compares by the whole text that the model was given, title and headings included."""

    def __init__(self, *, index: SearchIndex, records: IndexingRecords) -> None:
        self._index = index
        self._records = records

    async def known(
        self, target: IndexedDocument, chunks: Sequence[Chunk], *, key: str, since: int, window: int
    ) -> Known:
        """What version `since` (0: none) of the document's row has of these chunks; raises DependencyUnavailable."""
        _, before = await self._records.load(key, since) if since else (None, None)
        if before is None or before.embedded_title is None or before.embedding_model != target.embedding_model:
            return Known()
        candidates = await self._records.chunks_reading(key, since, [chunk.text for chunk in chunks])
        positions: dict[str, list[int]] = defaultdict(list)
        for each in candidates:
            positions[each.embedding_text(before.embedded_title, model_tokens=window)].append(each.index)
        ids = {text: indexed_id(replace(target, version=since), found[0]) for text, found in positions.items()}
        vectors = await self._index.vectors(target, list(ids.values())) if ids else {}
        return Known({text: vectors[id_] for text, id_ in ids.items() if id_ in vectors}, positions)


def indexed_id(document: IndexedDocument, index: int) -> str:
    """The id of the chunk at a position of the document's version."""
    return chunk_id(
        tenant=identity.current().tenant,
        vector_store_id=document.vector_store_id,
        generation=document.generation,
        document_id=document.document_id,
        version=document.version,
        index=index,
    )
