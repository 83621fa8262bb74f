"""Text as documents give it, made safe to store and to cut."""

import re
import unicodedata

from loremesh_kit import text as kit_text

# What str.splitlines knows as a line's end, but for the two that are spaces in every sense (U+2028, U+2029):
# tokenizers drop the control characters among them and would join the words on both sides.
_LINE_ENDS = re.compile("\r\n|[\r\v\f\x1c-\x1e\x85]")
_VOID = re.compile(r"\s{500,}")  # it means nothing, holds no token, and would swell chunks without end
_EXTENDING = frozenset({"Mn", "Mc", "Me"})
_ZERO_WIDTH_JOINER = "\u200d"
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_REGIONAL_INDICATORS = range(0x1F1E6, 0x1F200)


def clean(text: str) -> str:
    """Drop NULs and lone surrogates, end every line with a line feed, shorten vast white space; normalise nothing."""
    return _VOID.sub(_shortened, _LINE_ENDS.sub("\n", kit_text.clean(text)))


def _shortened(void: re.Match[str]) -> str:
    return "\n\n" if "\n" in void[0] else " "


def trim(text: str, start: int, end: int) -> tuple[int, int]:
    """Return `start` and `end` (code points) without the white space at both ends; equal when all is blank."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def is_boundary(text: str, index: int) -> bool:
    """Whether cutting before `index` (0 < index < len) leaves every character a reader sees whole.

    A short form of the grapheme rules of UAX #29: combining marks, joined emoji, skin tones and flags.
    """
    here, before = text[index], text[index - 1]
    if here.isascii() and before.isascii():
        return not (before == "\r" and here == "\n")
    if _ZERO_WIDTH_JOINER in (here, before) or unicodedata.category(here) in _EXTENDING or ord(here) in _SKIN_TONES:
        return False
    if ord(here) in _REGIONAL_INDICATORS and ord(before) in _REGIONAL_INDICATORS:
        return _flags_before(text, index) % 2 == 0
    return True


def _flags_before(text: str, index: int) -> int:
    first = index
    while first > 0 and ord(text[first - 1]) in _REGIONAL_INDICATORS:
        first -= 1
    return index - first
