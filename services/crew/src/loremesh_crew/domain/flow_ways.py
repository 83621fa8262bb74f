"""The way out of a state: variables set from what came of its work, and the first transition that holds."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from loremesh_crew.domain import flow_graph
from loremesh_crew.domain.conditions import Check, Seen, check, names_of, written
from loremesh_crew.domain.definitions import Condition, FlowState
from loremesh_crew.domain.expressions import ExpressionFailed, ExpressionInvalid, evaluate
from loremesh_crew.domain.flow_checks import MAX_VARIABLES
from loremesh_crew.domain.flow_state import FlowRunState, Visit
from loremesh_crew.domain.flow_work import flow_of
from loremesh_crew.domain.machine import Pinned

# Of the reports that are kept, and of what the conditions of one saw.
_MAX_REPORTS = 200
_MAX_ALL_REPORTS = 200_000
_MAX_SAW = 20_000


class AssignmentFailed(Exception):
    """A variable cannot be set from what came."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def assigned(
    run: Pinned, state: FlowRunState, at: FlowState, visit: Visit
) -> tuple[Mapping[str, Any], list[dict[str, Any]]]:
    """The variables after a state's assignments, and a VariableSet for each; raises AssignmentFailed."""
    if not at.assignments:
        return state.variables, []
    flow = flow_of(run)
    names = names_of(flow)
    variables = dict(state.variables)
    told: list[dict[str, Any]] = []
    for each in at.assignments:
        seen = _seen(run, state, visit, variables)
        try:
            value = evaluate(each.expression, names, seen.values(), names[each.variable])
        except (ExpressionFailed, ExpressionInvalid) as failure:
            where = f"In the state {at.id} the variable {each.variable} cannot be set"
            raise AssignmentFailed(f"{where}: {failure.problem}. Its expression is {each.expression}") from None
        variables[each.variable] = value
        told.append({"variable": each.variable, "value": value})
    if len(json.dumps(variables, ensure_ascii=False)) > MAX_VARIABLES:
        raise AssignmentFailed(f"In the state {at.id} the variables grew beyond {MAX_VARIABLES} characters.")
    return variables, told


def chosen(run: Pinned, state: FlowRunState, at: FlowState, visit: Visit) -> tuple[dict[str, Any], str | None]:
    """The TransitionReport of a state that is left, and where it goes; None where no transition holds."""
    flow = flow_of(run)
    names, seen = names_of(flow), _seen(run, state, visit, state.variables)
    to: str | None = None
    left = _MAX_SAW
    looked_at = []
    for _, transition in flow_graph.ordered(flow, at.id):
        if to is None:
            checked = check(transition.condition, names, seen)
            to = transition.to_state if checked.held else None
            taken = checked.held
        else:
            checked, taken = _not_looked_at(transition.condition), False
        data, left = _bounded(checked.data(), left)
        looked_at.append(
            {
                "to": transition.to_state,
                "priority": transition.priority,
                "held": checked.held,
                "taken": taken,
                "condition": data,
            }
        )
    return {"from": at.id, "visit": visit.number, "to": to or "", "transitions": looked_at}, to


def none_held(at: FlowState, visit: Visit, report: Mapping[str, Any]) -> str:
    """A sentence about a state that no transition leads out of."""
    ended = "succeeded" if visit.succeeded else f"failed ({visit.reason}: {visit.message})"
    conditions = [each["condition"]["condition"] for each in report["transitions"]]
    looked_at = f"none of these holds: {', '.join(conditions)}" if conditions else "no transition leads out of it"
    return f"The state {at.id} {ended}, and {looked_at}."


def kept(reports: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """The last reports, one at least."""
    found: list[Mapping[str, Any]] = []
    left = _MAX_ALL_REPORTS
    for report in reversed(reports[-_MAX_REPORTS:]):
        left -= len(json.dumps(report, ensure_ascii=False))
        if found and left < 0:
            break
        found.append(report)
    return tuple(reversed(found))


def _seen(run: Pinned, state: FlowRunState, visit: Visit, variables: Mapping[str, Any]) -> Seen:
    return Seen(
        output=visit.output,
        output_json=visit.output_json,
        succeeded=visit.succeeded,
        reason=visit.child_reason or visit.reason,
        visit=visit.number,
        variables=variables,
        inputs=run.inputs,
        outputs=state.outputs,
    )


def _not_looked_at(condition: Condition) -> Check:
    return Check(condition=written(condition), held=False)


def _bounded(data: dict[str, Any], left: int) -> tuple[dict[str, Any], int]:
    """The check with as much of what it saw as there is room for, and how much room is left."""
    data = dict(data)
    if "saw" in data:
        data["saw"] = data["saw"][: max(0, left)]
        left -= len(data["saw"])
    parts = []
    for part in data.get("parts", ()):
        bounded, left = _bounded(part, left)
        parts.append(bounded)
    if parts:
        data["parts"] = parts
    return data, left
