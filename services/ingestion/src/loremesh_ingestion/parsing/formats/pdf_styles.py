"""Which lines of a PDF are headings: the ones set larger than the running text."""

from collections import Counter
from collections.abc import Iterable

from loremesh_ingestion.parsing.formats.pdf_page import Line, Table

_LARGER = 1.15  # times the running text
_LEVELS = 4
_LONGEST = 200  # characters of a heading


class Styles:
    """The sizes of a document's letters: the commonest is its running text, larger ones are its headings."""

    def __init__(self, lines: Iterable[Line]) -> None:
        characters: Counter[float] = Counter()
        for line in lines:
            characters[line.size] += len(line.text)
        self._body = characters.most_common(1)[0][0] if characters else 0.0
        larger = sorted((size for size in characters if size >= self._body * _LARGER), reverse=True)
        self._levels = {size: min(level, _LEVELS) for level, size in enumerate(larger, start=1)}

    def level(self, item: Line | Table) -> int:
        """Return the level of a heading (1 is the largest), 0 for running text and tables."""
        if isinstance(item, Table) or len(item.text) > _LONGEST or not any(map(str.isalpha, item.text)):
            return 0
        return self._levels.get(item.size, 0)

    def title(self, items: Iterable[Line | Table]) -> str:
        """Return the first line set in the largest letters, empty when nothing stands out."""
        return next((item.text for item in items if isinstance(item, Line) and self.level(item) == 1), "")
