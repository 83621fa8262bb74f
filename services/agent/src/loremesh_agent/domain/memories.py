"""Memories: which are the same, which contradict each other, which stand, and which fit a question best."""

import hashlib
import json
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from operator import mul

from loremesh_agent.domain.terms import terms

LONGEST_CONTENT = 4000
LONGEST_NAME = 200
# What a sentence may end in without saying anything else.
_ENDINGS = " .!。！…।"
# Principals that stand for no user: callers whom the gateway does not know, and work of our own.
_NOBODY = frozenset({"", "anonymous"})
_SHARE_OF_MEANING = 0.6
_WEIGHT_OF_CONFIDENCE = 0.3


class Kind(StrEnum):
    """What sort of thing is remembered."""

    # Of one conversation: forgotten with it.
    SHORT_TERM = "SHORT_TERM"
    LONG_TERM = "LONG_TERM"
    ENTITY = "ENTITY"
    EPISODIC = "EPISODIC"


class Standing(StrEnum):
    """Whether a memory can be recalled, and where not, why."""

    VALID = "valid"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    NOT_YET_VALID = "not yet valid"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMemory:
    """What is to be remembered, checked; `valid_from` None means from now on, `valid_until` None without end."""

    content: str
    kind: Kind = Kind.LONG_TERM
    user_id: str = ""
    agent_id: str = ""
    conversation_id: str = ""
    subject: str = ""
    attribute: str = ""
    confidence: float = 1.0
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    run_id: str = ""
    message_id: str = ""
    seq: int = 0

    @property
    def digest(self) -> bytes:
        """The same for everything that says the same."""
        return _digest(self.subject, self.attribute, self.content)

    @property
    def topic(self) -> bytes | None:
        """The same for everything that can contradict it; None where facts add up."""
        named = normalised(self.subject) and normalised(self.attribute)
        return _digest(self.subject, self.attribute) if named else None

    @property
    def terms(self) -> frozenset[str]:
        """The words it is found by."""
        return terms(self.text)

    @property
    def text(self) -> str:
        """All that it says."""
        return whole_text(self.subject, self.attribute, self.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Something remembered."""

    id: str
    kind: Kind
    user_id: str
    agent_id: str
    conversation_id: str
    content: str
    subject: str
    attribute: str
    confidence: float
    valid_from: datetime
    valid_until: datetime | None
    run_id: str
    message_id: str
    seq: int
    create_time: datetime
    # The memory whose place it took; empty for none.
    supersedes: str = ""
    # The memory that took its place; empty while it stands.
    superseded_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """Where a memory comes from, and what became of it."""

    memory: Memory
    # Of the message it was taken from; empty where there is none, or no more.
    source_text: str
    # Newest first.
    superseded: Sequence[Memory]
    superseded_by: Memory | None
    standing: Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What was forgotten: counts by store, and when the last store was purged, None before."""

    id: str
    memories: int
    stores: dict[str, int]
    create_time: datetime
    finish_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A memory that may fit, its words, and the cosine between it and the query, None where nobody knows."""

    memory: Memory
    terms: Collection[str]
    similarity: float | None = None


@dataclass(frozen=True, slots=True)
class Ranked:
    """A memory and how well it fits, 0 to 1."""

    memory: Memory
    score: float


def normalised(text: str) -> str:
    """The text without what makes no difference: case, spaces, forms of characters, the end of a sentence."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split()).rstrip(_ENDINGS)


def same(one: str, other: str) -> bool:
    """Whether two texts state the same: equal when normalised, or in the same words."""
    return normalised(one) == normalised(other) or bool(terms(one) and terms(one) == terms(other))


def whole_text(subject: str, attribute: str, content: str) -> str:
    """What a memory is found by: content, with what it is about."""
    about = " ".join(part for part in (subject, attribute) if part)
    return f"{about}: {content}" if about else content


def user_of(principal: str) -> str:
    """The user a caller is; empty for callers who are none in particular."""
    return "" if principal in _NOBODY else principal


def looking_as(principal: str) -> str | None:
    """The user whose memories a caller sees beside those of no user; None for work of our own, which sees all.

    Whom the gateway does not know is not trusted to be somebody, whatever scope is named.
    """
    return user_of(principal) if principal else None


def standing(memory: Memory, *, now: datetime) -> Standing:
    """Whether it can be recalled at an instant."""
    if memory.superseded_by:
        return Standing.SUPERSEDED
    if memory.valid_until is not None and memory.valid_until <= now:
        return Standing.EXPIRED
    return Standing.VALID if memory.valid_from <= now else Standing.NOT_YET_VALID


def rank(query: str, candidates: Iterable[Candidate], *, top_k: int, floor: float) -> list[Ranked]:
    """The best candidates, best first, the newer of equals before the older.

    The score is made of the cosine and of the share of the query's words, and lessened by doubt. Left out is what has
    none of the words and a cosine below `floor`.
    """
    asked = terms(query)
    found = [Ranked(each.memory, _score(asked, each)) for each in candidates if _fits(asked, each, floor)]
    found.sort(key=lambda each: (each.memory.create_time, each.memory.id), reverse=True)
    found.sort(key=lambda each: -each.score)
    return found[:top_k]


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Of two vectors of unit length and the same dimension."""
    return max(-1.0, min(1.0, float(sum(map(mul, one, other)))))


def _fits(asked: frozenset[str], candidate: Candidate, floor: float) -> bool:
    near = candidate.similarity is not None and candidate.similarity >= floor
    return near or not asked.isdisjoint(candidate.terms)


def _score(asked: frozenset[str], candidate: Candidate) -> float:
    words = len(asked.intersection(candidate.terms)) / len(asked) if asked else 0.0
    fit = words
    if candidate.similarity is not None:
        fit = _SHARE_OF_MEANING * max(0.0, candidate.similarity) + (1 - _SHARE_OF_MEANING) * words
    return fit * (1 - _WEIGHT_OF_CONFIDENCE * (1 - candidate.memory.confidence))


def _digest(*parts: str) -> bytes:
    return hashlib.sha256(json.dumps([normalised(part) for part in parts]).encode()).digest()
