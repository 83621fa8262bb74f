"""A model without weights, for tests: texts that share words have similar vectors, the same ones every time."""

from collections.abc import Sequence

import numpy as np

from loremesh_embedding.domain.bm25 import term_id
from loremesh_embedding.domain.models import Model, Purpose, Task
from loremesh_embedding.domain.vectors import DenseVectors, Floats, normalise

_WINDOW = 256


def _vector(words: Sequence[str], dimension: int) -> Floats:
    vector = np.zeros(dimension, np.float32)
    for word in words:
        vector += np.random.default_rng(term_id(word)).standard_normal(dimension, np.float32)
    return normalise(vector)


class MemoryEmbedder:
    """The mean of random vectors, one for each word."""

    def __init__(self, *, id_: str = "memory", dimension: int = 64) -> None:
        """`dimension` is the vectors' length."""
        self.model = Model(id=id_, task=Task.DENSE, provider="memory", dimension=dimension, max_input_tokens=_WINDOW)

    async def embed(self, texts: Sequence[str], *, purpose: Purpose) -> DenseVectors:
        """Unit vectors in the order of the texts; words are their tokens."""
        del purpose
        words = [text.casefold().split() for text in texts]
        return DenseVectors(
            values=np.stack([_vector(each[:_WINDOW], self.model.dimension) for each in words]),
            truncated=[len(each) > _WINDOW for each in words],
            input_tokens=sum(min(len(each), _WINDOW) for each in words),
        )


class MemoryReranker:
    """The share of the query's words that a document holds."""

    def __init__(self, *, id_: str = "memory-rerank") -> None:
        """`id_` names it in requests."""
        self.model = Model(id=id_, task=Task.RERANK, provider="memory")

    async def score(self, query: str, documents: Sequence[str]) -> Sequence[float]:
        """One score per document, 0 to 1."""
        asked = set(query.casefold().split())
        return [len(asked & set(document.casefold().split())) / len(asked) for document in documents]
