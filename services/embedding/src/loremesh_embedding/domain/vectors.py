"""Vectors, as every model gives them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseVectors:
    """Unit vectors of n texts, shape (n, dimension); which were cut at the window; tokens read, zero when unknown."""

    values: Floats
    truncated: Sequence[bool]
    input_tokens: int = 0


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Term ids, strictly increasing, and as many weights."""

    indices: Sequence[int]
    values: Sequence[float]


def normalise(vectors: Floats) -> Floats:
    """Rows of shape (n, dimension) scaled to length one; rows of zeros stay so."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: Floats = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit
