"""Passages as text for a model: delimited, so that what they say cannot pass for anything else."""

import re
from collections.abc import Sequence
from dataclasses import replace

from loremesh_agent.domain.passages import Passage

# A little less than what of a tool's result reaches the model, so that nothing is cut in the middle.
ROOM_BYTES = 15 * 1024
# A passage that would be cut shorter is left out.
_LEAST_BYTES = 500
_DELIMITER = re.compile(r"<(?=\s*/?\s*passage)", re.IGNORECASE)
_MARK = "‹"


def delimited(passages: Sequence[Passage], *, room: int = ROOM_BYTES) -> tuple[str, tuple[Passage, ...]]:
    """As many passages as there is room for, in their order, and these as they are given: the last may be cut."""
    given: list[Passage] = []
    texts: list[str] = []
    for passage in passages:
        left = room - len(_quote(replace(passage, content="")).encode())
        if left < min(_LEAST_BYTES, len(passage.content.encode())):
            break
        cut = _cut(passage, left)
        given.append(cut)
        texts.append(_quote(cut))
        room -= len(texts[-1].encode()) + 1
    missing = len(passages) - len(given)
    note = [f"({missing} more found; there is no room for them here.)"] if missing else []
    return "\n".join([*texts, *note]), tuple(given)


def _cut(passage: Passage, room: int) -> Passage:
    content = passage.content
    while (over := len(_safe(content).encode()) - room) > 0:
        # No character takes more than four bytes.
        content = content[: -max(1, over // 4)]
    if content == passage.content:
        return passage
    return replace(passage, content=content, end_char=passage.start_char + len(content))


def _quote(passage: Passage) -> str:
    marks = {
        "title": _line(passage.title),
        "document_id": _line(passage.document_id),
        "page": "" if passage.page is None else str(passage.page),
        "start_char": str(passage.start_char),
        "end_char": str(passage.end_char),
    }
    shown = " ".join(f'{name}="{value}"' for name, value in marks.items() if value)
    return f"<passage {shown}>\n{_safe(passage.content).strip()}\n</passage>"


def _safe(text: str) -> str:
    return _DELIMITER.sub(_MARK, text)


def _line(text: str) -> str:
    return " ".join(text.replace('"', "'").replace("<", _MARK).replace(">", "›").split())
