"""BM25 as sparse vectors, whose dot product is the score once the index has multiplied in the IDF.

With f the term's frequency and l the text's length in terms, a document's weight of a term is

    f (k1 + 1) / (f + k1 (1 - b + b l / average_length))

(Robertson & Zaragoza, The Probabilistic Relevance Framework, 2009, eq. 3.15); a query's weight is 1. Qdrant's IDF
modifier gives the other factor, ln(1 + (N - n + 0.5) / (n + 0.5)), from what is in the index at search time. A fixed
average length makes vectors independent of the collection, as Qdrant's own BM25 has it.
"""

from collections import Counter
from collections.abc import Collection
from functools import lru_cache
from hashlib import blake2b

from py_rust_stemmers import SnowballStemmer  # type: ignore[import-untyped]

from loremesh_embedding.domain.stop_words import ENGLISH
from loremesh_embedding.domain.terms import terms
from loremesh_embedding.domain.vectors import SparseVector

# The usual values (Robertson & Zaragoza, 2009; Lucene, Qdrant).
K1 = 1.2
B = 0.75
# A chunk of 256 word pieces, the window of the local model, holds about this many terms once stop words are gone.
AVERAGE_LENGTH = 112.0


class Bm25:
    """Weighs the terms of texts in one language, and of any script."""

    def __init__(
        self,
        *,
        language: str = "english",
        k1: float = K1,
        b: float = B,
        average_length: float = AVERAGE_LENGTH,
    ) -> None:
        """`language` is a Snowball stemmer's name; raises ValueError when there is none of that name."""
        self._stem = lru_cache(maxsize=2**15)(SnowballStemmer(language).stem_word)
        self._id = lru_cache(maxsize=2**15)(term_id)
        self._stop_words: Collection[str] = ENGLISH if language == "english" else frozenset()
        self._k1, self._b, self._average_length = k1, b, average_length

    def document(self, text: str) -> SparseVector:
        """The weights of a passage's terms; no entries when it has none."""
        frequencies = self._frequencies(text)
        relative_length = frequencies.total() / self._average_length
        damping = self._k1 * (1 - self._b + self._b * relative_length)
        indices = sorted(frequencies)
        weights = [frequencies[index] * (self._k1 + 1) / (frequencies[index] + damping) for index in indices]
        return SparseVector(indices, weights)

    def query(self, text: str) -> SparseVector:
        """One for each distinct term of a question; no entries when it has none."""
        indices = sorted(self._frequencies(text))
        return SparseVector(indices, [1.0] * len(indices))

    def _frequencies(self, text: str) -> Counter[int]:
        return Counter(self._id(term) for term in terms(text, stem=self._stem, stop_words=self._stop_words))


def term_id(term: str) -> int:
    """A 32-bit id, the same for ever and everywhere; of 100,000 distinct terms about one pair shares one."""
    return int.from_bytes(blake2b(term.encode("utf-8", "surrogatepass"), digest_size=4).digest())
