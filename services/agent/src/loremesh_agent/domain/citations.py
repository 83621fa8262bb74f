"""Citations in text that arrives in pieces: `[n]` stays, whatever stands for no source goes."""

import re
from dataclasses import dataclass, field

# `[3]`, `[1, 2]`; four digits are a year. Bounded, so that what is held back is.
_CITATION = re.compile(r" ?\[ {0,2}([0-9]{1,3}(?: {0,2}, {0,2}[0-9]{1,3}){0,15}) {0,2}\]")
# What may still become one.
_UNDECIDED = re.compile(r" ?\[ {0,2}(?:[0-9]{1,3} {0,2}, {0,2}){0,15}(?:[0-9]{1,3} {0,2})?\Z| \Z")
# One pass over what is decided: code's backticks and line ends change what a bracket means.
_TOKEN = re.compile(r"`+|\n|" + _CITATION.pattern)


@dataclass(slots=True, kw_only=True)
class CitationFilter:
    """Passes an answer's text on as it comes, holding back only what may be the beginning of a citation.

    What it gives does not depend on where the text was cut into pieces. Several numbers in one bracket become one
    bracket each. Inside code, brackets are code.
    """

    sources: int
    cited: set[int] = field(default_factory=set)
    _held: str = ""
    # Backticks that opened the code we are in; zero outside.
    _fence: int = 0

    @property
    def in_code(self) -> bool:
        """Whether the text so far ends inside a block of code."""
        return self._fence > 0

    def feed(self, piece: str) -> str:
        """The text that is decided by now."""
        text = self._held + piece
        undecided = self._undecided_from(text)
        self._held = text[undecided:]
        return self._pass(text[:undecided])

    def finish(self) -> str:
        """The rest: nothing more comes."""
        rest, self._held = self._held, ""
        return self._pass(rest)

    def _undecided_from(self, text: str) -> int:
        if text.endswith("`"):
            # How many there are says whether they open or close.
            return len(text.rstrip("`"))
        undecided = _UNDECIDED.search(text)
        return undecided.start() if undecided else len(text)

    def _pass(self, text: str) -> str:
        return _TOKEN.sub(self._replace, text)

    def _replace(self, token: re.Match[str]) -> str:
        text = token[0]
        if text[0] == "`":
            self._count_backticks(len(text))
        elif text == "\n":
            # Code inside a line ends with it, closed or not.
            self._fence = self._fence if self._fence >= len("```") else 0
        elif not self.in_code:
            return self._resolve(text, token[1])
        return text

    def _count_backticks(self, count: int) -> None:
        if not self._fence:
            self._fence = count
        elif count == self._fence or (self._fence >= len("```") and count > self._fence):
            self._fence = 0

    def _resolve(self, text: str, numbers: str) -> str:
        known = [number for each in numbers.split(",") if 1 <= (number := int(each)) <= self.sources]
        self.cited.update(known)
        brackets = "".join(f"[{number}]" for number in dict.fromkeys(known))
        return f" {brackets}" if brackets and text[0] == " " else brackets
