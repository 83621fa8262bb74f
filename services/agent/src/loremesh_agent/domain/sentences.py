"""Where sentences end."""

import re

# After a full stop and the space behind it, after one of scripts without spaces, and at every line's end.
_END = re.compile(r"(?<=[.!?;])[\"')\]]*\s+|(?<=[。！？])|\n+")
# Text without any such end, Thai above all, is cut at spaces.
_LONG = 300


def sentences(text: str) -> list[str]:
    """The sentences of `text` in order, stripped; none is empty, and all hold every word between them."""
    return [piece for each in _END.split(text) if each and (stripped := each.strip()) for piece in _pieces(stripped)]


def _pieces(sentence: str) -> list[str]:
    if len(sentence) <= _LONG:
        return [sentence]
    pieces, rest = [], sentence
    while len(rest) > _LONG:
        at = rest.rfind(" ", _LONG // 2, _LONG)
        at = at if at > 0 else _LONG
        pieces.append(rest[:at].strip())
        rest = rest[at:].strip()
    return [*pieces, rest] if rest else pieces
