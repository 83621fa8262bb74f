"""What holds for every chunker, whatever it is given."""

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from loremesh_ingestion.domain.chunking import Chunk, ChunkingStrategy, StrategyKind, chunk
from loremesh_ingestion.domain.chunking.tokens import TokenMap
from loremesh_ingestion.domain.parsed import Block, BlockKind, Page, ParsedDocument
from loremesh_ingestion.parsing.tokens import WordPieceCounter

pytestmark = pytest.mark.unit

COUNTER = WordPieceCounter.bundled()

THAI = "สวัสดีครับ วันนี้อากาศดีมาก เราจะไปเที่ยวทะเลที่หัวหินกับครอบครัว น้ำทะเลใสมาก"
EMOJI = "👩‍👩‍👧‍👦🏳️‍🌈👍🏽🇹🇭🇯🇵😀 so many 🎉🎉"
# A word too long for one chunk, whose last part has more tokens by itself than it had as the end of the word.
TORN_WORD = "e1nAk. srra901z1sua0tCCBzez11kxkAqxeaina1qBtt0zextq1irautCzAAAuenqB. uu9iC"
PIECES = [
    *(
        "The wing stalls. ",
        "Dr. Smith arrived at 10.30 a.m. today! ",
        "no end in sight ",
        "e.g. this, and that; more: ",
    ),
    *(THAI, EMOJI, "日本語の文章です。これはテストです。", "한국어 문장입니다. ", "x" * 150, "\ue000\u200d\u0301"),
    *("\n", "\n\n", "    ", "\t", "# Heading\n\n", "| a | b |\n|---|---|\n| 1 | 2 |\n", "def f(x):\n    return x\n"),
]


def plain(text: str) -> ParsedDocument:
    return ParsedDocument(text=text, media_type="text/plain")


texts = st.one_of(st.text(max_size=400), st.lists(st.sampled_from(PIECES), max_size=60).map("".join))


@st.composite
def documents(draw: st.DrawFn) -> ParsedDocument:
    text = draw(texts)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    kinds = st.sampled_from(BlockKind)
    blocks = []
    for start, end in list(pairwise(cuts))[:: draw(st.sampled_from([1, 2]))]:
        kind = draw(kinds)
        blocks.append(Block(kind, start, end, draw(st.integers(1, 6)) if kind is BlockKind.HEADING else 0))
    half = len(text) // 2
    language = draw(st.sampled_from([None, "python", "cpp", "no such language"]))
    pages = draw(st.sampled_from([(), (Page(1, 0, half), Page(2, half, len(text)))]))
    return ParsedDocument(text=text, media_type="text/plain", blocks=tuple(blocks), pages=pages, language=language)


@st.composite
def strategies(draw: st.DrawFn) -> ChunkingStrategy:
    size = draw(st.integers(16, 80))
    return ChunkingStrategy(draw(st.sampled_from(StrategyKind)), size, draw(st.integers(0, size // 2)))


def cut(document: ParsedDocument, strategy: ChunkingStrategy) -> list[Chunk]:
    return list(chunk(document, strategy, COUNTER))


@settings(deadline=None, max_examples=100)
@given(documents(), strategies())
@example(plain(TORN_WORD), ChunkingStrategy(StrategyKind.SENTENCES, 16))
@example(plain(THAI * 20), ChunkingStrategy(StrategyKind.FIXED, 16, 8))
@example(plain(EMOJI * 20), ChunkingStrategy(StrategyKind.SENTENCES, 16, 8))
def test_every_chunk_is_an_exact_slice_within_the_limit(document: ParsedDocument, strategy: ChunkingStrategy) -> None:
    for number, piece in enumerate(cut(document, strategy)):
        assert piece.index == number
        assert piece.text == document.text[piece.start : piece.end]
        assert piece.text == piece.text.strip() != ""
        assert piece.token_count == len(COUNTER.starts(piece.text)) <= strategy.max_tokens


@settings(deadline=None, max_examples=100)
@given(documents(), strategies())
def test_nothing_but_white_space_is_left_out(document: ParsedDocument, strategy: ChunkingStrategy) -> None:
    done = 0
    for piece in cut(document, strategy):
        assert not document.text[done : piece.start].strip()
        done = max(done, piece.end)
    assert not document.text[done:].strip()


@settings(deadline=None, max_examples=100)
@given(documents(), strategies())
@example(plain("0:0:\n0:0:0:0:0\n0:0:"), ChunkingStrategy(max_tokens=16, overlap_tokens=4))
@example(plain(f"0000000 MALL {'0:' * 7}"), ChunkingStrategy(StrategyKind.FIXED, 16, 4))
@example(plain("00000000000000000000002어임"), ChunkingStrategy(StrategyKind.FIXED, 16, 1))
def test_neighbours_advance_and_share_no_more_than_the_overlap(
    document: ParsedDocument, strategy: ChunkingStrategy
) -> None:
    tokens = TokenMap(text=document.text, counter=COUNTER)
    for before, after in pairwise(cut(document, strategy)):
        assert before.start < after.start
        assert before.end < after.end
        assert tokens.estimate(after.start, before.end) <= strategy.overlap_tokens


@settings(deadline=None, max_examples=30)
@given(documents(), strategies())
def test_cutting_twice_gives_the_same(document: ParsedDocument, strategy: ChunkingStrategy) -> None:
    assert cut(document, strategy) == cut(document, strategy)


@settings(deadline=None, max_examples=100)
@given(documents(), strategies())
def test_the_page_is_where_the_chunk_starts(document: ParsedDocument, strategy: ChunkingStrategy) -> None:
    for piece in cut(document, strategy):
        on = [page.number for page in document.pages if page.start <= piece.start < page.end]
        assert [piece.page] == (on or [None])


@settings(deadline=None, max_examples=100)
@given(texts)
def test_cutting_at_white_space_changes_no_token(text: str) -> None:
    whole = COUNTER.starts(text)
    assert whole == sorted(whole)
    for at, character in enumerate(text):
        if character.isspace():
            assert len(COUNTER.starts(text[:at])) + len(COUNTER.starts(text[at:])) == len(whole)


@settings(deadline=None, max_examples=100)
@given(texts, st.lists(st.text(max_size=60), max_size=4), st.text(max_size=60), st.integers(16, 512))
def test_embedding_text_never_outgrows_the_model(text: str, path: list[str], title: str, model_tokens: int) -> None:
    size = len(COUNTER.starts(text))
    piece = Chunk(0, text, 0, len(text), None, tuple(path), size)
    embedded = piece.embedding_text(title, model_tokens=model_tokens)
    assert embedded.endswith(text)
    assert embedded == text or len(COUNTER.starts(embedded)) <= model_tokens - 2
