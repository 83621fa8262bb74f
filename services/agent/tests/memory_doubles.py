"""An embedding service that knows which words mean the same."""

import asyncio
import hashlib
import math
from collections.abc import Sequence

from loremesh_agent.domain.terms import terms
from loremesh_agent.ports import Embedded

_MEANS = {"cat": "felin", "hous": "home"}
DIMENSION = 64


class MeaningDouble:
    """A vector is the sum of its words' own; raises what it was told to, and makes no two models alike."""

    def __init__(self) -> None:
        self.model = "a-model"
        self.turn = 0
        self.failure: Exception | None = None
        self.texts = 0

    async def embed(self, texts: Sequence[str], *, are_queries: bool) -> Embedded:
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        if not are_queries:
            self.texts += len(texts)
        return Embedded(self.model, [self._vector(text) for text in texts])

    def _vector(self, text: str) -> tuple[float, ...]:
        total = [1e-6] * DIMENSION
        for term in terms(text):
            # Function words weigh little in real models, too.
            weight = 1.0 if term not in ("ada", "own") else 0.1
            seed = hashlib.sha512(f"{self.turn}{_MEANS.get(term, term)}".encode()).digest()
            total = [sum_ + weight * (byte - 127.5) for sum_, byte in zip(total, seed, strict=True)]
        length = math.hypot(*total)
        return tuple(number / length for number in total)
