"""What to search for: a question that leans on the one before is searched together with it."""

from collections.abc import Sequence

from loremesh_agent.domain.conversations import Exchange
from loremesh_agent.domain.terms import terms

# With fewer content words of its own a question can hardly be understood, nor found, alone.
_ENOUGH_WORDS = 3
# What retrieval takes; embedding models read less.
_LONGEST_QUERY = 8000


def search_text(question: str, history: Sequence[Exchange]) -> str:
    """The query for a question asked after `history`, oldest first."""
    if history and len(terms(question)) < _ENOUGH_WORDS:
        return _fitting(f"{history[-1].question}\n{question}")
    return _fitting(question)


def _fitting(query: str) -> str:
    if len(query) <= _LONGEST_QUERY:
        return query
    # The point of a long message is made where it begins or where it ends.
    half = _LONGEST_QUERY // 2
    return f"{query[: half - 1]}\n{query[-half:]}"
