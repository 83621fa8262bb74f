"""What asking a model may take, and what it took where nobody says."""

from dataclasses import replace

from loremesh_agent.domain import loop
from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.tokens import estimate
from loremesh_agent.ports import ModelRequest, Models

# Less than this is no answer worth paying for.
_LEAST_OUTPUT_TOKENS = 16


def reserve(state: loop.State, model: str, *, output_tokens: int, models: Models) -> Usage:
    """At most, roughly: what is read now, and as many tokens written as there may be, or as the budget leaves."""
    read = sum(
        estimate(message.content) + sum(estimate(call.arguments) for call in message.tool_calls)
        for message in state.messages
    )
    read += sum(estimate(str(spec.input_schema)) for spec in state.rules.tools.values())
    written, allowed = output_tokens, state.rules.budget.allows("tokens", grants=state.grants)
    if allowed is not None:
        left = int(allowed) - state.spent.input_tokens - state.spent.output_tokens - read
        written = output_tokens if left < _LEAST_OUTPUT_TOKENS else min(output_tokens, left)
    usage = Usage(input_tokens=read, output_tokens=written)
    return replace(usage, cost_micros=models.cost(model, usage) or 0)


def estimated(request: ModelRequest, text: str) -> Usage:
    """Where the provider did not tell, or was not let finish."""
    read = sum(estimate(message.content) for message in request.messages)
    return Usage(input_tokens=read, output_tokens=estimate(text))
