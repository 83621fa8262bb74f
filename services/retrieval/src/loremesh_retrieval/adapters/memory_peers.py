"""The sister services in memory: words hashed into vectors, and what is live as it is told."""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from loremesh_kit import identity

from loremesh_retrieval.domain.chunks import SparseVector
from loremesh_retrieval.domain.liveness import Generation, Live
from loremesh_retrieval.domain.search import Branch, QueryVectors
from loremesh_retrieval.errors import GenerationNotFound, VectorStoreNotFound


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


@dataclass(kw_only=True)
class FixedStore:
    """A vector store: models and live versions by generation, and which generation is live."""

    models: dict[int, str]
    versions: dict[int, dict[str, int]] = field(default_factory=dict)
    live: int = 1


class FixedLiveness:
    """What is live in the vector stores that it was told, by tenant and id."""

    def __init__(self, stores: Mapping[tuple[str, str], FixedStore]) -> None:
        self.stores = dict(stores)

    async def resolve(self, vector_store_id: str, *, generation: int = 0, document_ids: Iterable[str] = ()) -> Live:
        """See ports.Liveness."""
        store = self.stores.get((identity.current().tenant, vector_store_id))
        if store is None:
            raise VectorStoreNotFound(vector_store_id)
        number = generation or store.live
        if number not in store.models:
            raise GenerationNotFound(vector_store_id, number)
        versions, asked = store.versions.get(number, {}), set(document_ids)
        return Live(
            Generation(number, store.models[number]),
            {document_id: version for document_id, version in versions.items() if document_id in asked},
        )


def _words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text.lower()))


def _hash(word: str) -> int:
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:4])
