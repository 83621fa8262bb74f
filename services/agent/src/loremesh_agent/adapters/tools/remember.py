"""A fact for later conversations."""

import re
from collections.abc import Mapping
from typing import Any

from loremesh_kit import identity

from loremesh_agent.domain.memories import user_of
from loremesh_agent.domain.tools import CallContext, Effect, ToolResult, ToolSpec
from loremesh_agent.errors import MemoryFull, ToolFailed
from loremesh_agent.ports import Fact, Recollection, Scope

NAME = "remember"
_RECALLED = re.compile(r"</?\s*memory\b[^>]*>", re.IGNORECASE)
_KNOWN_TOP_K = 5

_SPEC = ToolSpec(
    name=NAME,
    description=(
        "Remembers a fact about the user or their work for later conversations: a preference, a decision, a name. One "
        "fact in one whole sentence that can be understood by itself. Not for what stands in documents, not for "
        "passwords, and not for what recall has just told you. With subject and attribute a newer fact takes the "
        "place of an older one."
    ),
    input_schema={
        "type": "object",
        "properties": {
            "fact": {
                "type": "string",
                "description": "The fact, for example: Alice prefers answers in Thai.",
                "minLength": 1,
                "maxLength": 2000,
            },
            "subject": {"type": "string", "description": "What it is about: Alice", "maxLength": 200},
            "attribute": {"type": "string", "description": "What of it: preferred language", "maxLength": 200},
        },
        "required": ["fact"],
        "additionalProperties": False,
    },
    # What is known already adds nothing: a call made twice leaves one memory.
    effect=Effect.IDEMPOTENT,
    untrusted=False,
    timeout_seconds=15.0,
)


class Remember:
    """See ports.Tool."""

    def __init__(self, *, recollection: Recollection) -> None:
        self._recollection = recollection

    @property
    def spec(self) -> ToolSpec:
        """See ports.Tool."""
        return _SPEC

    async def call(self, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        """See ports.Tool."""
        text, scope = arguments["fact"].strip(), scope_of(context)
        if not text:
            raise ToolFailed("There is nothing to remember in it.", tool=NAME)
        if _RECALLED.search(text) or await self._is_known(text, scope):
            return ToolResult(content="This is remembered already.")
        fact = Fact(
            content=text,
            scope=scope,
            subject=arguments.get("subject", "").strip(),
            attribute=arguments.get("attribute", "").strip(),
            run_id=context.run_id,
            message_id=context.message_id,
        )
        try:
            memory_id = await self._recollection.remember(fact)
        except MemoryFull as full:
            raise ToolFailed(full.message, tool=NAME) from None
        return ToolResult(content="Remembered.", metadata={"memory_id": memory_id})

    async def _is_known(self, text: str, scope: Scope) -> bool:
        """Whether it was recalled word for word: from a wider scope it is not copied into this one."""
        known = await self._recollection.recall(text, scope=scope, top_k=_KNOWN_TOP_K, words_only=True)
        return any(_plain(each.content) == _plain(text) for each in known)


def scope_of(context: CallContext) -> Scope:
    """The user's with this agent, in the caller's tenant; raises IdentityMissing."""
    return Scope(user_id=user_of(identity.current().principal), agent_id=context.agent_id)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".!")
