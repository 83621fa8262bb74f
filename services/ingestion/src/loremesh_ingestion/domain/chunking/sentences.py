"""Where sentences end, by punctuation; scripts without it (Thai) are left to spaces and length."""

import re
from collections.abc import Iterator

from loremesh_ingestion.domain.text import trim

# Ends worth a look. A blank line ends whatever came before it; the stops of scripts that put no space between
# sentences end one by themselves; the Western stops need white space after them and a closer look.
_CANDIDATE = re.compile(
    r"""(?P<blank>\n[ \t]*+(?=\n))
      | (?P<sure>[。！？｡．।॥؟۔။៕።᠃]+["'”’»」』）】\])]*)
      | (?P<west>(?<![.!?…‼⁇⁈⁉])[.!?…‼⁇⁈⁉]++["'”’»\])]*+)(?=\s)""",
    re.VERBOSE,
)
_WORD_BEFORE = re.compile(r"[^\s(\[\"'“‘«]*$")
_ABBREVIATIONS = frozenset(
    """mr mrs ms dr prof sr jr st rev hon gen col capt lt maj sgt gov sen rep pres
    vs cf ca al approx resp e.g i.e eg ie viz fig figs eq eqs ref refs tab no nos nr vol vols p pp par ch chap sec sect
    art ed eds inc ltd co corp dept univ assn bros est jan feb mar apr jun jul aug sep sept oct nov dec
    mon tue wed thu fri sat sun bzw bspw ggf usw z.b d.h bd ev evtl inkl sog""".split(),  # noqa: SIM905 - a list of words
)
_LOOK_BACK = 40  # characters; no abbreviation is longer
_ENUMERATOR = re.compile(r"(?:\A|\n)[ \t]*\(?[0-9]{1,3}\Z")


def sentences(text: str, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield the sentences of `text[start:end]` as trimmed code-point spans which leave out nothing but white space."""
    end = len(text) if end is None else end
    begin = start
    for match in _CANDIDATE.finditer(text, start, end):
        if match.lastgroup == "west" and not _ends_sentence(text, begin, match.start(), match.end(), end):
            continue
        yield from _span(text, begin, match.end())
        begin = match.end()
    yield from _span(text, begin, end)


def _span(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    start, end = trim(text, start, end)
    if start < end:
        yield start, end


def _ends_sentence(text: str, begin: int, stop: int, after: int, end: int) -> bool:
    if stop > begin and text[stop - 1].isspace():
        return True  # a stop that stands alone, as in tokenized corpora
    if _next_letter(text, after, end).islower():
        return False
    if text[stop:after] != ".":
        return True
    before = text[max(begin, stop - _LOOK_BACK) : stop]
    word = _WORD_BEFORE.search(before)
    return not _ENUMERATOR.search(before) and (word is None or not _abbreviates(word[0]))


def _next_letter(text: str, after: int, end: int) -> str:
    for at in range(after, min(end, after + _LOOK_BACK)):
        if text[at].isalnum():
            return text[at]
    return ""


def _abbreviates(word: str) -> bool:
    initial = len(word) == 1 and word.isalpha() and word.isupper() and word != "I"
    return initial or word.lower() in _ABBREVIATIONS
