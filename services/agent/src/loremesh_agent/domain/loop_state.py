"""How a run stands, by what has happened."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from loremesh_agent.domain.budgets import NOTHING, Limit
from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.loop_words import Finish, Rules
from loremesh_agent.domain.passages import Source
from loremesh_agent.domain.prompts import PromptMessage
from loremesh_agent.domain.reviews import Draft
from loremesh_agent.domain.tools import Outcome


class Phase(StrEnum):
    """Where a call stands."""

    CALL = "CALL"
    ASK = "ASK"
    REVIEW = "REVIEW"
    ANSWERED = "ANSWERED"


@dataclass(frozen=True, slots=True, kw_only=True)
class InHand:
    """A call the model asked for; `number` is that of the step which makes it, zero before one does."""

    call_id: str
    name: str
    arguments: Mapping[str, Any]
    phase: Phase
    number: int = 0
    approval_id: str = ""
    content: str = ""
    outcome: Outcome = Outcome.OK
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A run."""

    rules: Rules
    model: str
    messages: tuple[PromptMessage, ...] = ()
    sources: tuple[Source, ...] = ()
    spent: Usage = NOTHING
    # The last step's.
    number: int = 0
    # The step in which the model is being asked; zero while it is not.
    asking: int = 0
    # What it said beside the calls in hand.
    text: str = ""
    calls: tuple[InHand, ...] = ()
    # Of the calls in hand, those beyond what is taken up at once.
    surplus: int = 0
    # Every call that was not made, in the order in which that was decided.
    refusals: tuple[InHand, ...] = ()
    untrusted: bool = False
    # Whether it is one call, without a model.
    invoked: bool = False
    # Whether what it said last rests on sources.
    grounded: bool = False
    # The answer, until a human accepts it, and how often one was sent back.
    draft: Draft | None = None
    rounds: int = 0
    # Whether the model is being given its one chance to put its last answer right.
    repairing: bool = False
    grants: Mapping[str, int] = field(default_factory=dict)
    # The limit that a human is asked about, and the question.
    limit: Limit | None = None
    limit_approval_id: str = ""
    end: Finish | None = None
