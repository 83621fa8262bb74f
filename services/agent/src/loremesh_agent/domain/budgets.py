"""Budgets of a run: what it may take, what it has taken, and which of its limits that reaches."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.definitions import Limits

Limit = Literal["steps", "tokens", "cost", "tool_calls", "time"]
NOTHING = Usage(input_tokens=0, output_tokens=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a run may take; None: as much as it likes. Money is in millionths of a US dollar."""

    steps: int = 20
    tool_calls: int = 100
    tokens: int | None = None
    cost: int | None = None
    seconds: float | None = None

    def within(self, limits: Limits) -> "Budget":
        """The same, or less where these limits say so."""
        return Budget(
            steps=min(self.steps, limits.max_steps or self.steps),
            tool_calls=self.tool_calls
            if limits.max_tool_calls is None
            else min(self.tool_calls, limits.max_tool_calls),
            tokens=_least(self.tokens, limits.max_tokens),
            cost=_least(self.cost, limits.max_cost_micros),
            seconds=_least(self.seconds, limits.max_seconds),
        )

    def allows(self, limit: Limit, *, grants: Mapping[str, int]) -> float | None:
        """How much of it: as much again for each grant; None without a limit."""
        given: float | None = getattr(self, "seconds" if limit == "time" else limit)
        return None if given is None else given * (1 + grants.get(limit, 0))


def added(one: Usage, other: Usage) -> Usage:
    """Both together."""
    return Usage(**{field.name: getattr(one, field.name) + getattr(other, field.name) for field in fields(Usage)})


def reached(budget: Budget, spent: Usage, *, grants: Mapping[str, int], reserve: Usage = NOTHING) -> Limit | None:
    """The limit that asking the model once more would break; `reserve` is what that may take, as far as is known."""
    after = added(spent, reserve)
    for limit, taken in (("tokens", after.input_tokens + after.output_tokens), ("cost", after.cost_micros)):
        allowed = budget.allows(limit, grants=grants)  # type: ignore[arg-type]
        spent_all = reserve == NOTHING and allowed is not None and taken >= allowed
        if allowed is not None and (taken > allowed or spent_all):
            return limit  # type: ignore[return-value]
    steps = budget.allows("steps", grants=grants)
    return "steps" if steps is not None and spent.steps >= steps else None


def calls_left(budget: Budget, spent: Usage, *, grants: Mapping[str, int]) -> int:
    """How many tools may still be called."""
    allowed = budget.allows("tool_calls", grants=grants)
    return max(0, int(allowed or 0) - spent.tool_calls)


def _least(one: float | None, other: float | None) -> int | None:
    given = [each for each in (one, other) if each is not None]
    return min(given) if given else None  # type: ignore[return-value]
