"""What each strategy keeps together."""

import re
from itertools import pairwise

import pytest
from loremesh_ingestion.domain.chunking import Chunk, ChunkingStrategy, StrategyKind, chunk
from loremesh_ingestion.domain.chunking.packing import pack
from loremesh_ingestion.domain.chunking.units import Unit
from loremesh_ingestion.domain.parsed import Block, BlockKind, ParsedDocument
from loremesh_ingestion.parsing.formats import markdown
from loremesh_ingestion.parsing.media_types import MARKDOWN, Format
from loremesh_ingestion.parsing.tokens import WordPieceCounter

pytestmark = pytest.mark.unit

COUNTER = WordPieceCounter.bundled()
GUIDE = """# Guide

Introduction to the mesh.

## Install

Run this:

```sh
scripts/up

scripts/down
```

| part | port |
| --- | --- |
| envoy | 8080 |
| nats | 4222 |

## Use

### Ask

Ask a question.
"""


class Words:
    """Every word is one token."""

    def starts(self, text: str) -> list[int]:
        return [match.start() for match in re.finditer(r"\S+", text)]


def cut(document: ParsedDocument, kind: StrategyKind, size: int = 256, overlap: int = 0) -> list[Chunk]:
    return list(chunk(document, ChunkingStrategy(kind, size, overlap), COUNTER))


def plain(text: str) -> ParsedDocument:
    return ParsedDocument(text=text, media_type="text/plain")


def test_sections_carry_the_path_of_their_headings() -> None:
    chunks = cut(markdown.read(GUIDE, Format(MARKDOWN)), StrategyKind.STRUCTURE)
    assert [(piece.heading_path, piece.text.split("\n")[0]) for piece in chunks] == [
        (("Guide",), "# Guide"),
        (("Guide", "Install"), "## Install"),
        (("Guide", "Use", "Ask"), "## Use"),  # a heading without text goes with its first subsection
    ]


def test_tables_and_code_stay_whole_where_they_fit() -> None:
    code = f"```\n{'a = 1' * 8}\n\n{'b = 2 ' * 8}\n```"
    text = f"# T\n\n{'Some words of prose here. ' * 12}\n\n{code}\n\n{'More prose. ' * 30}"
    chunks = cut(markdown.read(text, Format(MARKDOWN)), StrategyKind.STRUCTURE, 120)
    assert sum("a = 1" in piece.text for piece in chunks) == 1
    assert next(piece.text.count("```") for piece in chunks if "a = 1" in piece.text) == 2


def test_rows_of_a_long_table_carry_its_header_row() -> None:
    rows = "".join(f"| part {number} | {number * 11} |\n" for number in range(100))
    document = markdown.read(f"# Parts\n\n| part | price |\n| --- | --- |\n{rows}", Format(MARKDOWN))
    first, *later = cut(document, StrategyKind.STRUCTURE, 64)
    assert first.heading_path == ("Parts",)
    assert first.text.startswith("# Parts\n\n| part | price |")
    assert len(later) >= 10
    assert {piece.heading_path for piece in later} == {("Parts", "| part | price |")}
    assert all(line.startswith("|") and line.endswith("|") for piece in later for line in piece.text.split("\n"))


def test_a_list_is_divided_between_its_items() -> None:
    items = "\n".join(f"- item number {number} of the list" for number in range(40))
    chunks = cut(markdown.read(items, Format(MARKDOWN)), StrategyKind.STRUCTURE, 32)
    assert all(line.startswith("- item") for piece in chunks for line in piece.text.split("\n"))


def test_sentences_stay_whole_and_chunks_are_even() -> None:
    text = " ".join(f"This is sentence number {number} of all." for number in range(30))
    chunks = cut(plain(text), StrategyKind.SENTENCES, 64)
    assert all(piece.text.endswith("all.") for piece in chunks)
    sizes = [piece.token_count for piece in chunks]
    assert max(sizes) - min(sizes) <= 16  # two sentences


def test_sentences_overlap_by_whole_sentences() -> None:
    text = " ".join(f"This is sentence number {number} of all." for number in range(30))
    chunks = cut(plain(text), StrategyKind.SENTENCES, 64, 20)
    shared = [text[after.start : before.end] for before, after in pairwise(chunks)]
    assert all(repeated.startswith("This is") and repeated.endswith("all.") for repeated in shared)


def test_fixed_windows_are_full_and_overlap() -> None:
    text = " ".join(f"word{number}" for number in range(300))
    chunks = list(chunk(plain(text), ChunkingStrategy(StrategyKind.FIXED, 50, 10), Words()))
    assert [piece.token_count for piece in chunks[:-1]] == [50] * (len(chunks) - 1)
    for before, after in pairwise(chunks):
        assert before.text.split()[-10:] == after.text.split()[:10]


def test_long_thai_is_cut_at_spaces_and_never_inside_a_character() -> None:
    text = "ภาษาไทยไม่มีการเว้นวรรคระหว่างคำ แต่เว้นวรรคระหว่างประโยคแทนครับ " * 30
    chunks = cut(plain(text), StrategyKind.SENTENCES, 64)
    assert len(chunks) > 10
    assert all(text[piece.end : piece.end + 1] in ("", " ") for piece in chunks)


def test_emoji_families_and_flags_are_never_torn() -> None:
    family, flag = "👩‍👩‍👧‍👦", "🇹🇭"
    chunks = cut(plain(family * 60 + flag * 60), StrategyKind.FIXED, 16)
    assert len(chunks) > 10
    for piece in chunks:
        rest = piece.text.replace(family, "").replace(flag, "")
        assert rest == ""


