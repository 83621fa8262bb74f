"""What the local weights are used for: dense vectors by mean pooling, and scores by late interaction."""

import asyncio
from collections.abc import Sequence

import numpy as np

from loremesh_embedding.adapters.minilm import DIMENSION, WINDOW, MiniLm
from loremesh_embedding.batcher import Batcher
from loremesh_embedding.domain.backlog import Priority
from loremesh_embedding.domain.models import Model, Purpose, Task
from loremesh_embedding.domain.pooling import max_sim, mean_pool
from loremesh_embedding.domain.vectors import DenseVectors, Floats, normalise

# Tokenising so many characters takes less time than having a thread do it.
_AT_ONCE = 2_000
_PRIORITY = {Purpose.QUERY: Priority.QUERY, Purpose.DOCUMENT: Priority.DOCUMENT}


class LocalEmbedder:
    """Dense vectors of MiniLM."""

    model = Model(id="minilm-l6-int8", task=Task.DENSE, provider="local", dimension=DIMENSION, max_input_tokens=WINDOW)

    def __init__(self, *, minilm: MiniLm, batcher: Batcher) -> None:
        """`batcher` runs the weights of `minilm`."""
        self._minilm = minilm
        self._batcher = batcher

    async def embed(self, texts: Sequence[str], *, purpose: Purpose) -> DenseVectors:
        """Unit vectors in the order of the texts; raises Overloaded."""
        if sum(map(len, texts)) <= _AT_ONCE:
            tokenised = self._minilm.tokenise(texts)
        else:
            tokenised = await asyncio.to_thread(self._minilm.tokenise, texts)
        vectors = await self._batcher.compute([each.ids for each in tokenised], mean_pool, priority=_PRIORITY[purpose])
        return DenseVectors(
            values=np.stack(vectors),
            truncated=[each.truncated for each in tokenised],
            input_tokens=sum(len(each.ids) for each in tokenised),
        )


class LocalReranker:
    """Late interaction over MiniLM's token vectors, so that no further weights are needed."""

    model = Model(id="minilm-l6-maxsim", task=Task.RERANK, provider="local", max_input_tokens=WINDOW)

    def __init__(self, *, minilm: MiniLm, batcher: Batcher) -> None:
        """`batcher` runs the weights of `minilm`."""
        self._minilm = minilm
        self._batcher = batcher

    async def score(self, query: str, documents: Sequence[str]) -> Sequence[float]:
        """One score per document, -1 to 1; raises Overloaded."""
        asked, *passages = await asyncio.to_thread(self._minilm.tokenise, [query, *documents])
        (query_tokens,) = await self._batcher.compute([asked.ids], normalise, priority=Priority.QUERY)

        # Token vectors of a document take 400 kB: they become a score on the thread that made them.
        def score(tokens: Floats) -> float:
            return max_sim(query_tokens, normalise(tokens))

        return await self._batcher.compute([each.ids for each in passages], score, priority=Priority.RERANK)
