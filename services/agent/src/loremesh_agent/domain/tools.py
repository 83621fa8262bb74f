"""Tools: what a model may have done, and what comes back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from loremesh_agent.domain.passages import Passage


class Effect(StrEnum):
    """What one call may do to the world."""

    READ_ONLY = "READ_ONLY"
    # Called again with the same idempotency key it changes nothing more.
    IDEMPOTENT = "IDEMPOTENT"
    # Never repeated unless a human says so.
    SIDE_EFFECTING = "SIDE_EFFECTING"


class ApprovalPolicy(StrEnum):
    """When a call needs a human's approval."""

    # Where it may change something and untrusted text is in play.
    AS_NEEDED = "AS_NEEDED"
    ALWAYS = "ALWAYS"
    NEVER = "NEVER"


class ExpiryPolicy(StrEnum):
    """What happens when nobody decides in time."""

    DENY = "DENY"
    FAIL = "FAIL"
    APPROVE = "APPROVE"


class Outcome(StrEnum):
    """How a call ended."""

    OK = "OK"
    FAILED = "FAILED"
    # It was not called.
    REFUSED = "REFUSED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """A tool in an agent's hands."""

    name: str
    approval: ApprovalPolicy = ApprovalPolicy.AS_NEEDED
    approval_time: timedelta = timedelta(hours=24)
    on_expiry: ExpiryPolicy = ExpiryPolicy.DENY


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """A tool as models and policies see it; `input_schema` is a JSON Schema of an object."""

    name: str
    description: str
    input_schema: Mapping[str, Any]
    effect: Effect
    # Its results are text of strangers: from then on untrusted text is in play.
    untrusted: bool = True
    timeout_seconds: float = 30.0
    # Empty where it can be called; otherwise the setting that would make it so, or another reason.
    unavailable: str = ""
    tool_server_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call as a model asked for it; `arguments` is its JSON, not yet read, let alone checked."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext:
    """Who calls a tool, and on whose behalf; identity and deadline ride in the context."""

    run_id: str
    agent_id: str
    conversation_id: str
    # The same for each attempt of this call, and no other's.
    idempotency_key: str
    vector_store_ids: Sequence[str] = ()
    message_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What a tool answered: `content` is for the model, passages are sources which its answer may cite."""

    content: str
    passages: tuple[Passage, ...] = ()
    # It failed in a way that the model should know of.
    failed: bool = False
    # For our own events and logs: never shown to the model.
    metadata: Mapping[str, str] = field(default_factory=dict)
    # Of the indexes searched for it, by vector store.
    generations: Mapping[str, int] = field(default_factory=dict)
