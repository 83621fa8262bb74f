"""One answer of a model as a block of text, passed on as it comes."""

import re
from collections.abc import Callable

from loremesh_kit.text import clean

from loremesh_agent.domain.citations import CitationFilter
from loremesh_agent.domain.events import CitationResolved, FinishReason, Payload, TextDelta, TextFinish, TextStart

_CITATION = re.compile(r"\[(\d{1,3})\]")


class Block:
    """Text with its citations resolved; with `as_it_is` it is data, in which brackets are brackets."""

    def __init__(
        self, number: int, *, sources: int, as_it_is: bool, tell: Callable[[Payload], None], is_held: bool = False
    ) -> None:
        """`number` counts a run's blocks from 0; `sources` is how many may be cited; `is_held` until its release."""
        self.number = number
        self.as_it_is = as_it_is
        self._citations = None if as_it_is else CitationFilter(sources=sources)
        self._tell = tell
        self._pieces: list[str] = []
        self._held: list[str] | None = [] if is_held else None
        self._length = 0

    @property
    def text(self) -> str:
        """What was told of it so far."""
        return "".join(self._pieces)

    @property
    def is_held(self) -> bool:
        """Whether it is held back."""
        return self._held is not None

    @property
    def held(self) -> str:
        """What is held back of it."""
        return "".join(self._held or [])

    @property
    def cited(self) -> set[int]:
        """Numbers of the sources it cites."""
        return self._citations.cited if self._citations else set()

    def say(self, text: str) -> None:
        """Pass on what came."""
        text = clean(text)
        self._pass(self._citations.feed(text) if self._citations else text)

    def end(self) -> None:
        """Pass on what was held back: nothing more comes."""
        if self._citations:
            self._pass(self._citations.finish())

    def close(self, reason: FinishReason) -> None:
        """Say that it is over, if it ever began."""
        if self._pieces:
            self._tell(TextFinish(reason, self.number))

    def release(self, text: str) -> None:
        """Tell this in place of what was held back."""
        self._held = None
        self._pass(text)

    def add(self, text: str) -> None:
        """Say something of our own."""
        self._pass(text)

    def _pass(self, text: str) -> None:
        if self._held is not None:
            self._held.append(text)
            return
        if not self._pieces:
            text = text.lstrip()
            if text:
                self._tell(TextStart(self.number))
        if not text:
            return
        self._pieces.append(text)
        self._tell(TextDelta(text, self.number))
        if self._citations and not self._citations.in_code:
            for citation in _CITATION.finditer(text):
                self._tell(CitationResolved(int(citation[1]), self.number, self._length + citation.start()))
        self._length += len(text)
