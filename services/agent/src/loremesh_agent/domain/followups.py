"""What to search for: a question that leans on what was said before is searched together with what it leans on.

No model is asked. What a follow-up leaves out, a pronoun's noun or a whole clause, stands in the questions before it,
and a search takes their words in any order; so it is enough to know which questions lean on others, and on which.
"""

import re
from collections.abc import Sequence

from loremesh_agent.domain.conversations import Exchange
from loremesh_agent.domain.evidence import names
from loremesh_agent.domain.terms import terms

# With fewer content words of its own a question can hardly be understood, nor found, alone.
_ENOUGH_WORDS = 3
# A longer one which begins as a question of its own is not taken for a follow-up because of one pronoun.
_LONG = 12
# Questions back, while each leans on the one before.
_FURTHEST = 4
# What retrieval takes; embedding models read less.
_LONGEST_QUERY = 8000

# A word that stands for something said before.
_PRONOUN = re.compile(
    r"\b(?:it|its|itself|they|them|their|theirs|he|him|his|she|hers?|this|these|those|such"
    r"|that(?= (?:one|case|year|time|place))"
    r"|former|latter|ones?|there|then|same|others?|above|er|sie|es|ihn|ihm|ihre?|diese[rsmn]?|davon|dazu|dort"
    r"|il|elle|ils|elles|cela|ça|eso|esto|ella|ellos)\b"
    r"|มัน|พวกเขา|เขา|เธอ|ท่าน|สิ่งนี้|สิ่งนั้น|อันนี้|อันนั้น|ที่นั่น|ที่นี่|นั้น|เรื่องนี้|เช่นกัน|ดังกล่าว|他|她|它|这个|那个|それ|これ",
    re.IGNORECASE,
)
# A question that begins amid a thought.
_ELLIPSIS = re.compile(
    r"\A\W*(?:and|but|or|so|then|also|what about|how about|what if|how so|since when|until when"
    r"|in which case|which (?:one|of)|who else|what else|where else|anything else|more|tell me more"
    r"|go on|continue|really|for example"
    r"|such as|und|aber|oder|was ist mit|wie sieht es|et|mais|y|pero)\b"
    r"|\A\W*(?:แล้ว|และ|แต่|หรือ|ทำไม(?:ล่ะ|ครับ|คะ)?\W*\Z|เพราะอะไร\W*\Z|มีอะไรอีก|อะไรอีก|ต่อเลย|เล่าต่อ|เท่าไ(?:หร่|ร)\W*\Z)"
    r"|(?:ล่ะ|ด้วยไหม|อีกไหม)(?:ครับ|คะ|ค่ะ)?\W*\Z|\A\W*(?:那|那么|为什么\W*\Z)|呢[?？]?\Z",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+")


def search_text(question: str, history: Sequence[Exchange]) -> str:
    """The query for a question asked after `history`, oldest first; the question itself where it stands alone."""
    if not history or not _leans(question):
        return _fitting(question)
    told = [exchange.question for exchange in history]
    context: list[str] = []
    for back in range(1, min(_FURTHEST, len(told)) + 1):
        context.insert(0, told[-back])
        if not _leans(told[-back]):
            break
    subject = _named_in(history[-1].answer, beside="\n".join([*context, question])) if _PRONOUN.search(question) else ""
    return _fitting("\n".join(filter(None, [*context, subject, question])))


def _leans(question: str) -> bool:
    """Whether a question cannot be understood without what was said before."""
    if len(terms(question)) < _ENOUGH_WORDS or _ELLIPSIS.search(question):
        return True
    return _PRONOUN.search(question) is not None and len(_WORD.findall(question)) <= _LONG


def _named_in(answer: str, *, beside: str) -> str:
    """The names in an answer's first sentence, which a pronoun may mean, where the questions do not hold them."""
    first = re.split(r"(?<=[.!?。！？])\s|\n", answer.strip(), maxsplit=1)[0]
    known = terms(beside)
    new = names(f", {first}") - known
    words = [word for word in _WORD.findall(first) if terms(word) and terms(word) <= new and word[0].isupper()]
    return " ".join(dict.fromkeys(words))


def _fitting(query: str) -> str:
    if len(query) <= _LONGEST_QUERY:
        return query
    # The point of a long message is made where it begins or where it ends.
    half = _LONGEST_QUERY // 2
    return f"{query[: half - 1]}\n{query[-half:]}"
