"""Whether what a search found is about the question at all.

A search always finds something, and its fused scores are relative to one another. Two signals are not: the cosine
between the question and the nearest passage, which belongs to the embedding model, and the share of the question's
words that one passage holds, which belongs to no model. A near passage is enough; a less near one must also hold the
question's words. With MiniLM-L6, of 255 questions asked of the collection they belong to 254 pass, and of 335 asked
of one that knows nothing of them 3 do (see the README).
"""

from dataclasses import dataclass

from loremesh_agent.domain.passages import Found
from loremesh_agent.domain.terms import terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Floors:
    """Cosines between which the words decide, and the share of words that is enough there.

    Cosines of another embedding model may need others; zero for `near` lets everything pass.
    """

    near: float = 0.40
    far: float = 0.28
    coverage: float = 0.5


def is_relevant(question: str, found: Found, floors: Floors) -> bool:
    """Whether the passages may hold the answer."""
    if not found.passages:
        return False
    if found.similarity is not None:
        if found.similarity >= floors.near:
            return True
        if found.similarity < floors.far:
            return False
    return coverage(question, found) >= floors.coverage


def coverage(question: str, found: Found) -> float:
    """The largest share of the question's content words in one passage, 0 to 1; 0 for a question without any."""
    asked = terms(question)
    held = (terms(f"{passage.title}\n{passage.content}") for passage in found.passages)
    return max((len(asked & each) / len(asked) for each in held), default=0.0) if asked else 0.0
