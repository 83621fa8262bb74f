"""Dense vectors from any endpoint that speaks OpenAI's embeddings API."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import openai

from loremesh_embedding.adapters import providers
from loremesh_embedding.adapters.providers import Patience
from loremesh_embedding.domain.models import Model, Purpose, Task
from loremesh_embedding.domain.vectors import DenseVectors

_OWN_ENDPOINT = "https://api.openai.com/v1"
# 2,048 texts and 300,000 tokens are OpenAI's limits; other endpoints take less. A character is seldom over a token.
_TEXTS, _CHARACTERS = 128, 250_000
_QUOTA_USED_UP = "insufficient_quota"


@asynccontextmanager
async def connect(*, api_key: str, base_url: str, patience: Patience) -> AsyncIterator[openai.AsyncOpenAI]:
    """A client of the endpoint, of OpenAI itself for an empty `base_url`."""
    async with openai.AsyncOpenAI(
        # The SDK insists on a key, local endpoints don't.
        api_key=api_key or "none",
        base_url=base_url or _OWN_ENDPOINT,
        timeout=openai.Timeout(patience.attempt, connect=patience.connect),
        max_retries=0,
    ) as client:
        yield client


class OpenAiEmbedder:
    """One model of an endpoint."""

    def __init__(
        self,
        *,
        client: openai.AsyncOpenAI,
        patience: Patience,
        id_: str,
        dimension: int,
        max_input_tokens: int = 0,
    ) -> None:
        """`id_` is the endpoint's name of the model and ours."""
        self.model = Model(
            id=id_, task=Task.DENSE, provider="openai", dimension=dimension, max_input_tokens=max_input_tokens
        )
        self._client = client
        self._patience = patience

    async def embed(self, texts: Sequence[str], *, purpose: Purpose) -> DenseVectors:
        """Unit vectors in the order of the texts; raises ProviderUnavailable, ProviderRefused, DimensionMismatch."""
        del purpose
        clipped = [providers.clip(text, window=self.model.max_input_tokens) for text in texts]
        batches = providers.batches([text for text, _ in clipped], count=_TEXTS, characters=_CHARACTERS)
        parts = [await self._embed(batch) for batch in batches]
        return DenseVectors(
            values=np.concatenate([part.values for part in parts]),
            truncated=[truncated for _, truncated in clipped],
            input_tokens=sum(part.input_tokens for part in parts),
        )

    async def _embed(self, texts: Sequence[str]) -> DenseVectors:
        return await providers.call(lambda: self._send(texts), model=self.model, patience=self._patience)

    async def _send(self, texts: Sequence[str]) -> DenseVectors:
        try:
            # Every endpoint speaks plain floats; few speak base64.
            response = await self._client.embeddings.create(
                model=self.model.id, input=list(texts), encoding_format="float"
            )
            rows = [item.embedding for item in sorted(response.data, key=lambda item: item.index)]
            tokens = response.usage.prompt_tokens if response.usage else 0
        except openai.APIStatusError as error:
            raise providers.failure(
                self.model,
                status=error.status_code,
                retry_after=error.response.headers.get("retry-after"),
                final=error.code == _QUOTA_USED_UP,
            ) from None
        except openai.APITimeoutError:
            raise providers.unavailable(self.model, status="timeout") from None
        except openai.APIConnectionError:
            raise providers.unavailable(self.model, status="connection") from None
        except (openai.APIError, json.JSONDecodeError, ValueError, TypeError, AttributeError):
            # The SDK does not check what it parses: an answer in another shape fails where it is read.
            raise providers.unavailable(self.model, status="malformed") from None
        return DenseVectors(
            values=providers.checked(rows, model=self.model, count=len(texts)),
            truncated=(),
            input_tokens=tokens if isinstance(tokens, int) else 0,
        )
