"""A question to a human, whom the run waits for."""

from collections.abc import Mapping
from typing import Any

from loremesh_agent.domain.loop import ASK_HUMAN
from loremesh_agent.domain.tools import CallContext, Effect, ToolResult, ToolSpec
from loremesh_agent.errors import ToolUnavailable

_SPEC = ToolSpec(
    name=ASK_HUMAN,
    description=(
        "Asks a human a question and waits for the answer, which may take hours. Use it only for what you cannot find "
        "out yourself and cannot go on without."
    ),
    input_schema={
        "type": "object",
        "properties": {
            "question": {"type": "string", "description": "The question", "minLength": 1, "maxLength": 2000}
        },
        "required": ["question"],
        "additionalProperties": False,
    },
    effect=Effect.READ_ONLY,
    untrusted=False,
)


class AskHuman:
    """See ports.Tool: described here, asked by the run itself."""

    @property
    def spec(self) -> ToolSpec:
        """See ports.Tool."""
        return _SPEC

    async def call(self, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        """Raises ToolUnavailable: outside of a run there is nobody to ask."""
        del arguments, context
        raise ToolUnavailable(ASK_HUMAN)
