"""Compares two generations of a vector store's index by what they find."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from loremesh_retrieval.domain.search import Result, Search
from loremesh_retrieval.engine import SearchEngine


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the live generation and the other one find for a query, best first."""

    live: Sequence[Result]
    other: Sequence[Result]

    @property
    def overlap(self) -> float:
        """Share of the documents found by either that both find, 0 to 1; 1 when neither finds any."""
        live, other = ({result.chunk.document_id for result in each} for each in (self.live, self.other))
        return len(live & other) / len(live | other) if live or other else 1.0


class Comparing:
    """The use case of CompareGenerations."""

    def __init__(self, *, engine: SearchEngine) -> None:
        self._engine = engine

    async def compare(
        self, queries: Sequence[str], *, vector_store_id: str, generation: int, top_k: int
    ) -> list[Comparison]:
        """One comparison for each query; raises as SearchEngine.search."""
        comparisons = []
        for query in queries:
            search = Search(query=query, vector_store_id=vector_store_id, top_k=top_k)
            live = await self._engine.search(search)
            comparisons.append(Comparison(live, await self._engine.search(replace(search, generation=generation))))
        return comparisons
