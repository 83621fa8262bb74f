"""BM25 off the event loop."""

import asyncio
from collections.abc import Sequence

from loremesh_embedding.domain.bm25 import Bm25
from loremesh_embedding.domain.models import Model, Purpose, Task
from loremesh_embedding.domain.vectors import SparseVector

# Weighing so many characters takes less time than having a thread do it.
_AT_ONCE = 2_000


class Bm25Embedder:
    """Sparse vectors of BM25."""

    model = Model(id="bm25", task=Task.SPARSE, provider="local")

    def __init__(self, *, bm25: Bm25) -> None:
        """`bm25` knows the language."""
        self._bm25 = bm25

    async def embed(self, texts: Sequence[str], *, purpose: Purpose) -> Sequence[SparseVector]:
        """Vectors in the order of the texts; one without entries for a text without terms."""
        weigh = self._bm25.query if purpose is Purpose.QUERY else self._bm25.document
        if sum(map(len, texts)) <= _AT_ONCE:
            return [weigh(text) for text in texts]
        return await asyncio.to_thread(lambda: [weigh(text) for text in texts])
