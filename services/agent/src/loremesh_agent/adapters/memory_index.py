"""What memories mean, in Postgres: words in an array, vectors as bytes, and no extension.

The search looks at one scope and those around it, which is bounded: Postgres finds the candidates, by words they share
with the query and by bits of their vectors that differ from its, and the cosines of those are computed here.
"""

import sys
from array import array
from collections.abc import Collection, Mapping, Sequence

from loremesh_kit.postgres import Database, Row

from loremesh_agent.adapters.postgres_memories import COLUMNS, STANDS, VISIBLE, caller, memory, of_scope
from loremesh_agent.domain.memories import Candidate, Kind, cosine, whole_text
from loremesh_agent.domain.terms import terms
from loremesh_agent.ports import Embedded, Scope

# By words, and by meaning.
_CANDIDATES = 100

_AROUND = (
    "user_id IN ('', %(user_id)s) AND agent_id IN ('', %(agent_id)s) AND conversation_id IN ('', %(conversation_id)s)"
)
_LIVE = f"{_AROUND} AND {VISIBLE} AND {STANDS} AND (%(anything)s OR kind = ANY(%(kinds)s))"

_FIND = f"""
WITH by_words AS (
    SELECT id FROM memories WHERE {_LIVE} AND terms && %(terms)s::text[]
    ORDER BY cardinality(ARRAY(SELECT unnest(terms) INTERSECT SELECT unnest(%(terms)s::text[]))) DESC, id DESC
    LIMIT %(limit)s
), by_meaning AS (
    SELECT id FROM memories WHERE {_LIVE} AND vector_model = %(model)s AND signature IS NOT NULL
    ORDER BY bit_count(signature # %(signature)s::varbit), id DESC LIMIT %(limit)s
)
SELECT {COLUMNS}, terms, CASE WHEN vector_model = %(model)s THEN vector END AS vector
FROM (SELECT id FROM by_words UNION SELECT id FROM by_meaning) AS found
JOIN memories ON memories.id = found.id LEFT JOIN memory_vectors ON memory_id = memories.id
"""  # noqa: S608 - made of constants, as all here

_PENDING = """
SELECT id, subject, attribute, content FROM memories WHERE vector_pending AND receipt_id IS NULL
UNION
SELECT id, subject, attribute, content FROM memories
WHERE %(model)s <> '' AND NOT vector_pending AND receipt_id IS NULL
    AND (vector_model < %(model)s OR vector_model > %(model)s)
LIMIT %(limit)s
"""

# Whoever forgets one at this moment waits, and then finds its vector.
_KEEP = """
WITH given AS (
    SELECT * FROM unnest(%(ids)s::text[], %(vectors)s::bytea[], %(signatures)s::varbit[])
        AS given (id, vector, signature)
), live AS (
    UPDATE memories SET vector_pending = false, vector_model = %(model)s, signature = given.signature
    FROM given WHERE memories.id = given.id AND receipt_id IS NULL RETURNING memories.id, vector
)
INSERT INTO memory_vectors (memory_id, vector) SELECT id, vector FROM live
ON CONFLICT (tenant, memory_id) DO UPDATE SET vector = excluded.vector
"""


class PostgresRecallIndex:
    """Words and signatures in `memories`, and the table `memory_vectors`; see ports.RecallIndex."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def candidates(
        self, query: str, *, scope: Scope, kinds: Collection[Kind], embedded: Embedded | None
    ) -> Sequence[Candidate]:
        """See ports.RecallIndex."""
        asked = embedded.vectors[0] if embedded else None
        parameters = {
            **of_scope(scope), "user": caller(), "anything": not kinds, "kinds": list(kinds),
            "terms": sorted(terms(query)), "limit": _CANDIDATES,
            "model": embedded.model if embedded else "", "signature": _signature(asked or ()),
        }  # fmt: skip
        return [_candidate(row, asked) for row in await self._database.fetch(_FIND, parameters)]

    async def pending(self, model: str, *, limit: int) -> Mapping[str, str]:
        """See ports.RecallIndex."""
        rows = await self._database.fetch(_PENDING, {"model": model, "limit": limit})
        return {row["id"]: whole_text(row["subject"], row["attribute"], row["content"]) for row in rows}

    async def keep(self, memory_ids: Sequence[str], embedded: Embedded) -> None:
        """See ports.RecallIndex."""
        parameters = {
            "ids": list(memory_ids),
            "model": embedded.model,
            "vectors": [_packed(vector) for vector in embedded.vectors],
            "signatures": [_signature(vector) for vector in embedded.vectors],
        }
        await self._database.fetch(_KEEP, parameters)


def _candidate(row: Row, asked: Sequence[float] | None) -> Candidate:
    held, vector = row.pop("terms"), row.pop("vector")
    similarity = None if asked is None or vector is None else cosine(asked, _unpacked(vector))
    return Candidate(memory=memory(row), terms=held, similarity=similarity)


def _signature(vector: Sequence[float]) -> str:
    return "".join("1" if number > 0 else "0" for number in vector)


def _packed(vector: Sequence[float]) -> bytes:
    return _little_endian(array("f", vector)).tobytes()


def _unpacked(kept: bytes) -> "array[float]":
    vector = array("f")
    vector.frombytes(kept)
    return _little_endian(vector)


def _little_endian(vector: "array[float]") -> "array[float]":
    if sys.byteorder == "big":
        vector.byteswap()
    return vector