def test_unspellable_text_is_not_one_token() -> None:
    assert len(COUNTER.starts("ภาษาไทยไม่มีการเว้นวรรค" * 20)) > 200
    assert len(COUNTER.starts("QUJD" * 200)) > 300
    assert len(COUNTER.starts("\ue000" * 100)) == 50


CODE = '''"""Module."""

import os

# Adds two numbers.
def add(a, b):
    return a + b


class Shop:
    """Sells, naïvely: café ☕."""

    def sell(self, thing):
        """Sell one thing."""
        print("sold", thing)
        return thing

    def buy(self, thing, price):
        """Buy one thing at a price."""
        print("bought", thing, price)
        return thing, price
'''


def test_code_is_cut_between_definitions_and_knows_their_names() -> None:
    document = ParsedDocument(text=CODE, media_type="text/x-python", language="python")
    chunks = cut(document, StrategyKind.AUTO, 48)
    assert [(piece.text.split("\n")[0].strip(), piece.heading_path) for piece in chunks] == [
        ('"""Module."""', ()),
        ("class Shop:", ("Shop",)),
        ("def buy(self, thing, price):", ("Shop", "buy")),
    ]


def test_a_comment_stays_with_what_it_is_about() -> None:
    text = "".join(f"# Number {number} is a number.\ndef f{number}(): return {number}\n" for number in range(20))
    chunks = cut(ParsedDocument(text=text, media_type="text/x-python", language="python"), StrategyKind.CODE, 40)
    assert all(piece.text.startswith("# Number") for piece in chunks)


@pytest.mark.parametrize(
    ("language", "code", "path"),
    [
        ("c", "static int *twice(int n) {\n  return n;\n}", ("twice",)),
        ("cpp", "class Box {\n public:\n  int size() { return 1; }\n};", ("Box",)),
        ("go", "func Add(a int) int {\n\treturn a\n}", ("Add",)),
        ("java", "class Shop {\n  int sell() { return 1; }\n}", ("Shop",)),
        ("javascript", "function add(a) {\n  return a;\n}", ("add",)),
        ("rust", "impl Shop {\n    fn sell(&self) -> u8 { 1 }\n}", ("Shop",)),
        ("tsx", "function App() {\n  return <p>hi</p>;\n}", ("App",)),
        ("typescript", "interface Shop {\n  sell(): void;\n}", ("Shop",)),
    ],
)
def test_every_grammar_names_its_definitions(language: str, code: str, path: tuple[str, ...]) -> None:
    filler = f"\n\n{code.replace(path[0], 'Other')}" * 3
    document = ParsedDocument(text=code + filler, media_type="text/x", language=language)
    size = max(16, len(COUNTER.starts(code)))
    assert cut(document, StrategyKind.CODE, size)[0].heading_path == path


def test_code_without_a_grammar_is_cut_at_its_lines() -> None:
    text = "\n".join(f"(define thing-{number} {number})" for number in range(60))
    document = ParsedDocument(text=text, media_type="text/x-scheme", language="scheme")
    chunks = cut(document, StrategyKind.AUTO, 64)
    assert len(chunks) > 3
    assert all(piece.text.startswith("(define") and piece.text.endswith(")") for piece in chunks)


def test_deeply_nested_code_is_cut_without_recursion() -> None:
    text = f"x = {'(' * 5000}1{')' * 5000}"
    document = ParsedDocument(text=text, media_type="text/x-python", language="python")
    assert "".join(piece.text for piece in cut(document, StrategyKind.CODE)) == text


def test_auto_chooses_by_format() -> None:
    text = "Some text. " * 100
    prose = ParsedDocument(text=text, media_type="text/plain", blocks=(Block(BlockKind.PARAGRAPH, 0, len(text)),))
    assert cut(prose, StrategyKind.AUTO, 32) == cut(prose, StrategyKind.SENTENCES, 32)
    guide = markdown.read(GUIDE, Format(MARKDOWN))
    assert cut(guide, StrategyKind.AUTO, 32) == cut(guide, StrategyKind.STRUCTURE, 32)


@pytest.mark.parametrize(("size", "overlap"), [(15, 0), (2049, 0), (64, -1), (64, 33)])
def test_impossible_sizes_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="_tokens must lie"):
        ChunkingStrategy(StrategyKind.FIXED, size, overlap)


def test_packing_uses_no_more_groups_than_needed_and_shares_evenly() -> None:
    units = [Unit(number, number + 1, 10) for number in range(11)]
    assert [len(group) for group in pack(units, limit=100)] == [6, 5]
    assert [len(group) for group in pack(units, limit=110)] == [11]
    assert [len(group) for group in pack([Unit(0, 1, 90), *units], limit=90, overlap=20)] == [1, 6, 7]


def piece_of(text: str, path: tuple[str, ...] = ()) -> Chunk:
    return Chunk(0, text, 0, len(text), None, path, len(COUNTER.starts(text)))


def test_embedding_text_puts_title_and_headings_before_the_chunk() -> None:
    piece = piece_of("Run scripts/up.", ("Guide", "Install"))
    assert piece.embedding_text("Manual") == "Manual > Guide > Install\n\nRun scripts/up."


def test_embedding_text_repeats_nothing() -> None:
    assert piece_of("## Install\n\nRun.", ("Guide", "Install")).embedding_text("Guide") == "Guide\n\n## Install\n\nRun."
    assert piece_of("Guide to all. Read it.").embedding_text("Guide to all") == "Guide to all. Read it."


def test_embedding_text_drops_the_outermost_context_first() -> None:
    piece = piece_of("word " * 10, ("Outer " * 10, "Inner"))
    assert piece.embedding_text("Title " * 10, model_tokens=24) == f"Inner\n\n{'word ' * 10}"
    assert piece.embedding_text("Title", model_tokens=12) == "word " * 10
