"""What a passage that a search found tells of itself."""

import itertools
import re
from functools import cache

from loremesh_ingestion.domain.version import chunk_id

from tests.ordeal import text

_TENANT = "default"
_MOST_GENERATIONS, _MOST_CHUNKS = 200, 400


def edition_in(passage: str) -> int:
    """Which edition a passage is of; 0 where it does not say."""
    found = re.search(r"edition(\d+)", passage)
    return int(found[1]) if found else 0


@cache
def generation_of(chunk: str, store: str, document_id: str, version: int) -> int:
    """The generation in which a document's version has this chunk, for its id derives from that; 0 if in none."""
    generations = range(1, _MOST_GENERATIONS if store == text.SWITCHED else 2)
    # Positions first: of a small document's chunks, in whatever generation, the first is found at once.
    for index, generation in itertools.product(range(_MOST_CHUNKS), generations):
        place = {"vector_store_id": store, "generation": generation, "document_id": document_id, "version": version}
        if chunk_id(tenant=_TENANT, index=index, **place) == chunk:  # type: ignore[arg-type]
            return generation
    return 0
