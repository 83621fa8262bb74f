"""What the engine needs of models, wherever they run."""

from collections.abc import Sequence
from typing import Protocol

from loremesh_embedding.domain.models import Model, Purpose
from loremesh_embedding.domain.vectors import DenseVectors, SparseVector


class DenseEmbedder(Protocol):
    """A model that gives a dense vector for each text."""

    @property
    def model(self) -> Model:
        """What it is called and how long its vectors are."""
        ...

    async def embed(self, texts: Sequence[str], *, purpose: Purpose) -> DenseVectors:
        """Unit vectors in the order of the texts, none of which is empty.

        Raises Overloaded, ProviderUnavailable, ProviderRefused, DimensionMismatch.
        """
        ...


class SparseEmbedder(Protocol):
    """A model that gives a sparse vector for each text."""

    @property
    def model(self) -> Model:
        """What it is called."""
        ...

    async def embed(self, texts: Sequence[str], *, purpose: Purpose) -> Sequence[SparseVector]:
        """Vectors in the order of the texts; one without entries for a text without terms."""
        ...


class Reranker(Protocol):
    """A model that scores how well documents answer a query."""

    @property
    def model(self) -> Model:
        """What it is called."""
        ...

    async def score(self, query: str, documents: Sequence[str]) -> Sequence[float]:
        """One score per document, in their order, the higher the better.

        Raises Overloaded, ProviderUnavailable, ProviderRefused.
        """
        ...
