"""Agents as their owners define them; `domain/agents.py` has them ready to answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from loremesh_agent.domain.tools import ToolUse


class LimitPolicy(StrEnum):
    """What happens when a budget is spent."""

    STOP = "STOP"
    ASK = "ASK"
    FALL_BACK = "FALL_BACK"


class GroundingPolicy(StrEnum):
    """What is done with claims of an answer that no passage supports."""

    ANNOTATE = "ANNOTATE"
    DROP = "DROP"
    ABSTAIN = "ABSTAIN"


class BusyPolicy(StrEnum):
    """What happens to a message for a conversation that is answering another."""

    REJECT = "REJECT"
    QUEUE = "QUEUE"
    INTERRUPT = "INTERRUPT"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptReference:
    """A kept prompt; version 0 is the newest."""

    name: str
    version: int = 0
    language: str = "en"
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySettings:
    """What an agent remembers from one conversation to the next."""

    recall: bool = False
    extract: bool = False
    max_items: int = 5
    ttl: timedelta | None = None
    embeddings: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one run; None: as the installation says."""

    max_steps: int | None = None
    max_tokens: int | None = None
    max_cost_micros: int | None = None
    max_tool_calls: int | None = None
    max_seconds: float | None = None
    on_limit: LimitPolicy = LimitPolicy.STOP
    # `provider/model`, for FALL_BACK.
    fallback_model: str = ""
    # Times the model is asked in a minute, by all runs of the agent together.
    max_rpm: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentDefinition:
    """One revision of an agent; None and empty mean as the installation or the model says."""

    id: str
    revision: int = 1
    name: str = ""
    description: str = ""
    # At most one of the two.
    system_prompt: str = ""
    prompt: PromptReference | None = None
    # `provider/model`; empty: the installation's default.
    model: str = ""
    fallback_models: tuple[str, ...] = ()
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    top_k_documents: int | None = None
    vector_store_ids: tuple[str, ...] = ()
    tools: tuple[ToolUse, ...] = ()
    memory: MemorySettings | None = None
    response_schema: Mapping[str, Any] | None = None
    limits: Limits = field(default_factory=Limits)
    grounding: GroundingPolicy = GroundingPolicy.ANNOTATE
    rewrite_questions: bool = True
    busy_policy: BusyPolicy = BusyPolicy.REJECT
    create_time: datetime | None = None
    update_time: datetime | None = None

    @property
    def etag(self) -> str:
        """What an update sends back to change only what was read."""
        return str(self.revision)
