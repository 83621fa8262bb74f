"""Plans of a manager: the form they are asked in, and whether they can be done."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_PIECES = 50
# Pieces that wait for each other, one after the other.
MAX_CHAIN = 10
_LONGEST_NAME = 64
_LONGEST_DESCRIPTION = 16_000
_LONGEST_SECONDS = 86_400
_NO_NAME = re.compile(r"[\s/\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A piece of work in a plan."""

    name: str
    agent: str
    description: str
    depends_on: tuple[str, ...] = ()
    max_tokens: int = 0
    seconds: float | None = None


class PlanRefused(Exception):
    """The plan cannot be done; `message` is what the manager is told."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def schema(agents: Sequence[str]) -> dict[str, Any]:
    """What a plan is asked in: small and flat, for small models."""
    piece = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "agent": {"type": "string", "enum": list(agents)},
            "description": {"type": "string"},
            "depends_on": {"type": "array", "items": {"type": "string"}},
            "max_tokens": {"type": "integer"},
            "seconds": {"type": "integer"},
        },
        "required": ["name", "agent", "description"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"tasks": {"type": "array", "items": piece}},
        "required": ["tasks"],
        "additionalProperties": False,
    }


def read(
    plan: Mapping[str, Any] | None, *, agents: Collection[str], manager: str, done: Collection[tuple[str, str]] = ()
) -> tuple[Piece, ...]:
    """The pieces of a plan for these agents; `done`: agents and descriptions of work that needs no repeating.

    Raises PlanRefused with PLAN_INVALID, PLAN_AGENT_UNKNOWN, PLAN_REPEATED or PLAN_CYCLE.
    """
    pieces = _pieces(plan)
    _check_agents(pieces, agents, manager)
    _check_repeats(pieces, done)
    _check_order(pieces)
    return pieces


def same(description: str) -> str:
    """The description as it is compared with others."""
    return " ".join(description.casefold().split())


def _pieces(plan: Mapping[str, Any] | None) -> tuple[Piece, ...]:
    given = (plan or {}).get("tasks")
    if not isinstance(given, list | tuple):
        raise PlanRefused("PLAN_INVALID", 'It must be a JSON object with a list "tasks".')
    if not 0 < len(given) <= MAX_PIECES:
        raise PlanRefused("PLAN_INVALID", f"It must have 1 to {MAX_PIECES} tasks; it has {len(given)}.")
    return tuple(_piece(each, number) for number, each in enumerate(given, 1))


def _piece(given: Any, number: int) -> Piece:
    given = given if isinstance(given, Mapping) else {}
    texts = {key: str(given.get(key) or "").strip() for key in ("name", "agent", "description")}
    if not all(texts.values()):
        raise PlanRefused("PLAN_INVALID", f"Task {number} must have a name, an agent and a description.")
    depends_on = given.get("depends_on") or ()
    if not isinstance(depends_on, list | tuple) or not all(isinstance(each, str) for each in depends_on):
        raise PlanRefused("PLAN_INVALID", f"Task {number}: depends_on must be a list of names.")
    if len(texts["description"]) > _LONGEST_DESCRIPTION:
        raise PlanRefused("PLAN_INVALID", f"Task {number}: the description is longer than {_LONGEST_DESCRIPTION}.")
    return Piece(
        name=_name(texts["name"]),
        agent=texts["agent"],
        description=texts["description"],
        depends_on=tuple(dict.fromkeys(_name(each) for each in depends_on)),
        max_tokens=int(_positive(given.get("max_tokens"))),
        seconds=min(float(_positive(given.get("seconds"))), _LONGEST_SECONDS) or None,
    )


def _name(given: str) -> str:
    return _NO_NAME.sub("-", given.strip())[:_LONGEST_NAME]


def _positive(given: Any) -> float:
    # Small models say zero, null or less where they mean nothing.
    return given if isinstance(given, int | float) and 1 <= given < 2**53 else 0


def _check_agents(pieces: Sequence[Piece], agents: Collection[str], manager: str) -> None:
    for piece in pieces:
        if piece.agent == manager:
            raise PlanRefused("PLAN_AGENT_UNKNOWN", f"{manager} is the manager: give {piece.name} to another agent.")
        if piece.agent not in agents:
            known = ", ".join(agents)
            raise PlanRefused("PLAN_AGENT_UNKNOWN", f"There is no agent {piece.agent[:64]!r}; there are: {known}.")


def _check_repeats(pieces: Sequence[Piece], done: Collection[tuple[str, str]]) -> None:
    names: set[str] = set()
    work = {(agent, same(description)) for agent, description in done}
    for piece in pieces:
        if piece.name in names:
            raise PlanRefused("PLAN_REPEATED", f"Two tasks are called {piece.name}.")
        if (piece.agent, same(piece.description)) in work:
            raise PlanRefused("PLAN_REPEATED", f"{piece.name} asks for what is done, or is in the plan, already.")
        names.add(piece.name)
        work.add((piece.agent, same(piece.description)))


def _check_order(pieces: Sequence[Piece]) -> None:
    """Every piece can come after those it needs, in a chain that is not too long."""
    names = {piece.name for piece in pieces}
    for piece in pieces:
        for name in piece.depends_on:
            if name not in names:
                raise PlanRefused("PLAN_CYCLE", f"{piece.name} depends on {name}, which is not in the plan.")
    left = {piece.name: set(piece.depends_on) for piece in pieces}
    chain = 0
    while left:
        ready = {name for name, needed in left.items() if not needed}
        if not ready:
            raise PlanRefused("PLAN_CYCLE", f"These wait for each other: {', '.join(sorted(left))}.")
        left = {name: needed - ready for name, needed in left.items() if name not in ready}
        chain += 1
    if chain > MAX_CHAIN:
        raise PlanRefused("PLAN_INVALID", f"At most {MAX_CHAIN} tasks may wait for each other in a chain, not {chain}.")
