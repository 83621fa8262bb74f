"""Passages, made ready to be asked whether they hold what a sentence says."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from loremesh_agent.domain.statements import Statement, statements
from loremesh_agent.domain.terms import terms

# What says that something is not so: a sentence and what supports it agree on that.
_NEGATION = re.compile(
    r"\b(?:not|never|cannot|neither|nor|without|nicht|kein\w*|niemals|jamais|nunca|não|нет|не)\b|n['’]t\b"
    r"|\bno\b(?!\.)|\bn['’e] ?\w+ pas\b|ไม่|มิได้|[不没無]|ない|ません",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d+(?:[.,\u202f\u00a0' ]\d{3})+(?:[.,]\d+)?|\d+(?:[.,]\d+)?")
_SEPARATOR = re.compile(r"[.,]")
_GROUPS = re.compile(r"[.,\u202f\u00a0' ](?=\d{3}(?:\D|\Z))")
_SPELLED = {
    term: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
    for term in terms(word)
}
_QUOTED = re.compile(r"[\"“”„]([^\"“”„\n]{4,200})[\"“”]|«([^»\n]{4,200})»|「([^」\n]{2,200})」|『([^』\n]{2,200})』")
_WORD_WITHIN = re.compile(r"(?<=[\w,;:'’”)] )[^\W\d_][\w’'-]+|\b[A-Z]{2,}[0-9]*\b")
# German writes every noun with a capital.
_GERMAN = re.compile(r"\b(?:der|das|und|ist|eine?|nicht|mit|dem|werden|wurde)\b")
_LONGEST_WINDOW = 3
# Of a passage, looked at closely.
_MOST_PLACES = 4


def numbers(text: str) -> list[frozenset[str]]:
    """The numbers of a text, each as the ways it may be read: `1.128` is one number in Rome and another in London."""
    if not text.isascii():
        text = "".join(
            str(unicodedata.digit(each)) if each.isdigit() else each for each in unicodedata.normalize("NFKC", text)
        )
    return [_readings(each) for each in _NUMBER.findall(text)]


def _readings(number: str) -> frozenset[str]:
    if number.isdigit():
        return frozenset((number,))
    whole = _GROUPS.sub("", number).replace(",", ".")
    one_separator = len(_SEPARATOR.findall(number)) == 1
    readings = (whole, number.replace(",", ".")) if one_separator else (whole,)
    return frozenset(each.rstrip("0").rstrip(".") if "." in each else each for each in readings)


def quotes(text: str) -> list[str]:
    """What a text says in quotation marks, folded."""
    return [_folded(next(filter(None, found))) for found in _QUOTED.findall(text)]


def names(text: str) -> frozenset[str]:
    """Words that are written as names, as terms; the first of a sentence may be any word."""
    if len(set(_GERMAN.findall(text))) > 1:
        return frozenset()
    return frozenset[str]().union(*(terms(word) for word in _WORD_WITHIN.findall(text) if word[0].isupper()))


def is_negative(text: str) -> bool:
    """Whether the text says that something is not so."""
    return _NEGATION.search(text) is not None


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().strip(" .,;:!?").split())


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of a passage."""

    start: int
    end: int
    terms: frozenset[str]
    numbers: frozenset[str]
    negative: bool


@dataclass(frozen=True, slots=True)
class Window:
    """Sentences of a passage that follow one another, and what they hold."""

    start: int
    end: int
    terms: frozenset[str]
    numbers: frozenset[str]
    # Of each sentence: whether it says that something is not so.
    negative: tuple[bool, ...]


class Evidence:
    """One passage; what its title says is true of every sentence in it."""

    def __init__(self, passage: str, *, title: str = "") -> None:
        self._passage = passage
        self._title = terms(title)
        self.terms = self._title | terms(passage)

    @cached_property
    def _text(self) -> str:
        return _folded(self._passage)

    # Most passages have no part in most claims: they are taken apart when one may.
    @cached_property
    def _sentences(self) -> list[Sentence]:
        return [_sentence(each) for each in statements(self._passage)]

    @cached_property
    def _at(self) -> dict[str, list[int]]:
        places: dict[str, list[int]] = defaultdict(list)
        for index, sentence in enumerate(self._sentences):
            for term in sentence.terms:
                places[term].append(index)
        return places

    def quotes(self, quotation: str) -> bool:
        """Whether the passage says just so, folded."""
        return quotation in self._text

    def windows(self, wanted: Iterable[str]) -> Iterator[Window]:
        """The places where most of the terms stand, each alone and with the sentences behind it."""
        held = Counter(index for term in wanted for index in self._at.get(term, ()))
        for start, _ in held.most_common(_MOST_PLACES):
            for end in range(start + 1, min(start + _LONGEST_WINDOW, len(self._sentences)) + 1):
                if end == start + 1 or end - 1 in held:
                    yield self._window(self._sentences[start:end])

    def _window(self, held: list[Sentence]) -> Window:
        return Window(
            start=held[0].start,
            end=held[-1].end,
            terms=self._title.union(*(each.terms for each in held)),
            numbers=frozenset[str]().union(*(each.numbers for each in held)),
            negative=tuple(each.negative for each in held),
        )


def _sentence(said: Statement) -> Sentence:
    held = terms(said.words)
    spelled = {_SPELLED[each] for each in held & _SPELLED.keys()}
    return Sentence(
        start=said.start,
        end=said.end,
        terms=held,
        numbers=frozenset[str](spelled).union(*numbers(said.words)),
        negative=is_negative(said.words),
    )
