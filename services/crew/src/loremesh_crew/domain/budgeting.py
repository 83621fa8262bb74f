"""What a run may take, shared out: reserved when a task is begun, settled when it ends.

As long as every task keeps to its share the run keeps to its limits, whatever is at work at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from loremesh_crew.domain.definitions import RunLimits
from loremesh_crew.domain.machine import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a task may take; zero: as much as it likes."""

    tokens: int = 0
    cost_micros: int = 0
    tool_calls: int = 0


NOTHING = Share()
# Less is of no use to a task: it waits for what others give back, if they may.
LEAST = Share(tokens=2_000, cost_micros=1_000, tool_calls=1)


def spent_out(limits: RunLimits, used: Usage, *, tools: bool) -> bool:
    """Whether nothing is left for a task, whatever others give back; `tools`: whether it has any."""
    return any(most <= _used(used, kind) for kind, most in _limits(limits, tools=tools))


def share(limits: RunLimits, used: Usage, reserved: Iterable[Share], *, among: int, tools: bool) -> Share | None:
    """The share of one of `among` tasks which are to be begun; None where it has to wait for what others give back."""
    shares, others = NOTHING, tuple(reserved)
    for kind, most in _limits(limits, tools=tools):
        held = sum(getattr(each, kind) for each in others)
        left = most - _used(used, kind) - held
        least = min(getattr(LEAST, kind), most)
        if left <= 0 or (left < least and held):
            return None
        shares = replace(shares, **{kind: min(left, max(left // max(among, 1), least))})
    return shares


def capped(given: Share, *, tokens: int) -> Share:
    """The share with at most so many tokens; zero: as it is."""
    return replace(given, tokens=min(given.tokens or tokens, tokens)) if tokens else given


def _limits(limits: RunLimits, *, tools: bool) -> list[tuple[str, int]]:
    given = [
        ("tokens", limits.max_tokens),
        ("cost_micros", limits.max_cost_micros),
        ("tool_calls", limits.max_tool_calls if tools else 0),
    ]
    return [(kind, most) for kind, most in given if most]


def _used(used: Usage, kind: str) -> int:
    return used.input_tokens + used.output_tokens if kind == "tokens" else int(getattr(used, kind))
