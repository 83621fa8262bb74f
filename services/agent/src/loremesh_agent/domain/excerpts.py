"""Passages cut down to the sentences that speak of the question, for models that read little."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from loremesh_agent.domain.passages import Passage
from loremesh_agent.domain.sentences import sentences
from loremesh_agent.domain.terms import terms
from loremesh_agent.domain.tokens import estimate

# A passage's rank in the search against the share of the question's words a sentence holds.
_PER_RANK = 0.05
# Words beyond the question's, without which a sentence is a heading rather than an answer.
_LEAST_TOLD = 2
# What each passage costs beside its text: number, title, delimiters.
PASSAGE_TOKENS = 12


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What the model is given of a passage."""

    passage: Passage
    text: str


@dataclass(frozen=True, slots=True)
class _Candidate:
    passage: int
    position: int
    text: str
    tokens: int
    worth: float


def excerpts(question: str, passages: Sequence[Passage], *, tokens: int) -> list[Excerpt]:
    """The passages whole where they fit into `tokens`, else their best sentences, in the order of the passages.

    Passages of which no sentence fits are left out.
    """
    if _all_fit(passages, tokens):
        return [Excerpt(passage, passage.content) for passage in passages]
    chosen = _chosen(_candidates(question, passages), tokens)
    return [
        Excerpt(passage, " ".join(each.text for each in chosen if each.passage == index))
        for index, passage in enumerate(passages)
        if any(each.passage == index for each in chosen)
    ]


def best_sentence(question: str, passages: Sequence[Passage]) -> tuple[int, str] | None:
    """The sentence that tells most of what is asked, and its passage's number from 1.

    None when none shares a word with the question and says more than it.
    """
    asked = terms(question)
    telling = [
        candidate
        for candidate in _candidates(question, passages)
        if (said := terms(candidate.text)) & asked and len(said - asked) >= _LEAST_TOLD
    ]
    best = max(telling, key=lambda candidate: candidate.worth, default=None)
    return (best.passage + 1, best.text) if best else None


def _all_fit(passages: Sequence[Passage], tokens: int) -> bool:
    room = tokens - PASSAGE_TOKENS * len(passages)
    # No token is shorter than a byte, so that where the window is large nothing needs to be counted.
    if sum(len(passage.content.encode("utf-8", "surrogatepass")) for passage in passages) <= room:
        return True
    return sum(estimate(passage.content) for passage in passages) <= room


def _candidates(question: str, passages: Sequence[Passage]) -> list[_Candidate]:
    asked = terms(question)
    return [
        _Candidate(
            passage=rank,
            position=position,
            text=sentence,
            tokens=estimate(sentence),
            worth=len(asked & terms(sentence)) / max(1, len(asked)) - _PER_RANK * rank,
        )
        for rank, passage in enumerate(passages)
        for position, sentence in enumerate(sentences(passage.content))
    ]


def _chosen(candidates: list[_Candidate], tokens: int) -> list[_Candidate]:
    """The best that fit together, in the order of the text; each passage that is begun costs extra."""
    chosen: list[_Candidate] = []
    begun: set[int] = set()
    for each in sorted(candidates, key=lambda candidate: -candidate.worth):
        cost = each.tokens + (0 if each.passage in begun else PASSAGE_TOKENS)
        if cost <= tokens:
            tokens -= cost
            begun.add(each.passage)
            chosen.append(each)
    if not chosen and candidates:
        # A part of the best sentence rather than nothing.
        best = max(candidates, key=lambda candidate: candidate.worth)
        return [replace(best, text=best.text[: max(1, tokens)])]
    return sorted(chosen, key=lambda candidate: (candidate.passage, candidate.position))
