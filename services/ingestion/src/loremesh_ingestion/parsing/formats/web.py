"""HTML: the main content without menus and footers, or all of the text where there is no telling."""

import re
from dataclasses import replace

from lxml import etree  # type: ignore[import-untyped]
from lxml.html import Element, HtmlElement, HTMLParser, document_fromstring  # type: ignore[import-untyped]

from loremesh_ingestion.domain.parsed import BlockKind, ParsedDocument
from loremesh_ingestion.errors import DocumentEmpty, ParseLimit
from loremesh_ingestion.parsing.builder import DocumentBuilder
from loremesh_ingestion.parsing.media_types import Format
from loremesh_ingestion.parsing.tables import markdown_table

_SHORT = 1000  # characters; a page with less has no boilerplate worth telling apart
_ENOUGH = 0.25  # of the page's text; when less is found, more than menus was lost
_DECLARATION = re.compile(r"\A\s*<\?xml[^>]*\?>")
_SKIPPED = frozenset({"script", "style", "noscript", "template", "svg", "nav", "head", "iframe", "object"})
_BLOCKS = frozenset(
    """address article aside blockquote body caption dd details div dl dt fieldset figcaption figure footer form
    h1 h2 h3 h4 h5 h6 header li main ol p pre section summary table ul""".split(),  # noqa: SIM905 - a list of words
)
_SPACING = frozenset({"br", "hr", "td", "th", "img"})
_HEADING = re.compile(r"h[1-6]\Z")


def read(text: str, kind: Format) -> ParsedDocument:
    """Return a page's main content; raises DocumentEmpty when it shows no text, and ParseLimit."""
    root = _parse(text)
    title = _title(root)
    whole = _Reading(root).read(kind)
    if len(whole.text) < _SHORT:
        return replace(whole, title=title)
    main = _Reading(_parse(_main_content(root))).read(kind)
    return replace(main if len(main.text) >= _ENOUGH * len(whole.text) else whole, title=title)


def _parse(text: str) -> HtmlElement:
    # In UTF-8, because a string whose declaration names another encoding would be refused.
    parser = HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True)
    try:
        root = document_fromstring(_DECLARATION.sub("", text).encode(), parser=parser)
    except etree.ParserError as error:
        raise DocumentEmpty from error
    if any(error.type == etree.ErrorTypes.ERR_RESOURCE_LIMIT for error in parser.error_log.filter_from_fatals()):
        limit = "depth"  # the parser left out all that follows
        raise ParseLimit(limit)
    return root


def _main_content(root: HtmlElement) -> str:
    """Return the main content as HTML; `root` is changed and of no use afterwards."""
    import trafilatura  # 0.7 s

    for block in root.iter("pre"):
        if block.find(".//code") is None:  # it would be taken for a quotation
            block.tag = "code"
            block.addprevious(wrapper := Element("pre"))
            wrapper.append(block)
    found = trafilatura.extract(root, output_format="html", include_comments=False, favor_recall=True)
    return found or "<p></p>"


def _title(root: HtmlElement) -> str:
    for path in (".//title", ".//h1"):
        title = " ".join("".join(node.text_content() for node in root.xpath(path)[:1]).split())
        if title:
            return title
    return ""


class _Reading:
    """Walks a page from top to bottom, without recursion, and keeps all it shows."""

    def __init__(self, root: HtmlElement) -> None:
        self._walk = etree.iterwalk(root, events=("start", "end"))
        self._builder = DocumentBuilder()
        self._inline: list[str] = []

    def read(self, kind: Format) -> ParsedDocument:
        for event, element in self._walk:
            tag = str(element.tag)
            if event == "start":
                self._enter(element, tag)
            else:
                self._flush(tag, ended=True)
                self._inline.append(element.tail or "")
        self._flush("body", ended=True)
        return self._builder.build(media_type=kind.media_type)

    def _enter(self, element: HtmlElement, tag: str) -> None:
        self._flush(tag, ended=False)
        if tag in _SKIPPED:
            self._walk.skip_subtree()
        elif tag == "table" and not element.findall(".//table"):
            rows = ([cell.text_content() for cell in row.xpath("./td|./th")] for row in element.iter("tr"))
            self._builder.add(BlockKind.TABLE, markdown_table(rows))
            self._walk.skip_subtree()
        elif tag == "pre":
            code = (element.findall(".//pre") or [element])[0].text_content()
            self._builder.add(BlockKind.CODE, f"```\n{code.strip(chr(10)).rstrip()}\n```" if code.strip() else "")
            self._walk.skip_subtree()
        else:
            self._inline += (" " if tag in _SPACING else "", element.text or "")

    def _flush(self, tag: str, *, ended: bool) -> None:
        """Make a block of the text so far when `tag` begins or ends one; only its end tells of which kind."""
        if tag not in _BLOCKS:
            return
        text = " ".join("".join(self._inline).split())
        self._inline.clear()
        if ended and _HEADING.match(tag):
            self._builder.heading(text, level=int(tag[1]))
        elif ended and tag == "li" and text:
            self._builder.add(BlockKind.LIST, f"- {text}")
        else:
            self._builder.add(BlockKind.PARAGRAPH, text)
