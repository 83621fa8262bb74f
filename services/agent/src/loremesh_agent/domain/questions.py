"""Questions as callers ask them."""

from dataclasses import dataclass

from loremesh_kit.filters import Filter

from loremesh_agent.domain.definitions import Limits
from loremesh_agent.domain.prompts import Attachment


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A message to be answered; None and empty mean as the agent says."""

    text: str
    conversation_id: str | None = None
    agent_id: str = ""
    vector_store_ids: tuple[str, ...] = ()
    top_k: int | None = None
    filter_: Filter | None = None
    temperature: float | None = None
    max_output_tokens: int | None = None
    attachments: tuple[Attachment, ...] = ()
    limits: Limits | None = None
