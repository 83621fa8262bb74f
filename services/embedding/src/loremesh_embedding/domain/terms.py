"""Text to index terms: words in scripts that separate them, character bigrams in those that do not."""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterator
from itertools import pairwise

_LONGEST_TERM = 128

# Thai, Lao, Myanmar, Khmer; kana, Han and Hangul: the scripts Lucene's CJK analyser cuts into bigrams, and their like.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U000323af"
)
_RUN = re.compile(f"[{_UNSPACED}]+|[^{_UNSPACED}]+")
_UNSPACED_START = re.compile(f"[{_UNSPACED}]")


class _WordCharacters(dict[int, str | None]):
    """A table for str.translate: letters, marks and numbers stay, joiners vanish, the rest separates."""

    def __missing__(self, code_point: int) -> str | None:
        character = chr(code_point)
        category = unicodedata.category(character)
        if category[0] in "LMN":
            kept: str | None = character
        elif category == "Cf" and character != "\u200b":  # zero width space does separate: Thai and Khmer use it so
            kept = None
        else:
            kept = " "
        self[code_point] = kept
        return kept


_WORD_CHARACTERS = _WordCharacters()


def terms(text: str, *, stem: Callable[[str], str], stop_words: Collection[str] = ()) -> Iterator[str]:
    """The text's terms in order, repeated ones included; case, width and compatibility forms are folded."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    for word in folded.translate(_WORD_CHARACTERS).split():
        if word in stop_words:
            continue
        if word.isascii():
            yield stem(word[:_LONGEST_TERM])
            continue
        for run in _RUN.findall(word):
            if _UNSPACED_START.match(run):
                yield from _bigrams(run)
            else:
                yield stem(run[:_LONGEST_TERM])


def _bigrams(run: str) -> Iterator[str]:
    """Overlapping pairs of characters, a character being a letter with its marks; a lone one stands for itself."""
    characters: list[str] = []
    for character in run:
        if characters and unicodedata.category(character)[0] == "M":
            characters[-1] += character
        else:
            characters.append(character)
    if len(characters) == 1:
        yield characters[0]
    for first, second in pairwise(characters):
        yield first + second
