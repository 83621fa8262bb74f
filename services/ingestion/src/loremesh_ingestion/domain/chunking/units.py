"""Stretches of text that stay whole, and the division of those too long for one chunk."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from loremesh_ingestion.domain.chunking.sentences import sentences
from loremesh_ingestion.domain.chunking.tokens import TokenMap
from loremesh_ingestion.domain.text import is_boundary, trim


@dataclass(frozen=True, slots=True)
class Unit:
    """A trimmed stretch of text (code points), its tokens, and the headings it stands under."""

    start: int
    end: int
    tokens: int
    path: tuple[str, ...] = ()


Divide = Callable[[str, int, int], Iterator[tuple[int, int]]]

_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_LINE_END = re.compile(r"\n")
_BREAKS = " \n\t\u3000\u2009，、；：,;"  # a window may end after any of these
_LONGEST_CHARACTER = 64  # code points; what claims to be one character beyond that is cut like anything else


def lines(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the lines of `text[start:end]` that are not blank, trimmed."""
    return _between(_LINE_END, text, start, end)


def paragraphs(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield what blank lines separate in `text[start:end]`, trimmed."""
    return _between(_BLANK_LINE, text, start, end)


PROSE: Sequence[Divide] = (paragraphs, sentences, lines)
LINES: Sequence[Divide] = (paragraphs, lines)


def _between(separator: re.Pattern[str], text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    begin = start
    for match in separator.finditer(text, start, end):
        yield from _trimmed(text, begin, match.start())
        begin = match.end()
    yield from _trimmed(text, begin, end)


def _trimmed(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    start, end = trim(text, start, end)
    if start < end:
        yield start, end


def divide(
    tokens: TokenMap, start: int, end: int, *, limit: int, by: Sequence[Divide], path: tuple[str, ...] = ()
) -> Iterator[Unit]:
    """Yield `[start, end)` whole if it has at most `limit` tokens, else its parts, divided by what comes next in `by`.

    What cannot be divided any more is cut into windows of `limit` tokens. Only white space is left out.
    """
    start, end = trim(tokens.text, start, end)
    size = tokens.estimate(start, end)
    if size <= limit:
        if start < end:
            yield Unit(start, end, size, path)
    elif by:
        for part_start, part_end in by[0](tokens.text, start, end):
            yield from divide(tokens, part_start, part_end, limit=limit, by=by[1:], path=path)
    else:
        for part_start, part_end in windows(tokens, start, end, limit=limit):
            yield Unit(part_start, part_end, tokens.estimate(part_start, part_end), path)


def windows(
    tokens: TokenMap, start: int, end: int, *, limit: int, overlap: int = 0, fresh: int = 0
) -> Iterator[tuple[int, int]]:
    """Yield trimmed spans of at most `limit` tokens, each repeating up to `overlap` tokens of the one before.

    Every span reaches further than the one before, the first further than `fresh`.
    """
    text = tokens.text
    start, end = trim(text, start, end)
    fresh = max(fresh, start)
    while fresh < end:
        fresh, _ = trim(text, fresh, end)
        start, stop = _window(tokens, start, fresh, end, limit)
        yield trim(text, start, stop)
        fresh = stop
        start = _word_start(text, max(start + 1, tokens.before(stop, overlap)), stop) if overlap else stop


def _window(tokens: TokenMap, start: int, fresh: int, end: int, limit: int) -> tuple[int, int]:
    """Return a window from `start` to beyond `fresh`; cutting through a word may make more tokens of it, so it shrinks.

    Where what is repeated leaves no room for anything new, nothing is repeated.
    """
    room = limit
    while True:
        furthest = min(end, tokens.after(start, room))
        if furthest <= fresh and start < fresh:
            start, room = fresh, limit
            continue
        stop = cut(tokens.text, fresh, furthest, end)
        surplus = tokens.count(*trim(tokens.text, start, stop)) - limit
        if surplus <= 0 or room <= 1:
            return start, stop
        room = max(1, room - surplus)


def cut(text: str, start: int, stop: int, end: int) -> int:
    """Return the best place to end a window that may reach from `start` to `stop`: after white space, or a character.

    At most half of the window is given up; the result is greater than `start`.
    """
    stop = max(stop, start + 1)
    if stop >= end or text[stop].isspace():
        return stop
    middle = start + (stop - start) // 2
    tail = text[middle:stop]
    found = max(tail.rfind(mark) for mark in _BREAKS)
    if found >= 0:
        return middle + found + 1
    for shorter in range(stop, max(start, stop - _LONGEST_CHARACTER), -1):
        if is_boundary(text, shorter):
            return shorter
    return stop


def _word_start(text: str, start: int, stop: int) -> int:
    """Return the first word's start at or after `start`, or `start` itself when no word starts before `stop`."""
    if start == 0 or text[start - 1].isspace():
        return start
    for at in range(start, stop):
        if text[at].isspace():
            return at + 1
    while start < stop and not is_boundary(text, start):
        start += 1
    return start
