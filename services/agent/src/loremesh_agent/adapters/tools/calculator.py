"""Exact arithmetic."""

from collections.abc import Mapping
from typing import Any

from loremesh_agent.domain.calculator import MAX_CHARACTERS, CalculationRefused, calculate
from loremesh_agent.domain.tools import CallContext, Effect, ToolResult, ToolSpec
from loremesh_agent.errors import ToolFailed

NAME = "calculator"

_SPEC = ToolSpec(
    name=NAME,
    description=(
        "Evaluates an arithmetic expression exactly, with decimal numbers. Use it for every calculation instead of "
        "calculating yourself. Understands + - * / // (whole part of a division) % (remainder) ** (power), "
        "percentages such as 15% * 80, parentheses, and the functions abs, ceil, floor, max, min, round(number, "
        "digits) and sqrt. No names, no units, no thousands separators: write 1234567.89."
    ),
    input_schema={
        "type": "object",
        "properties": {
            "expression": {
                "type": "string",
                "description": "The expression, for example (1299.90 - 15%*1299.90) / 12",
                "minLength": 1,
                "maxLength": MAX_CHARACTERS,
            }
        },
        "required": ["expression"],
        "additionalProperties": False,
    },
    effect=Effect.READ_ONLY,
    untrusted=False,
    timeout_seconds=5.0,
)


class Calculator:
    """See ports.Tool."""

    @property
    def spec(self) -> ToolSpec:
        """See ports.Tool."""
        return _SPEC

    async def call(self, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        """See ports.Tool."""
        del context
        try:
            result = calculate(arguments["expression"])
        except CalculationRefused as refused:
            raise ToolFailed(str(refused), tool=NAME) from None
        return ToolResult(content=result.text if result.exact else f"{result.text} (rounded to 50 digits)")
