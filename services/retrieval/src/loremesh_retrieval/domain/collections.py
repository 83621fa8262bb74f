"""What an embedding model's index is called, and which vectors it takes."""

import hashlib
import re

from loremesh_retrieval.errors import DimensionMismatch


def collection_name(model: str) -> str:
    """A name that is a file name and a Qdrant collection name, unlike that of any other model."""
    slug = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")[:48]
    return f"{slug}-{hashlib.sha256(model.encode()).hexdigest()[:8]}"


def check_dimension(model: str, *, expected: int, actual: int) -> None:
    """Raise DimensionMismatch unless a vector of `actual` values fits an index of vectors of `expected`."""
    if expected != actual:
        raise DimensionMismatch(model=model, expected=expected, actual=actual)
