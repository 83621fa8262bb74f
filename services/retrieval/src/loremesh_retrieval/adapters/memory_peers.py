"""The sister services in memory: words hashed into vectors, and a dictionary of vector stores."""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from loremesh_retrieval.domain.chunks import SparseVector
from loremesh_retrieval.domain.scope import Scope
from loremesh_retrieval.domain.search import Branch, QueryVectors
from loremesh_retrieval.errors import VectorStoreNotFound


class HashingEmbedder:
    """Texts which share words get like vectors; good enough to search small examples with."""

    def __init__(self, *, dimension: int = 64) -> None:
        self.dimension = dimension

    async def embed(self, model: str, query: str, *, branches: Sequence[Branch]) -> QueryVectors:
        """See ports.Embedder."""
        del model
        sparse = self.sparse(query)
        return QueryVectors(
            dense=self.dense(query) if Branch.DENSE in branches else None,
            sparse=sparse if Branch.SPARSE in branches and sparse.indices else None,
        )

    async def rerank(self, model: str, query: str, passages: Sequence[str]) -> Sequence[float]:
        """See ports.Reranker: the share of the query's words that the passage has."""
        del model
        wanted = _words(query).keys()
        return [len(wanted & _words(passage).keys()) / max(1, len(wanted)) for passage in passages]

    def dense(self, text: str) -> tuple[float, ...]:
        """A unit vector."""
        vector = [0.0] * self.dimension
        for word, count in _words(text).items():
            vector[_hash(word) % self.dimension] += count
        length = math.sqrt(sum(value * value for value in vector)) or 1.0
        return tuple(value / length for value in vector)

    def sparse(self, text: str) -> SparseVector:
        """One term for each word, weighted by how often it occurs."""
        weights = {_hash(word): count / (count + 1.2) for word, count in _words(text).items()}
        indices = sorted(weights)
        return SparseVector(indices, [weights[index] for index in indices])


class FixedVectorStores:
    """The vector stores that it was told."""

    def __init__(self, models: Mapping[Scope, str]) -> None:
        self.models = dict(models)

    async def embedding_model(self, scope: Scope) -> str:
        """See ports.VectorStoreDirectory."""
        if scope not in self.models:
            raise VectorStoreNotFound(scope.vector_store_id)
        return self.models[scope]


def _words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text.lower()))


def _hash(word: str) -> int:
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:4])
