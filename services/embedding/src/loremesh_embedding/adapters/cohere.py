"""Dense vectors and reranking by Cohere, or an endpoint that speaks its v2 API."""

import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx
import numpy as np
from cohere import AsyncClientV2
from cohere.core import ApiError

from loremesh_embedding.adapters import providers
from loremesh_embedding.adapters.providers import Patience
from loremesh_embedding.domain.models import Model, Purpose, Task
from loremesh_embedding.domain.vectors import DenseVectors

_OWN_ENDPOINT = "https://api.cohere.com"
# 96 texts are Cohere's limit.
_TEXTS, _CHARACTERS = 96, 1_000_000
Answer = TypeVar("Answer")
_INPUT_TYPES = {Purpose.QUERY: "search_query", Purpose.DOCUMENT: "search_document"}


@asynccontextmanager
async def connect(*, api_key: str, base_url: str, patience: Patience) -> AsyncIterator[AsyncClientV2]:
    """A client of the endpoint, of Cohere itself for an empty `base_url`."""
    timeout = httpx.Timeout(patience.attempt, connect=patience.connect)
    async with httpx.AsyncClient(timeout=timeout) as http:
        yield AsyncClientV2(
            api_key=api_key,
            base_url=base_url or _OWN_ENDPOINT,
            timeout=patience.attempt,
            max_retries=0,
            httpx_client=http,
            log_warning_experimental_features=False,
        )


class CohereEmbedder:
    """One of Cohere's embedding models."""

    def __init__(
        self,
        *,
        client: AsyncClientV2,
        patience: Patience,
        id_: str,
        dimension: int,
        max_input_tokens: int = 0,
    ) -> None:
        """`id_` is Cohere's name of the model and ours."""
        self.model = Model(
            id=id_, task=Task.DENSE, provider="cohere", dimension=dimension, max_input_tokens=max_input_tokens
        )
        self._client = client
        self._patience = patience

    async def embed(self, texts: Sequence[str], *, purpose: Purpose) -> DenseVectors:
        """Unit vectors in the order of the texts; raises ProviderUnavailable, ProviderRefused, DimensionMismatch."""
        clipped = [providers.clip(text, window=self.model.max_input_tokens) for text in texts]
        batches = providers.batches([text for text, _ in clipped], count=_TEXTS, characters=_CHARACTERS)
        parts = [await self._embed(batch, input_type=_INPUT_TYPES[purpose]) for batch in batches]
        return DenseVectors(
            values=np.concatenate([part.values for part in parts]),
            truncated=[truncated for _, truncated in clipped],
            input_tokens=sum(part.input_tokens for part in parts),
        )

    async def _embed(self, texts: Sequence[str], *, input_type: str) -> DenseVectors:
        def read(response: Any) -> DenseVectors:
            return DenseVectors(
                values=providers.checked(response.embeddings.float_, model=self.model, count=len(texts)),
                truncated=(),
                input_tokens=_billed_tokens(response),
            )

        async def send() -> DenseVectors:
            return await _answer(
                lambda: self._client.embed(
                    model=self.model.id,
                    texts=list(texts),
                    input_type=input_type,
                    embedding_types=["float"],
                    truncate="END",
                ),
                read,
                model=self.model,
            )

        return await providers.call(send, model=self.model, patience=self._patience)


class CohereReranker:
    """One of Cohere's reranking models."""

    def __init__(self, *, client: AsyncClientV2, patience: Patience, id_: str) -> None:
        """`id_` is Cohere's name of the model and ours."""
        self.model = Model(id=id_, task=Task.RERANK, provider="cohere")
        self._client = client
        self._patience = patience

    async def score(self, query: str, documents: Sequence[str]) -> Sequence[float]:
        """One score per document, 0 to 1; raises ProviderUnavailable, ProviderRefused."""

        async def send() -> Sequence[float]:
            return await _answer(
                lambda: self._client.rerank(model=self.model.id, query=query, documents=list(documents)),
                lambda response: self._scores(response, count=len(documents)),
                model=self.model,
            )

        return await providers.call(send, model=self.model, patience=self._patience)

    def _scores(self, response: Any, *, count: int) -> Sequence[float]:
        scores = {result.index: float(result.relevance_score) for result in response.results}
        if sorted(scores) != list(range(count)) or not all(map(math.isfinite, scores.values())):
            raise providers.unavailable(self.model, status="malformed")
        return [scores[index] for index in range(count)]


async def _answer(
    send: Callable[[], Awaitable[Any]],
    read: Callable[[Any], Answer],
    *,
    model: Model,
) -> Answer:
    try:
        return read(await send())
    except ApiError as error:
        if error.status_code is None or error.status_code < httpx.codes.BAD_REQUEST:
            raise providers.unavailable(model, status="malformed") from None
        headers = httpx.Headers(error.headers or {})
        raise providers.failure(model, status=error.status_code, retry_after=headers.get("retry-after")) from None
    except httpx.TimeoutException:
        raise providers.unavailable(model, status="timeout") from None
    except httpx.TransportError:
        raise providers.unavailable(model, status="connection") from None
    except (json.JSONDecodeError, ValueError, TypeError, AttributeError):
        # The SDK does not check what it parses: an answer in another shape fails where it is read.
        raise providers.unavailable(model, status="malformed") from None


def _billed_tokens(response: Any) -> int:
    units = response.meta and response.meta.billed_units
    return int(units.input_tokens or 0) if units else 0
