"""A text taken apart into what it states, with offsets; and what in it states nothing.

Offsets are code points. Sentences end as they do in most scripts, with the citations behind them; Thai and its kin,
which write no full stops, are cut at the spaces between their phrases.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from loremesh_agent.domain.terms import terms

_CITATION = re.compile(r"\[ {0,2}[0-9]{1,3}(?: {0,2}, {0,2}[0-9]{1,3}){0,15} {0,2}\]")
_NUMBER = re.compile(r"[0-9]+")
_CITED = rf"(?:[ \t]?{_CITATION.pattern})*"
_END = re.compile(rf"[.!?;…]+[\"'’”»)\]*_]*{_CITED}(?=\s|\Z)|[。！？；]+[\"”’』」)]*{_CITED}|\n+")
# No sentence ends here: what follows on the line belongs to it.
_GOES_ON = re.compile(
    r"(?:\A\s*[#>*+•-]*\s*[0-9]{1,3}[.)]"
    r"|(?:\A|[\s(])(?:[A-Z]|e\.g|i\.e|cf|Dr|Mr|Mrs|Ms|Prof|St|No|vs|ca|approx|Fig|Eq|al|Nr|bzw|z\.B)\."
    # Thai writes full stops in abbreviations only.
    r"|(?:\A|[\s.0-9])[\u0e01-\u0e2e]{1,2}\.)\Z"
)
_LONGEST_ABBREVIATION = 12
_MARKER = re.compile(r"(?:[#>*+•|-]+\s+|[0-9]{1,3}[.)]\s+)+")
_HEADING = re.compile(r"#{1,6}\s")
_FENCE = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
# Between phrases of scripts without full stops: Thai, Lao, Khmer, Myanmar.
_UNSTOPPED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_PHRASE = re.compile(rf"(?<=[{_UNSTOPPED}])[ ]+(?=[{_UNSTOPPED}])")
_PHRASE_CHARS = 40
_LONG = 300

_QUESTION = re.compile(r"[?？؟][\"'”’」』)*_\s]*\Z|(?:ไหม|มั้ย|หรือไม่|หรือเปล่า|อะไร|ที่ไหน|เมื่อไหร่|อย่างไร)(?:ครับ|คะ|ค่ะ)?\s*\Z")
# A question that yes or no would not answer.
_OPEN = re.compile(
    r"\b(?:how|what|when|where|which|who|whom|whose|why|wie|wann|wo|welche\w*|wer|wen|warum|combien|quand|où|qui|quoi"
    r"|pourquoi|cómo|qué|cuándo|dónde|quién|cuánt\w*|por qué)\b"
    r"|อะไร|ที่ไหน|เมื่อ(?:ไร|ไหร่|ใด)|อย่างไร|ยังไง|ทำไม|ใคร|กี่|เท่า(?:ไร|ไหร่|ใด)|[什几幾誰谁]|何|多少|怎么|哪|いつ|どこ",
    re.IGNORECASE,
)
# Said of the conversation, not of the world: before a claim, or instead of one.
_GREETING = re.compile(
    r"\A\W*(?:(?:hello|hi|hey|dear|welcome|thanks|thank you|sorry|sure|certainly|of course|absolutely|great question"
    r"|good (?:morning|question)|you['’]re welcome|no problem|in summary"
    r"|hallo|guten (?:tag|morgen)|danke|gerne?|bonjour|salut|merci|hola|gracias|ciao|grazie|olá|obrigad[oa])\b"
    r"|สวัสดี|ขอบคุณ|ยินดี|ขออภัย|ขอโทษ|ได้เลย|แน่นอน|你好|您好|谢谢|謝謝|不客气|こんにちは|ありがとう(?:ございます)?"
    r"|안녕하세요|감사합니다|привет|здравствуйте|спасибо)(?:ครับ|ค่ะ|คะ|นะ)*\W*",
    re.IGNORECASE,
)
_COURTESY = re.compile(
    r"\A\W*(?:thank you for|i hope (?:this|that|it)|let me know|feel free|please (?:let|feel)|is there anything"
    r"|if you (?:have|need|want|would like)|i['’]?(?:m| am) (?:happy|glad|here|sorry)|i['’]?d be (?:happy|glad)"
    r"|here(?: is| are|['’]s)\b.*:\Z|here you go|ขอบคุณสำหรับ|ยินดีช่วย|หวังว่า)[^0-9]{0,120}\Z",
    re.IGNORECASE,
)
_DENIAL = re.compile(
    r"\b(?:document|passage|information|text|context|source)s?\b[^.!?\n]{0,60}"
    r"(?:\b(?:not|cannot|no)|n't)\b[^.!?\n]{0,20}"
    r"\b(?:hold|contain|provide|mention|answer|say|give|include|state|specify|information)"
    r"|\bI (?:do not|don't|cannot|can't) (?:know|answer|find)"
    r"|(?:เอกสาร|ข้อมูล|แหล่งข้อมูล)[^\n]{0,40}ไม่(?:ได้|มี|พบ)|ไม่(?:มี|พบ)(?:ข้อมูล|เอกสาร|คำตอบ)",
    re.IGNORECASE,
)
# What follows is another matter.
_YET = re.compile(r"\b(?:but|however|although|though)\b|แต่", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence of a text, `text[start:end]`; `words` is it without citations and list marks."""

    start: int
    end: int
    words: str
    cited: tuple[int, ...]


