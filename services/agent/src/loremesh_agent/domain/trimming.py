"""Long histories of tools, made to fit what a model reads: the oldest results give way first, the question never."""

import re
from collections.abc import Sequence
from dataclasses import replace

from loremesh_agent.domain.prompts import PromptMessage
from loremesh_agent.domain.tokens import estimate

# What a model's own template adds to a message.
_MESSAGE_TOKENS = 5
# Of a result that gives way this much stays, to say what it was.
_LEAST_CHARACTERS = 200
_NOTE = "[The rest is left out: there is no room for it any more.]"
_FRAME = re.compile(r"\A(<tool_result [^>\n]*>\n)(.*)(\n</tool_result>)\Z", re.DOTALL)


def size(messages: Sequence[PromptMessage]) -> int:
    """Tokens of messages, roughly."""
    return sum(map(_cost, messages))


def trimmed(messages: Sequence[PromptMessage], *, tokens: int) -> tuple[PromptMessage, ...]:
    """The messages with as many results of tools shortened as it takes to fit, or all where that is not enough."""
    fitting, over = list(messages), size(messages) - tokens
    for index, message in enumerate(messages):
        if over <= 0:
            break
        if message.role == "tool":
            fitting[index] = _shortened(message, by=over)
            over -= _cost(message) - _cost(fitting[index])
    return tuple(fitting)


def _cost(message: PromptMessage) -> int:
    calls = sum(estimate(call.arguments) + _MESSAGE_TOKENS for call in message.tool_calls)
    return estimate(message.content) + calls + _MESSAGE_TOKENS


def _shortened(message: PromptMessage, *, by: int) -> PromptMessage:
    """Shorter by so many tokens and a few more, or as short as may be; what is marked as a stranger's stays so."""
    frame = _FRAME.match(message.content)
    opening, inside, closing = frame.groups() if frame else ("", message.content, "")
    tokens = estimate(inside)
    share = max(0.0, 1 - (by + estimate(_NOTE) + 2 * _MESSAGE_TOKENS) / tokens) if tokens else 0.0
    kept = max(_LEAST_CHARACTERS, int(len(inside) * share))
    while kept > _LEAST_CHARACTERS and estimate(inside[:kept]) > tokens * share:
        # Not every part of a text takes as many tokens as another.
        kept = max(_LEAST_CHARACTERS, int(kept * 0.9))
    if kept + len(_NOTE) >= len(inside):
        return message
    return replace(message, content=f"{opening}{_whole(inside[:kept])}\n{_NOTE}{closing}")


def _whole(text: str) -> str:
    """Text without half a mark at its end, and with the passage closed that it was cut in."""
    if text.rfind("<") > text.rfind(">"):
        text = text[: text.rfind("<")]
    is_open = text.count("<passage ") > text.count("</passage>")
    return f"{text}\n</passage>" if is_open else text
