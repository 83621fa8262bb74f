"""A question, what was said before and what was found, as messages to a model."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import Template
from typing import Literal

from loremesh_agent.domain.agents import Agent
from loremesh_agent.domain.conversations import Exchange
from loremesh_agent.domain.excerpts import Excerpt, excerpts
from loremesh_agent.domain.passages import Passage
from loremesh_agent.domain.tokens import estimate
from loremesh_agent.domain.tools import ToolCall
from loremesh_agent.domain.wording import Wording
from loremesh_agent.errors import MessageTooLong

# Kept free for passages whatever the question's length.
_LEAST_FOR_PASSAGES = 64
# Of the room that system text and question leave.
_SHARE_OF_HISTORY = 0.3
# What a model's own template adds to a message.
_MESSAGE_TOKENS = 5
# A passage must not close its own delimiter, nor bring numbers which would read as our citations.
_DELIMITER = re.compile(r"<(?=\s*/?\s*passage)", re.IGNORECASE)
_REFERENCE = re.compile(r"\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")
_OLD_CITATION = re.compile(r"\s*\[\d{1,3}\]")


@dataclass(frozen=True, slots=True)
class Attachment:
    """An image or file beside a message."""

    media_type: str
    data: bytes
    filename: str = ""


@dataclass(frozen=True, slots=True)
class PromptMessage:
    """One message to a model: what an assistant asked of tools stands with it, and a tool's answer names its call."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What the model is asked, and the passages it is given, in the order of their numbers."""

    messages: tuple[PromptMessage, ...]
    passages: tuple[Passage, ...]
    max_output_tokens: int


def build(
    agent: Agent,
    *,
    question: str,
    passages: Sequence[Passage],
    history: Sequence[Exchange],
    max_output_tokens: int | None = None,
) -> Prompt:
    """Fit question, history (newest first, up to a share) and passages into the agent's window.

    Raises MessageTooLong when the question alone leaves no room for passages.
    """
    wording, output = agent.wording, _output_tokens(agent, max_output_tokens)
    room = _room(agent, question, agent.window.context_tokens - output)
    told = _recent(history, tokens=int(room * _SHARE_OF_HISTORY))
    room -= sum(_cost(exchange) for exchange in told)
    given = excerpts(question, passages, tokens=room)
    return Prompt(
        messages=(
            *([PromptMessage("system", wording.system)] if wording.system else []),
            *(message for exchange in told for message in _as_messages(exchange)),
            PromptMessage("user", _ask(wording, question, given)),
        ),
        passages=tuple(excerpt.passage for excerpt in given),
        max_output_tokens=output,
    )


def check(agent: Agent, *, question: str, max_output_tokens: int | None = None) -> None:
    """Raise MessageTooLong when `build` would."""
    _room(agent, question, agent.window.context_tokens - _output_tokens(agent, max_output_tokens))


def _output_tokens(agent: Agent, asked_for: int | None) -> int:
    return min(asked_for or agent.max_output_tokens, agent.window.context_tokens // 2)


def _room(agent: Agent, question: str, limit: int) -> int:
    """Tokens for history and passages: what the aimed-at length leaves, and more where the question takes it all."""
    wording = agent.wording
    around = estimate(wording.system) + estimate(wording.user) + 2 * _MESSAGE_TOKENS
    longest = limit - around - _LEAST_FOR_PASSAGES
    asked = estimate(question)
    if asked > longest:
        raise MessageTooLong(limit_tokens=max(0, longest))
    return max(_LEAST_FOR_PASSAGES, min(agent.window.prompt_tokens, limit) - around - asked)


def without_references(text: str) -> str:
    """A passage's text with its own numbers in brackets written so that they do not read as our citations."""
    return _REFERENCE.sub(r"(\1)", text)


def _recent(history: Sequence[Exchange], *, tokens: int) -> list[Exchange]:
    """The newest of `history` (oldest first) that fit, oldest first."""
    chosen: list[Exchange] = []
    for exchange in reversed(history):
        tokens -= _cost(exchange)
        if tokens < 0:
            break
        chosen.insert(0, exchange)
    return chosen


def _cost(exchange: Exchange) -> int:
    return estimate(exchange.question) + estimate(exchange.answer) + 2 * _MESSAGE_TOKENS


def _as_messages(exchange: Exchange) -> tuple[PromptMessage, PromptMessage]:
    # The numbers of then mean nothing now.
    answer = _OLD_CITATION.sub("", exchange.answer)
    return PromptMessage("user", exchange.question), PromptMessage("assistant", answer)


def _ask(wording: Wording, question: str, given: Sequence[Excerpt]) -> str:
    passages = "\n".join(_quote(wording, number, excerpt) for number, excerpt in enumerate(given, 1))
    return Template(wording.user).substitute(passages=passages, question=question).strip()


def _quote(wording: Wording, number: int, excerpt: Excerpt) -> str:
    text = without_references(_DELIMITER.sub("‹", excerpt.text)).strip()
    title = " ".join(_DELIMITER.sub("‹", excerpt.passage.title).replace('"', "'").split())
    return Template(wording.passage).substitute(
        number=number, title=title, text=text if wording.multiline else " ".join(text.split())
    )
