"""What a flow's states and transitions say about each other, before any run of it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from loremesh_crew.domain.conditions import same
from loremesh_crew.domain.definitions import (
    Condition,
    ConditionKind,
    Flow,
    FlowState,
    Transition,
    VariableType,
    WaitWork,
)
from loremesh_crew.domain.expressions import fits

# How a state's work may end.
_SUCCESS, _FAILURE = True, False


def ordered(flow: Flow, state_id: str) -> list[tuple[int, Transition]]:
    """The transitions out of a state with their places in the flow, in the order they are looked at."""
    found = [(at, each) for at, each in enumerate(flow.transitions) if each.from_state == state_id]
    return sorted(found, key=lambda pair: -pair[1].priority)


def by_state(flow: Flow) -> dict[str, list[tuple[int, Transition]]]:
    """The same for all states at once."""
    found: dict[str, list[tuple[int, Transition]]] = {}
    for at, each in enumerate(flow.transitions):
        found.setdefault(each.from_state, []).append((at, each))
    for pairs in found.values():
        pairs.sort(key=lambda pair: -pair[1].priority)
    return found


def reachable(flow: Flow, beginnings: Iterable[str]) -> set[str]:
    """The states that some way leads to, those it begins at among them."""
    ways: dict[str, list[str]] = {}
    for each in flow.transitions:
        ways.setdefault(each.from_state, []).append(each.to_state)
    return _closure(ways, beginnings)


def ending(flow: Flow) -> set[str]:
    """The states from which some way leads to a final one, those among them."""
    ways: dict[str, list[str]] = {}
    for each in flow.transitions:
        ways.setdefault(each.to_state, []).append(each.from_state)
    return _closure(ways, (state.id for state in flow.states if state.final))


def dead(flow: Flow) -> dict[int, str]:
    """The transitions that can never be taken, by their places in the flow, and why."""
    types = {variable.name: variable.type for variable in flow.variables}
    found: dict[int, str] = {}
    for state in {state.id: state for state in flow.states}.values():
        out = ordered(flow, state.id)
        if state.final:
            found.update((at, "A final state is not left.") for at, _ in out)
        else:
            found.update(_dead_of(state, out, types))
    return found


def _dead_of(
    state: FlowState, out: Sequence[tuple[int, Transition]], types: Mapping[str, VariableType]
) -> dict[int, str]:
    found: dict[int, str] = {}
    endings = {_SUCCESS, _FAILURE} if may_fail(state) else {_SUCCESS}
    taken: set[bool] = set()
    before: list[Condition] = []
    for at, transition in out:
        verdicts = {ending: _verdict(transition.condition, succeeded=ending, types=types) for ending in endings}
        if all(verdict is False for verdict in verdicts.values()):
            found[at] = "Its condition never holds."
        elif all(ending in taken or verdict is False for ending, verdict in verdicts.items()):
            found[at] = "Another that is looked at before it always holds."
        elif transition.condition in before:
            found[at] = "Another with the same condition is looked at before it."
        taken |= {ending for ending, verdict in verdicts.items() if verdict}
        before.append(transition.condition)
    return found


def may_fail(state: FlowState) -> bool:
    """Whether a state's work can fail at all: a wait fails where it is a signal's that is late."""
    work = state.work
    if isinstance(work, WaitWork):
        return bool(work.signal) and work.seconds is not None
    return work is not None


def _verdict(condition: Condition, *, succeeded: bool, types: Mapping[str, VariableType]) -> bool | None:
    """Whether it holds after such an ending; None where that depends on more."""
    match condition.kind:
        case ConditionKind.ALWAYS:
            return True
        case ConditionKind.ON_SUCCESS:
            return succeeded
        case ConditionKind.ON_FAILURE:
            return not succeeded
        case ConditionKind.VARIABLE_EQUALS:
            type_ = types.get(condition.variable)
            return None if type_ is None or fits(condition.value, type_) else False
        case ConditionKind.AND | ConditionKind.OR | ConditionKind.NOT:
            parts = [_verdict(each, succeeded=succeeded, types=types) for each in condition.conditions]
            return _joined(condition, parts)
    return None


def _joined(condition: Condition, parts: Collection[bool | None]) -> bool | None:
    match condition.kind:
        case ConditionKind.AND:
            if False in parts or _contradictory(condition.conditions):
                return False
            return None if None in parts else True
        case ConditionKind.OR:
            if True in parts:
                return True
            return None if None in parts else False
    (part,) = parts or (None,)
    return None if part is None else not part


def _contradictory(conditions: Sequence[Condition]) -> bool:
    """Whether one of them is another's contrary, or two want a variable to have two values."""
    values: dict[str, Any] = {}
    for each in conditions:
        if each.kind is ConditionKind.NOT and each.conditions and each.conditions[0] in conditions:
            return True
        if each.kind is ConditionKind.VARIABLE_EQUALS:
            if each.variable in values and not same(values[each.variable], each.value):
                return True
            values[each.variable] = each.value
    return False


def _closure(ways: Mapping[str, Sequence[str]], beginnings: Iterable[str]) -> set[str]:
    waiting = list(beginnings)
    found: set[str] = set()
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting.extend(ways.get(one, ()))
    return found
