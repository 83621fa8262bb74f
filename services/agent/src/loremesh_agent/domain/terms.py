"""A text's words, reduced to what they share with other texts on the same thing."""

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

from py_rust_stemmers import SnowballStemmer  # type: ignore[import-untyped]

_STEMMER = SnowballStemmer("english")

# Scripts that do not separate words: Thai, Lao, Myanmar, Khmer, kana, Han, Hangul.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U000323af"
)
_RUN = re.compile(f"[{_UNSPACED}]+|[^{_UNSPACED}]+")
_UNSPACED_START = re.compile(f"[{_UNSPACED}]")

# Function words and the words of asking: what every question shares with every text.
_FUNCTION_WORDS = """
a about after again all also am an and any are as at be because been before being below between both but by can
could did do does doing done down during each either every few for from further get give given go had has have
having he her here hers him his how however i if in instead into is it its itself just know let like made make
many may me might more most much must my need no nor not of off on once one only or other our out over own per
please rather same say see shall she should show since so some such tell than that the their them then there these
they thing this those through thus to too under until up upon us use used uses using very via was way we were what
when where whether which while who whom whose why will with within without would yes yet you your
"""
_STOP_WORDS = frozenset(_FUNCTION_WORDS.split())


class _WordCharacters(dict[int, str]):
    """A table for str.translate: letters, marks and numbers stay, anything else separates."""

    def __missing__(self, code_point: int) -> str:
        character = chr(code_point)
        self[code_point] = character if unicodedata.category(character)[0] in "LMN" else " "
        return self[code_point]


_WORD_CHARACTERS = _WordCharacters()


def terms(text: str) -> frozenset[str]:
    """The text's content words, folded and stemmed; of scripts without spaces, pairs of characters."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return frozenset(term for word in folded.translate(_WORD_CHARACTERS).split() for term in _terms(word))


def _terms(word: str) -> Iterator[str]:
    if word in _STOP_WORDS:
        return
    for run in _RUN.findall(word):
        if _UNSPACED_START.match(run):
            yield from _pairs(run)
        elif len(run) > 1 or run.isdigit():
            yield _STEMMER.stem_word(run)


def _pairs(run: str) -> Iterator[str]:
    if len(run) == 1:
        yield run
    for first, second in pairwise(run):
        yield first + second
