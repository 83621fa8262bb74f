"""From chunks to vectors in the index, and out of it again when they turn out to be unwanted."""

from collections.abc import Sequence

from loremesh_kit import identity

from loremesh_ingestion.domain import objects
from loremesh_ingestion.domain.chunking import Chunk
from loremesh_ingestion.domain.document import Document, DocumentState, Standing, outdated_before, standing
from loremesh_ingestion.domain.version import Version
from loremesh_ingestion.engine.keeping import Keeping, indexed_id
from loremesh_ingestion.engine.stages import stage
from loremesh_ingestion.ports import BlobStore, Embedder, IndexedDocument, IndexEntry, SearchIndex, Vector
from loremesh_ingestion.records import IndexingRecords, Written

_UNLIMITED = 8192


def carried(document: Document, version: Version, *, found_title: str) -> IndexedDocument:
    """What the chunks of a version carry; the title is the one the document will have when it is published."""
    return IndexedDocument(
        vector_store_id=document.vector_store_id,
        generation=document.generation,
        embedding_model=version.embedding_model,
        document_id=document.id,
        version=version.version,
        title=document.title if document.title_given else found_title or document.filename,
        attributes=document.attributes,
    )


class Writer:
    """Writes chunks into the index, and takes them out."""

    def __init__(self, *, embedder: Embedder, index: SearchIndex, blobs: BlobStore, records: IndexingRecords) -> None:
        self._embedder = embedder
        self._index = index
        self._blobs = blobs
        self._records = records
        self._keeping = Keeping(index=index, records=records)

    async def write(
        self,
        document: IndexedDocument,
        chunks: Sequence[Chunk],
        *,
        embedded_title: str | None,
        key: str,
        since: int,
    ) -> Written:
        """Embed, where version `since` (0: none) of the row `key` has no vectors for it, and index.

        Idempotent, since ids say where chunks stand. Raises StageFailed.
        """
        title = document.title if embedded_title is None else embedded_title
        with stage(DocumentState.EMBEDDING):
            window = await self._window(document.embedding_model)
            texts = [chunk.embedding_text(title, model_tokens=window) for chunk in chunks]
            known = await self._keeping.known(document, chunks, key=key, since=since, window=window)
            missing = [text for text in texts if text not in known.vectors]
            vectors = dict(known.vectors) | await self._embedded(missing, model=document.embedding_model)
        with stage(DocumentState.INDEXING):
            entries = [
                IndexEntry(indexed_id(document, chunk.index), chunk, vectors[text])
                for chunk, text in zip(chunks, texts, strict=True)
            ]
            await self._index.upsert(document, entries)
        recurring = frozenset(position for text in texts for position in known.positions.get(text, ()))
        return Written(embedded=len(missing), kept=len(texts) - len(missing), recurring=recurring)

    async def _embedded(self, texts: Sequence[str], *, model: str) -> dict[str, Vector]:
        return dict(zip(texts, await self._embedder.embed(texts, model=model), strict=True)) if texts else {}

    async def _window(self, model_id: str) -> int:
        models = await self._embedder.models()
        return next((model.max_input_tokens for model in models if model.id == model_id), 0) or _UNLIMITED

    async def count(self, document: IndexedDocument) -> int:
        """How many chunks of the version the index holds."""
        return await self._index.count(document)

    async def take_back(self, document: Document, version: Version) -> None:
        """Remove what an attempt may have written for a version which, it has turned out, nobody wants any more."""
        now, _ = await self._records.load(document.key, version.version)
        if standing(now, version.version) is Standing.GONE:
            await self._delete(document, version)
            if await self._records.exists(document.id):  # it was its generation that went
                return
            prefix = objects.prefix(tenant=identity.current().tenant, document_id=document.id)
            await self._blobs.delete_all(prefix)
        elif now is not None and (before := outdated_before(now, version.version)):
            await self._delete(document, version, before_version=before)

    async def _delete(self, document: Document, version: Version, *, before_version: int = 0) -> None:
        await self._index.delete(
            vector_store_id=document.vector_store_id,
            generation=document.generation,
            embedding_model=version.embedding_model,
            document_id=document.id,
            before_version=before_version,
        )
