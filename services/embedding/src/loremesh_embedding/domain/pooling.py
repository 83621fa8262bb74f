"""From token vectors, shape (tokens, dimension), to one vector or to one score."""

import numpy as np

from loremesh_embedding.domain.vectors import Floats, normalise


def mean_pool(tokens: Floats) -> Floats:
    """The text's unit vector, shape (dimension,): the mean over its tokens, as Sentence-BERT pools (Reimers, 2019)."""
    return normalise(tokens.mean(axis=0))


def max_sim(query: Floats, document: Floats) -> float:
    """How well the document covers the query, -1 to 1; both are unit token vectors.

    ColBERT's late interaction (Khattab & Zaharia, 2020): each query token takes its best match in the document; the
    mean instead of their sum keeps scores of long and short queries on one scale.
    """
    return float(np.mean((query @ document.T).max(axis=1)))
