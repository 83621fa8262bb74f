"""What an answer rests on, judged by its words.

Small models cite badly or not at all, so where an answer cites nothing we look for what supports it ourselves. A
sentence is supported by a passage when most of what it adds to the question stands in that passage, every number
among it. That is meant to be strict: a paraphrase goes uncited rather than a fabrication cited.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from loremesh_agent.domain.claims import Claim
from loremesh_agent.domain.definitions import GroundingPolicy
from loremesh_agent.domain.passages import Passage
from loremesh_agent.domain.sentences import sentences
from loremesh_agent.domain.terms import terms
from loremesh_agent.domain.wording import Wording

# Of what a sentence adds to the question, this share must stand in the passage ...
_SHARE = 0.6
# ... and of all its content words this many.
_LEAST_SHARED = 3
_MOST_CITED = 3
_CITATIONS = re.compile(r"[ \t]?\[ {0,2}[0-9]{1,3}(?: {0,2}, {0,2}[0-9]{1,3}){0,15} {0,2}\]")
_DIGITS = re.compile(r"[0-9]+")
_STOP = re.compile(r"[.!?;。！？]+[\"'’”»)\s]*\Z")
_EMPTY_ITEM = re.compile(r"^[ \t]*(?:[*+•-]|[0-9]{1,3}[.)])[ \t]*$\n?", re.MULTILINE)
_HOLLOW = re.compile(r"\n[ \t]*(?:\n[ \t]*)+\n")
_DENIAL = re.compile(
    r"\b(?:document|passage|information|text|context|source)s?\b[^.!?\n]{0,60}"
    r"(?:\b(?:not|cannot|no)|n't)\b[^.!?\n]{0,20}"
    r"\b(?:hold|contain|provide|mention|answer|say|give|include|state|specify|information)"
    r"|\bI (?:do not|don't|cannot|can't) (?:know|answer|find)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """Numbers of the passages that support an answer, best first; `claims` says whether it claims anything."""

    numbers: tuple[int, ...]
    claims: bool


def support(answer: str, *, question: str, passages: Sequence[Passage]) -> Support:
    """Which passages, numbered from 1, hold what the answer says beyond the question."""
    asked = terms(question)
    held = [terms(f"{passage.title}\n{passage.content}") for passage in passages]
    claims, votes = False, [0] * len(held)
    for sentence in sentences(answer):
        said = terms(sentence)
        added = said - asked
        claims = claims or len(added) > 1
        scores = [_shared(said, added, each) for each in held]
        if any(scores):
            votes[scores.index(max(scores))] += max(scores)
    ranking = sorted(range(len(votes)), key=lambda index: -votes[index])
    return Support(numbers=tuple(index + 1 for index in ranking if votes[index])[:_MOST_CITED], claims=claims)


def _shared(said: frozenset[str], added: frozenset[str], held: frozenset[str]) -> int:
    """How many words of a sentence the passage holds; zero where that is no support."""
    confirmed = added & held
    if not confirmed or len(confirmed) < _SHARE * len(added) or len(said & held) < _LEAST_SHARED:
        return 0
    if any(any(map(str.isdigit, term)) for term in added - held):
        return 0
    return len(said & held)


def is_refusal(answer: str, *, refusal: str) -> bool:
    """Whether an answer without citations says, in our words or the model's, that the documents do not hold it."""
    said = answer.strip().casefold()
    if said.startswith(refusal.strip().rstrip(".").casefold()):
        return True
    first = sentences(answer)[:1]
    return bool(first and _DENIAL.search(first[0]))


class Judged(NamedTuple):
    """An answer as it may be told, whether it rests on passages, and the numbers it cites."""

    text: str
    grounded: bool
    cited: frozenset[int]


def apply(policy: GroundingPolicy, text: str, claims: Sequence[Claim], wording: Wording) -> Judged:
    """The answer as an agent of this policy tells it; `claims` are those of the text, in order.

    ANNOTATE changes nothing. DROP leaves out what nothing supports, and ABSTAIN says nothing at all where that is so;
    both cite what supports a claim in place of what does not.
    """
    unsupported = [claim for claim in claims if not claim.supported]
    if policy is GroundingPolicy.ANNOTATE:
        return Judged(text, len(unsupported) < len(claims) or not claims, _cited(text))
    if unsupported and (policy is GroundingPolicy.ABSTAIN or len(unsupported) == len(claims)):
        return Judged(wording.refusal, grounded=False, cited=frozenset())
    pieces: list[str] = []
    end = 0
    for claim in claims:
        between = text[end : claim.start]
        if claim.supported:
            pieces += [between, _told(text[claim.start : claim.end], claim)]
        else:
            pieces.append(between.rstrip(" \t"))
        end = claim.end
    told = _tidy("".join([*pieces, text[end:]]))
    return Judged(told, grounded=not is_refusal(told, refusal=wording.refusal), cited=_cited(told))


def _told(said: str, claim: Claim) -> str:
    """A claim that is supported, with citations that are right."""
    if any(span.cited for span in claim.spans) and not claim.wrong:
        return said
    bare = _CITATIONS.sub("", said)
    numbers = sorted({span.passage for span in claim.spans if span.cited} or {claim.spans[0].passage})
    stop = _STOP.search(bare)
    at = stop.start() if stop else len(bare)
    return f"{bare[:at]} {''.join(f'[{number}]' for number in numbers)}{bare[at:]}"


def _cited(text: str) -> frozenset[int]:
    return frozenset(int(each) for found in _CITATIONS.findall(text) for each in _DIGITS.findall(found))


def _tidy(text: str) -> str:
    """Without what is left of items and lines whose claims are gone."""
    return _HOLLOW.sub("\n\n", _EMPTY_ITEM.sub("", text)).strip()
