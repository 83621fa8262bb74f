"""What a text claims, and what of it stands in the passages it was written from: words against words, no model.

A claim is supported by a place in one passage that holds most of what it adds to the question: every number and name in
it, whatever it quotes, and a denial where it denies. That is meant to be strict: a paraphrase goes unsupported rather
than a fabrication supported.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from loremesh_agent.domain.evidence import Evidence, Window, is_negative, names, numbers, quotes
from loremesh_agent.domain.statements import Statement, is_open, statements, states_nothing, without_greeting
from loremesh_agent.domain.terms import terms

# Of what a claim adds to the question, this share must stand in one place ...
_SHARE = 0.6
# ... and of all its content words this many, or all.
_LEAST_SHARED = 3
_MOST_SPANS = 3
# What is said of the passages themselves.
_OF_SOURCES = terms(
    "according document documents passage passages source sources context text provided mentions mentioned states"
    " stated says said describes described answer"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A place in a passage, numbered from 1; `overlap` is the share of the claim's content words that it holds."""

    passage: int
    start: int
    end: int
    overlap: float
    cited: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim, `text[start:end]`, and the places that support it, best first; `wrong` are citations that do not."""

    start: int
    end: int
    spans: tuple[Span, ...]
    wrong: tuple[int, ...] = ()

    @property
    def supported(self) -> bool:
        """Whether a passage supports it."""
        return bool(self.spans)


@dataclass(frozen=True, slots=True)
class _Said:
    """What a claim needs of a place that supports it."""

    terms: frozenset[str]
    added: frozenset[str]
    # The question's: a claim of few words borrows its subject from there.
    asked: frozenset[str]
    numbers: tuple[frozenset[str], ...]
    names: frozenset[str]
    quotes: tuple[str, ...]
    negative: bool


def check(
    text: str, *, question: str = "", passages: Sequence[str], titles: Sequence[str] = (), refusal: str = ""
) -> list[Claim]:
    """The claims of a text, in order; `refusal` is what an agent says that has nothing to say.

    Passages have a number each, from 1, which is what `[n]` in the text means, and may have titles.
    """
    named = [*titles, *[""] * len(passages)]
    evidence = [Evidence(passage, title=title) for passage, title in zip(passages, named, strict=False)]
    asked = terms(question)
    # Who repeats what was asked says nothing, unless yes or no was asked.
    repeats = is_open(question)
    return [
        _claim(each, said if said.added else replace(said, added=said.terms), evidence)
        for each in statements(text)
        if (said := _said(each, asked, refusal=refusal)) is not None and (said.added or not repeats)
    ]


def support(claims: Sequence[Claim]) -> float:
    """Share of claims that are supported, 0 to 1; 1 where there are none."""
    return sum(claim.supported for claim in claims) / len(claims) if claims else 1.0


def _said(statement: Statement, asked: frozenset[str], *, refusal: str) -> _Said | None:
    """None where it claims nothing."""
    words = without_greeting(statement.words)
    held = terms(words) - _OF_SOURCES
    if not held or states_nothing(statement.words, refusal=refusal):
        return None
    return _Said(
        terms=held,
        added=held - asked,
        asked=asked,
        numbers=tuple(numbers(words)),
        names=names(words) - _OF_SOURCES,
        quotes=tuple(quotes(words)),
        negative=is_negative(words),
    )


def _claim(statement: Statement, said: _Said, evidence: Sequence[Evidence]) -> Claim:
    best = [_best(said, each, cited=number in statement.cited) for number, each in enumerate(evidence, 1)]
    found = [
        _span(number, window, said, cited=number in statement.cited)
        for number, (window, each) in enumerate(zip(best, evidence, strict=True), 1)
        if window is not None and _supports(said, window, each)
    ]
    found = found or _together(statement, said, best, evidence)
    found.sort(key=lambda span: (-span.overlap, not span.cited, span.passage))
    supporters = {span.passage for span in found}
    return Claim(
        start=statement.start,
        end=statement.end,
        spans=tuple(span for rank, span in enumerate(found) if rank < _MOST_SPANS or span.cited),
        wrong=tuple(number for number in statement.cited if number not in supporters),
    )


def _best(said: _Said, evidence: Evidence, *, cited: bool) -> Window | None:
    """The place of a passage that holds most of what is said, the shortest of those; None where it cannot matter."""
    shared = len(said.added & evidence.terms)
    if not shared or (not cited and (shared < _SHARE * len(said.added) or not said.names <= evidence.terms)):
        return None
    return max(
        evidence.windows(said.terms),
        key=lambda window: (
            _supports(said, window, evidence),
            len(said.added & window.terms),
            len(said.terms & window.terms),
            -len(window.negative),
        ),
        default=None,
    )


def _supports(said: _Said, window: Window, evidence: Evidence) -> bool:
    return (
        len(said.added & window.terms) >= _SHARE * len(said.added)
        and len(said.terms & window.terms) >= min(_LEAST_SHARED, len(said.terms))
        and (len(said.terms) >= _LEAST_SHARED or not said.asked or bool(said.asked & evidence.terms))
        and said.negative in window.negative
        and all(number & window.numbers for number in said.numbers)
        and said.names <= evidence.terms
        and all(map(evidence.quotes, said.quotes))
    )


def _together(
    statement: Statement, said: _Said, best: Sequence[Window | None], evidence: Sequence[Evidence]
) -> list[Span]:
    """The places of a claim that says so itself: it cites several passages, each of which holds a part of it."""
    parts = [
        (number, window, evidence[number - 1])
        for number in statement.cited
        if 1 <= number <= len(best) and (window := best[number - 1]) is not None
    ]
    parts = [part for part in parts if len(said.added & part[1].terms) >= min(2, len(said.added))]
    if len(parts) < 2:  # noqa: PLR2004 - several
        return []
    held = Window(
        start=0,
        end=0,
        terms=frozenset[str]().union(*(window.terms for _, window, _ in parts)),
        numbers=frozenset[str]().union(*(window.numbers for _, window, _ in parts)),
        negative=tuple(each for _, window, _ in parts for each in window.negative),
    )
    known = frozenset[str]().union(*(each.terms for _, _, each in parts))
    quoted = all(any(each.quotes(quotation) for _, _, each in parts) for quotation in said.quotes)
    if not quoted or not _supports(replace(said, names=said.names - known, quotes=()), held, parts[0][2]):
        return []
    return [_span(number, window, said, cited=True) for number, window, _ in parts]


def _span(number: int, window: Window, said: _Said, *, cited: bool) -> Span:
    overlap = len(said.terms & window.terms) / max(1, len(said.terms))
    return Span(passage=number, start=window.start, end=window.end, overlap=overlap, cited=cited)
