"""Regular expressions of strangers, matched in time linear in the text: no back-tracking, so nothing to explode.

Understood are literals, classes, `.`, groups, alternatives, anchors and counts, with the meaning they have in JSON
Schema (ECMA-262) and Python alike; what needs memory or looking around (back-references, word boundaries, lookaheads)
is refused.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

_MAX_LENGTH = 500
_MAX_DEPTH = 20
_MAX_STATES = 2000
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]")
_ESCAPE = re.compile(r"\\(?:[dDwWsSnrtfv]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[^0-9A-Za-z])")
_COUNT = re.compile(r"\{(\d{1,4})(?:(,)(\d{0,4}))?\}")
_UNSUPPORTED_IN_CLASS = re.compile(r"\\[1-9pPbBk]|\[:|--|&&|\|\||~~")

_Matches = Callable[[str], bool]


class PatternRefused(ValueError):
    """It is no regular expression, too large a one, or one that cannot be matched in linear time."""


@dataclass(slots=True)
class _State:
    """Either tests a character and goes on to `to[0]`, or goes on to all of `to` at once."""

    test: _Matches | None = None
    # "^" or "$": passable at the text's beginning or end only.
    anchor: str = ""
    to: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of the automaton, entered at one state and left from another."""

    first: int
    last: int


class Pattern:
    """A compiled pattern; raises PatternRefused."""

    def __init__(self, source: str) -> None:
        """Compile."""
        if len(source) > _MAX_LENGTH:
            raise PatternRefused(f"a pattern has at most {_MAX_LENGTH} characters")
        compiler = _Compiler(source)
        part = compiler.whole()
        self._states, self._start, self._end = compiler.states, part.first, part.last

    def found_in(self, text: str) -> bool:
        """Whether any piece of the text matches."""
        now: set[int] = set()
        for at in range(len(text) + 1):
            now.add(self._start)
            now = self._closure(now, begins=at == 0, ends=at == len(text))
            if self._end in now:
                return True
            if at < len(text):
                now = {self._states[each].to[0] for each in now if self._tests(each, text[at])}
        return False

    def _tests(self, state: int, character: str) -> bool:
        test = self._states[state].test
        return test is not None and test(character)

    def _closure(self, states: set[int], *, begins: bool, ends: bool) -> set[int]:
        reached, waiting = set(states), list(states)
        while waiting:
            state = self._states[waiting.pop()]
            if state.test or (state.anchor == "^" and not begins) or (state.anchor == "$" and not ends):
                continue
            fresh = [each for each in state.to if each not in reached]
            reached.update(fresh)
            waiting.extend(fresh)
        return reached


@lru_cache(maxsize=256)
def compiled(source: str) -> Pattern:
    """The pattern; raises PatternRefused."""
    return Pattern(source)


class _Compiler:
    """Reads a pattern into an automaton (Thompson's construction)."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0
        self._depth = 0
        self.states: list[_State] = []

    def whole(self) -> _Part:
        """The automaton of all of it."""
        part = self._alternatives()
        if self._at < len(self._source):
            raise PatternRefused("a parenthesis is closed that was not opened")
        return part

    def _state(self, test: _Matches | None = None, anchor: str = "") -> int:
        if len(self.states) >= _MAX_STATES:
            raise PatternRefused("a pattern counts too far")
        self.states.append(_State(test=test, anchor=anchor))
        return len(self.states) - 1

    def _link(self, before: int, after: int) -> None:
        self.states[before].to.append(after)

    def _peek(self) -> str:
        return self._source[self._at] if self._at < len(self._source) else ""

    def _alternatives(self) -> _Part:
        parts = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            parts.append(self._sequence())
        first, last = self._state(), self._state()
        for part in parts:
            self._link(first, part.first)
            self._link(part.last, last)
        return _Part(first, last)

    def _sequence(self) -> _Part:
        start = end = self._state()
        while self._peek() not in ("", "|", ")"):
            part = self._counted()
            self._link(end, part.first)
            end = part.last
        return _Part(start, end)

    def _counted(self) -> _Part:
        begin = self._at
        part = self._atom()
        resume, count = self._at, self._count()
        if count is None:
            return part
        least, most = count
        after = self._at
        parts = [part]
        for _ in range(max(least, most or 1) - 1):
            # What is repeated is read again: parts of an automaton cannot be used twice.
            self._at = begin
            parts.append(self._atom())
            if self._at != resume:
                raise PatternRefused("a pattern cannot be read")
        self._at = after
        return self._repeated(parts, least, most)

    def _repeated(self, parts: list[_Part], least: int, most: int | None) -> _Part:
        first, last = self._state(), self._state()
        at = first
        for index, part in enumerate(parts if most != 0 else []):
            if index >= least:
                self._link(at, last)
            self._link(at, part.first)
            at = self._state()
            self._link(part.last, at)
        self._link(at, last)
        if most is None:
            self._link(at, parts[-1].first)
        return _Part(first, last)

    def _count(self) -> tuple[int, int | None] | None:
        counts = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        count: tuple[int, int | None] | None = counts.get(self._peek())
        if count:
            self._at += 1
        elif match := _COUNT.match(self._source, self._at):
            least, comma, most = match.groups()
            self._at = match.end()
            count = int(least), (int(most) if most else None) if comma else int(least)
            if count[1] is not None and count[1] < count[0]:
                raise PatternRefused("a pattern counts backwards")
        # Lazy or not, the same texts match.
        if count and self._peek() == "?":
            self._at += 1
        if count and (self._peek() in ("*", "+") or _COUNT.match(self._source, self._at)):
            raise PatternRefused("a pattern counts what is counted already")
        return count

    def _atom(self) -> _Part:
        character = self._peek()
        if character == "(":
            return self._group()
        if character in ("^", "$"):
            self._at += 1
            state = self._state(anchor=character)
            return _Part(state, state)
        first, last = self._state(self._test(character)), self._state()
        self._link(first, last)
        return _Part(first, last)

    def _group(self) -> _Part:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise PatternRefused("a pattern nests too deep")
        if self._source.startswith("(?:", self._at):
            self._at += 3
        elif self._source.startswith("(?", self._at):
            raise PatternRefused("a pattern uses (?...), which is not supported")
        else:
            self._at += 1
        part = self._alternatives()
        if self._peek() != ")":
            raise PatternRefused("a parenthesis is not closed")
        self._at += 1
        self._depth -= 1
        return part

    def _test(self, character: str) -> _Matches:
        if character in ("*", "+", "?"):
            raise PatternRefused("a pattern counts nothing")
        if character not in (".", "[", "\\"):
            self._at += 1
            return character.__eq__
        if character == ".":
            self._at += 1
            return lambda each: each not in "\n\r\u2028\u2029"
        match = (_CLASS if character == "[" else _ESCAPE).match(self._source, self._at)
        if match is None or (character == "[" and _UNSUPPORTED_IN_CLASS.search(match.group())):
            raise PatternRefused(f"a pattern uses {self._source[self._at : self._at + 2]!r}, which is not supported")
        self._at = match.end()
        return _one_of(match.group())


def _one_of(source: str) -> _Matches:
    try:
        # One character against one class: nothing to go back to.
        of_one = re.compile(source, re.ASCII)
    except re.error:
        raise PatternRefused("a class of characters cannot be read") from None
    return lambda character: of_one.fullmatch(character) is not None
