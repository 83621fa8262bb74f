"""The use cases: check what was asked, and have the right model do it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loremesh_kit import text as kit_text
from loremesh_kit.errors import InvalidField

from loremesh_embedding.domain.models import Catalogue, Model, Purpose, Task
from loremesh_embedding.domain.vectors import DenseVectors, SparseVector
from loremesh_embedding.errors import TextEmpty
from loremesh_embedding.ports import DenseEmbedder, Reranker, SparseEmbedder

# As a dense model's id: leave dense vectors out.
NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """The vectors of a request's texts, by the models that gave them; None where none were asked for."""

    model: Model | None
    dense: DenseVectors | None
    sparse_model: Model | None
    sparse: Sequence[SparseVector] | None


@dataclass(frozen=True, slots=True)
class Scored:
    """A document's place in the request and its score."""

    index: int
    score: float


class EmbeddingEngine:
    """Embeds and reranks with the models it was given."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        dense: Iterable[DenseEmbedder],
        sparse: Iterable[SparseEmbedder],
        rerankers: Iterable[Reranker],
    ) -> None:
        """`catalogue` lists exactly the models of the others."""
        self.catalogue = catalogue
        self._dense = {embedder.model.id: embedder for embedder in dense}
        self._sparse = {embedder.model.id: embedder for embedder in sparse}
        self._rerankers = {reranker.model.id: reranker for reranker in rerankers}

    async def embed(
        self,
        texts: Sequence[str],
        *,
        model: str = "",
        sparse_model: str = "",
        purpose: Purpose = Purpose.DOCUMENT,
    ) -> Embedded:
        """Vectors in the order of the texts; `model` empty is the default one, `sparse_model` empty is none.

        Raises ModelNotFound, ModelTaskUnsupported, TextEmpty, InvalidField when nothing is asked for, and what the
        model raises.
        """
        dense_model = None if model == NONE else self.catalogue.resolve(model, Task.DENSE)
        weighing = self._resolve_sparse(sparse_model)
        if dense_model is None and weighing is None:
            raise InvalidField(f"With model {NONE!r} a sparse model is needed.", field="sparse_model")
        cleaned = [_cleaned(text, field=f"texts[{index}]") for index, text in enumerate(texts)]
        sparse = await self._sparse[weighing.id].embed(cleaned, purpose=purpose) if weighing else None
        dense = await self._dense[dense_model.id].embed(cleaned, purpose=purpose) if dense_model else None
        return Embedded(model=dense_model, dense=dense, sparse_model=weighing, sparse=sparse)

    def _resolve_sparse(self, id_: str) -> Model | None:
        return self.catalogue.resolve(id_, Task.SPARSE, field="sparse_model") if id_ else None

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        model: str = "",
        top_k: int | None = None,
    ) -> tuple[Model, Sequence[Scored]]:
        """The model used and its scores, best first, ties in the order given, at most `top_k` of them.

        Raises ModelNotFound, ModelTaskUnsupported, TextEmpty, and what the model raises.
        """
        reranking = self.catalogue.resolve(model, Task.RERANK)
        asked = _cleaned(query, field="query")
        passages = [_cleaned(document, field=f"documents[{index}]") for index, document in enumerate(documents)]
        scores = await self._rerankers[reranking.id].score(asked, passages)
        ranked = sorted((Scored(*each) for each in enumerate(scores)), key=lambda scored: -scored.score)
        return reranking, ranked[:top_k]


def _cleaned(text: str, *, field: str) -> str:
    cleaned = kit_text.clean(text)
    if not cleaned.strip():
        raise TextEmpty(field=field)
    return cleaned