def statements(text: str) -> list[Statement]:
    """What the text says, in order: neither code nor headings."""
    return [
        _statement(text, end - len(words), end - len(words) + len(words.rstrip()))
        for start, end in _sentences(text)
        if (words := text[start:end].lstrip()) and not _HEADING.match(words)
    ]


def _statement(text: str, start: int, end: int) -> Statement:
    marker = _MARKER.match(text, start, end)
    start = marker.end() if marker else start
    numbers = [int(each) for citation in _CITATION.findall(text[start:end]) for each in _NUMBER.findall(citation)]
    return Statement(start, end, _CITATION.sub("", text[start:end]).strip(), tuple(dict.fromkeys(numbers)))


def states_nothing(words: str, *, refusal: str = "") -> bool:
    """Whether a sentence needs no support: a question, a courtesy, a word on what the documents do not hold."""
    if _QUESTION.search(words) or _COURTESY.search(words) or denies(words):
        return True
    if refusal and words.casefold() in refusal.casefold():
        return True
    # What a list follows upon is said by its items.
    leads = words.endswith((":", "：")) and not _NUMBER.search(words)
    return leads or not terms(without_greeting(words))


def is_open(question: str) -> bool:
    """Whether a question asks for more than yes or no."""
    return _OPEN.search(question) is not None


def without_greeting(words: str) -> str:
    """The sentence from where it comes to the point."""
    return _GREETING.sub("", words)


def denies(words: str) -> bool:
    """Whether a sentence says that the documents do not hold the answer."""
    return _DENIAL.search(words) is not None and _YET.search(words) is None


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    code = [each.span() for each in _FENCE.finditer(text)]
    begin = 0
    for start, end in [*code, (len(text), len(text))]:
        yield from _between(text, begin, start)
        begin = end


def _between(text: str, begin: int, limit: int) -> Iterator[tuple[int, int]]:
    start = begin
    for match in _END.finditer(text, begin, limit):
        stops = match[0][0] != "\n"
        if stops and _GOES_ON.search(text[max(start, match.end() - _LONGEST_ABBREVIATION) : match.end()]):
            continue
        yield from _pieces(text, start, match.end())
        start = match.end()
    yield from _pieces(text, start, limit)


def _pieces(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """A sentence, cut where it has no ends of its own."""
    for space in _PHRASE.finditer(text, start, end):
        if space.start() - start >= _PHRASE_CHARS:
            yield start, space.start()
            start = space.end()
    while end - start > _LONG:
        at = text.rfind(" ", start + _LONG // 2, start + _LONG)
        at = at if at > 0 else start + _LONG
        yield start, at
        start = at
    yield start, end
