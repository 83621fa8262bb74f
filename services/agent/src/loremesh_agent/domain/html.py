"""The text of a web page, in time linear in its length whatever is in it."""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

# Their content is no HTML: it ends only with their own closing tag.
_RAW = frozenset({"script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes"})
_SKIPPED = frozenset(
    {"script", "style", "noscript", "template", "svg", "math", "iframe", "noembed", "noframes", "object", "canvas"}
    | {"nav", "footer", "aside", "form", "button", "select", "textarea", "dialog"}
)
_BLOCKS = frozenset(
    {"address", "article", "blockquote", "body", "br", "caption", "dd", "details", "div", "dl", "dt", "figcaption"}
    | {"figure", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "ol", "p", "pre", "section"}
    | {"summary", "table", "tbody", "tfoot", "thead", "tr", "ul"}
)
_CELLS = frozenset({"td", "th"})
# Any other "<" is one.
_MARKUP = re.compile(r"<[a-zA-Z/!?]")
_NAME = re.compile(r"</?([a-zA-Z][a-zA-Z0-9:-]{0,40})")
_END_OR_QUOTE = re.compile(r"[>\"']")
# Python's reader of numbers refuses those which are too long.
_LONG_NUMBER = re.compile(r"&#(?:[0-9]{8,}|[xX][0-9a-fA-F]{7,});?")
_BLANKS = re.compile(r"[ \t\r\f\v\u00a0]+")


@dataclass(frozen=True, slots=True)
class Readable:
    """A page as it reads."""

    title: str
    text: str


def readable(source: str) -> Readable:
    """Title and text of a page, navigation, scripts and forms left out."""
    reader = _Reader(source)
    lines = (_BLANKS.sub(" ", line).strip() for line in "".join(reader.pieces()).split("\n"))
    return Readable(title=" ".join(reader.title.split()), text="\n".join(line for line in lines if line))


@dataclass(slots=True)
class _Reader:
    """Goes through a page once."""

    source: str
    title: str = ""
    _at: int = 0
    # Names of open elements which are left out, innermost last.
    _skipping: list[str] = field(default_factory=list)
    # Quotes that are not closed any more.
    _unclosed: set[str] = field(default_factory=set)

    def pieces(self) -> Iterator[str]:
        """Text and line breaks."""
        lower = self.source.lower()
        # A letter whose lower case is two characters would put the two out of step.
        lower = lower if len(lower) == len(self.source) else self.source
        while self._at < len(self.source):
            found = _MARKUP.search(self.source, self._at)
            begin = found.start() if found else len(self.source)
            if begin > self._at and not self._skipping:
                yield _plain(self.source[self._at : begin]).replace("\n", " ")
            self._at = begin
            yield from self._markup(lower)

    def _markup(self, lower: str) -> Iterator[str]:
        source, at = self.source, self._at
        if at == len(source):
            return
        if source.startswith("<!--", at):
            self._at = self._behind("-->", at + 4)
        elif match := _NAME.match(source, at):
            self._at = self._tag_end(match.end())
            yield from self._tag(match.group(1).lower(), closes=source[at + 1] == "/", lower=lower)
        else:
            self._at = self._behind(">", at)

    def _tag(self, name: str, *, closes: bool, lower: str) -> Iterator[str]:
        if closes:
            if name in self._skipping:
                del self._skipping[self._skipping.index(name) :]
        elif name in _RAW:
            end = lower.find(f"</{name}", self._at)
            end = len(self.source) if end < 0 else end
            if name == "title" and not self.title:
                self.title = _plain(self.source[self._at : end])[:500]
            self._at = end
        elif name in _SKIPPED and len(self._skipping) < 100:  # noqa: PLR2004 - nobody nests so deep
            self._skipping.append(name)
        if not self._skipping and name in _BLOCKS:
            yield "\n"
        elif not self._skipping and name in _CELLS:
            yield "  "

    def _behind(self, end: str, start: int) -> int:
        at = self.source.find(end, start)
        return len(self.source) if at < 0 else at + len(end)

    def _tag_end(self, at: int) -> int:
        while match := _END_OR_QUOTE.search(self.source, at):
            quote = match.group()
            at = match.end()
            if quote == ">":
                return at
            if quote in self._unclosed:
                continue
            end = self.source.find(quote, at)
            if end < 0:
                self._unclosed.add(quote)
            else:
                at = end + 1
        return len(self.source)


def _plain(text: str) -> str:
    return html.unescape(_LONG_NUMBER.sub("\ufffd", text)) if "&" in text else text
