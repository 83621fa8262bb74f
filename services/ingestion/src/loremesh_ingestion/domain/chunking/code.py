"""Cutting source code along its syntax, or along its lines where no grammar knows the language."""

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import groupby

from tree_sitter import Language, Node, Parser

from loremesh_ingestion.domain.chunking.tokens import TokenMap
from loremesh_ingestion.domain.chunking.units import LINES, Unit, divide
from loremesh_ingestion.domain.text import trim

# Language to grammar: the package, and the function in it that gives the language.
GRAMMARS = {
    "c": ("tree_sitter_c", "language"),
    "cpp": ("tree_sitter_cpp", "language"),
    "go": ("tree_sitter_go", "language"),
    "java": ("tree_sitter_java", "language"),
    "javascript": ("tree_sitter_javascript", "language"),
    "python": ("tree_sitter_python", "language"),
    "rust": ("tree_sitter_rust", "language"),
    "tsx": ("tree_sitter_typescript", "language_tsx"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
}
_LARGEST = 1 << 22  # characters; a syntax tree takes some hundred bytes a token, and larger files are data
_DEFINITIONS = frozenset(
    """function_definition class_definition function_declaration generator_function_declaration class_declaration
    abstract_class_declaration method_definition method_declaration constructor_declaration interface_declaration
    enum_declaration record_declaration internal_module type_spec function_item struct_item enum_item trait_item
    impl_item mod_item class_specifier struct_specifier enum_specifier namespace_definition""".split(),  # noqa: SIM905 - a list of words
)
_LEADING = frozenset({"comment", "line_comment", "block_comment", "attribute_item"})  # they belong to what follows
_LONGEST_NAME = 100
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


def parser_for(language: str) -> Parser | None:
    """Return a parser for `language`, None when there is no grammar for it."""
    if language not in GRAMMARS:
        return None
    package, function = GRAMMARS[language]
    return Parser(Language(getattr(import_module(package), function)()))


@dataclass(frozen=True, slots=True)
class _Part:
    """A unit of code; `leads` what follows it, and `home` is the definition that was taken apart to get at it."""

    unit: Unit
    leads: bool = False
    home: int = 0


def sections(language: str | None, tokens: TokenMap, *, limit: int) -> Iterator[list[Unit]]:
    """Yield the code's definitions and statements, whole where they fit; the path names the definitions around them.

    A definition that does not fit is a section by itself, so that no chunk holds its head and somebody else's tail.
    """
    parser = parser_for(language) if language and len(tokens.text) <= _LARGEST else None
    if parser is None:
        yield list(divide(tokens, 0, len(tokens.text), limit=limit, by=LINES))
        return
    parts = _joined(_gapless(_Syntax(parser, tokens, limit).parts(), tokens, limit), tokens, limit)
    for _, section in groupby(parts, key=lambda part: part.home):
        yield [part.unit for part in section]


class _Syntax:
    """The syntax tree of one text, read in code points."""

    def __init__(self, parser: Parser, tokens: TokenMap, limit: int) -> None:
        self._root = parser.parse(tokens.text.encode()).root_node
        self._tokens = tokens
        self._limit = limit
        # Byte offsets of the characters that take more than one byte, and how many bytes too many up to each.
        self._wide: list[int] = []
        self._extra: list[int] = [0]
        for match in _NOT_ASCII.finditer(tokens.text):
            self._wide.append(match.start() + self._extra[-1])
            self._extra.append(self._extra[-1] + len(match[0].encode()) - 1)

    def parts(self) -> Iterator[_Part]:
        """Yield in order what fits; only what does not fit is taken apart."""
        waiting: list[tuple[Node, tuple[str, ...], int]] = [(self._root, (), 0)]
        while waiting:  # no recursion: code may nest deeper than Python does
            node, path, home = waiting.pop()
            start, end = trim(self._tokens.text, self._code_point(node.start_byte), self._code_point(node.end_byte))
            name = _name(node)
            path = (*path, name) if name else path
            if node.child_count and self._tokens.estimate(start, end) > self._limit:
                inner = node.id if name else home
                waiting.extend((child, path, inner) for child in reversed(node.children))
            else:
                for unit in divide(self._tokens, start, end, limit=self._limit, by=LINES, path=path):
                    yield _Part(unit, node.type in _LEADING, home)

    def _code_point(self, byte: int) -> int:
        return byte - self._extra[bisect_left(self._wide, byte)]


def _name(node: Node) -> str:
    if node.type not in _DEFINITIONS:
        return ""
    named = node.child_by_field_name("type" if node.type == "impl_item" else "name")
    while named is None and (inner := node.child_by_field_name("declarator")):  # C: int *name(void)
        node = inner
        named = None if node.child_by_field_name("declarator") else node
    text = named.text if named else None
    return text.decode(errors="replace")[:_LONGEST_NAME] if text else ""


def _gapless(parts: Iterator[_Part], tokens: TokenMap, limit: int) -> Iterator[_Part]:
    """Yield the parts, and whatever text the syntax tree has left out between them."""
    done = 0
    for part in parts:
        yield from map(_Part, divide(tokens, done, part.unit.start, limit=limit, by=LINES))
        yield part
        done = part.unit.end
    yield from map(_Part, divide(tokens, done, len(tokens.text), limit=limit, by=LINES))


def _joined(parts: Iterator[_Part], tokens: TokenMap, limit: int) -> Iterator[_Part]:
    """Join what stands on one line, and a comment with the line below it, as long as the whole fits."""
    held: _Part | None = None
    for part in parts:
        if held is None:
            held = part
            continue
        start, end = held.unit.start, part.unit.end
        size = tokens.estimate(start, end)
        breaks = tokens.text.count("\n", held.unit.end, part.unit.start)
        if size <= limit and breaks <= (1 if held.leads else 0):
            inner = part if len(part.unit.path) > len(held.unit.path) else held
            held = _Part(Unit(start, end, size, inner.unit.path), part.leads, inner.home)
        else:
            yield held
            held = part
    if held:
        yield held
