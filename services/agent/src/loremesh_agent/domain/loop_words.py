"""The words of the agent loop: what a run keeps to, what it wants done, and what happens to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from loremesh_agent.domain import delegation
from loremesh_agent.domain.approvals import Kind
from loremesh_agent.domain.budgets import Budget, Limit
from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.definitions import LimitPolicy
from loremesh_agent.domain.delegation import Coworker
from loremesh_agent.domain.events import FinishReason
from loremesh_agent.domain.passages import Source
from loremesh_agent.domain.prompts import PromptMessage
from loremesh_agent.domain.reviews import Review
from loremesh_agent.domain.tools import Outcome, ToolSpec, ToolUse


class End(StrEnum):
    """How a run ends."""

    COMPLETED = "COMPLETED"
    INCOMPLETE = "INCOMPLETE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a run keeps to, from its first step to its last."""

    tools: Mapping[str, ToolSpec] = field(default_factory=dict)
    uses: Mapping[str, ToolUse] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)
    on_limit: LimitPolicy = LimitPolicy.STOP
    fallback_model: str = ""
    # To whom work may be handed on.
    coworkers: tuple[Coworker, ...] = ()
    # None: an answer is the output.
    review: Review | None = None

    def hands_on(self, tool: str) -> bool:
        """Whether a call of this tool is done by a coworker."""
        return bool(self.coworkers) and tool in delegation.TOOLS


@dataclass(frozen=True, slots=True, kw_only=True)
class AskModel:
    """Ask the model, with the state's messages."""

    number: int
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTool:
    """Call a tool; `again` is what a human said to a call of which nobody knows how it ended."""

    number: int
    call_id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOn:
    """Have a coworker do what a tool was called for; what they deliver is the tool's answer."""

    number: int
    call_id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskHuman:
    """Ask a human about a call, a limit, or the output."""

    kind: Kind
    call_id: str = ""
    name: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    limit: Limit | None = None
    output: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """The run is over: `text` is its answer; `error` names an ErrorReason where it failed."""

    end: End
    text: str = ""
    reason: FinishReason = FinishReason.STOP
    limit: Limit | None = None
    error: str = ""
    problem: str = ""


Wanted = AskModel | CallTool | HandOn | AskHuman | Finish


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedCall:
    """A call that is asked for: its arguments if they fulfil the tool's schema, else what is wrong with them."""

    name: str
    arguments: Mapping[str, Any] | None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """The run begins with these messages; `untrusted` where text of strangers is among them.

    With a `call` it is that one call and ends with what it answers: no model is asked.
    """

    messages: tuple[PromptMessage, ...]
    sources: tuple[Source, ...] = ()
    untrusted: bool = False
    call: CheckedCall | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAnswered:
    """The model answered; `problem` is what is wrong with a text that should fulfil a schema.

    `grounded` is whether the text rests on sources.
    """

    number: int
    model: str
    text: str
    reason: FinishReason
    usage: Usage
    calls: tuple[CheckedCall, ...] = ()
    problem: str = ""
    grounded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolTold:
    """A tool answered: `content` is for the model."""

    number: int
    content: str
    outcome: Outcome = Outcome.OK
    reason: str = ""
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolLost:
    """A call that changes something was begun and nobody knows how it ended."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HumanAsked:
    """Somebody was asked; `number` is the question's own."""

    number: int
    approval_id: str
    kind: Kind
    call_id: str = ""
    limit: Limit | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HumanDecided:
    """They decided, or let it expire. `number` is given to the call that is made now, if one is."""

    approval_id: str
    granted: bool
    number: int = 0
    fails_run: bool = False
    # In place of those that were shown, and what is wrong with them.
    arguments: Mapping[str, Any] | None = None
    problem: str = ""
    answer: str = ""
    comment: str = ""


@dataclass(frozen=True, slots=True)
class LimitReached:
    """There is no room in a budget for what is wanted."""

    limit: Limit


@dataclass(frozen=True, slots=True)
class CancelledByCaller:
    """Nobody wants the answer any more."""


Event = Begun | ModelAnswered | ToolTold | ToolLost | HumanAsked | HumanDecided | LimitReached | CancelledByCaller
