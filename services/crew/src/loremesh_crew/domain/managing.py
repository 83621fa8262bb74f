"""How a managed crew's run goes on.

In rounds: the manager plans, the pieces of its plan are done, it writes the result of each task of the crew from their
outcomes, and is asked whether that is what was expected. What it finds missing is planned in another round; after the
last the result there is stays, as INCOMPLETE.
"""

from loremesh_crew.domain import planning, tells
from loremesh_crew.domain.crew_state import Item, Origin, Stage
from loremesh_crew.domain.crew_turn import BUDGET, Turn
from loremesh_crew.domain.guardrails import verdict
from loremesh_crew.domain.machine import TaskStatus
from loremesh_crew.domain.planning import Piece, PlanRefused

MAX_ROUNDS = 3
# Plans that are refused in one round.
MAX_PLANS = 3


def advance(turn: Turn) -> bool:
    """Go to the next stage where this one is over; whether anything changed."""
    match turn.state.stage:
        case Stage.PLANNING:
            return _plan(turn)
        case Stage.WORKING:
            return _write(turn)
        case Stage.WRITING:
            return _check(turn)
        case Stage.CHECKING:
            return _give_up(turn, Origin.CHECK)


def planned(turn: Turn, item: Item) -> None:
    """Take the manager's plan, or give it back."""
    done = [(each.agent, each.description) for each in turn.of(Origin.PLANNED) if each.done]
    agents = [agent.name for agent in turn.cast.workers]
    try:
        pieces = planning.read(item.output_json, agents=agents, manager=turn.cast.manager, done=done)
    except PlanRefused as refused:
        # Where there is no JSON, whoever asked the model knows better why.
        message = (item.message if item.output_json is None else "") or refused.message
        turn.tell("plan_refused", {"round": item.round, "reason": refused.reason, "message": message[:2000]}, item)
        if item.rounds + 1 < MAX_PLANS:
            turn.send_back(item, refused.reason, message)
        else:
            turn.finish(item, TaskStatus.FAILED, "PLANS_EXHAUSTED", f"The last plan was refused: {message}")
        return
    _take(turn, item, pieces)


def checked(turn: Turn, item: Item) -> None:
    """Take the result, or have what it lacks planned, or stay with it."""
    said = verdict(item.output_json)
    if said is None:
        turn.finish(item, TaskStatus.FAILED, "GUARDRAIL_FAILED", "The manager did not say whether the result is good.")
        return
    accepted, missing = said[0], said[1] or "It is not what was expected."
    turn.finish(item, TaskStatus.COMPLETED)
    if accepted:
        _release(turn)
    elif turn.state.round < MAX_ROUNDS:
        turn.remember(round=turn.state.round + 1, stage=Stage.PLANNING, missing=missing)
    else:
        _release(turn, "GUARDRAIL_FAILED", f"The result is not accepted: {missing}")


def _take(turn: Turn, item: Item, pieces: tuple[Piece, ...]) -> None:
    named = {piece.name: f"plan-{item.round}/{piece.name}" for piece in pieces}
    for piece in pieces:
        turn.items[named[piece.name]] = Item(
            name=named[piece.name],
            origin=Origin.PLANNED,
            agent=piece.agent,
            depends_on=tuple(named[each] for each in piece.depends_on),
            parent=item.name,
            delegated_by=item.agent,
            description=piece.description,
            round=item.round,
            max_tokens=piece.max_tokens,
            seconds=piece.seconds,
        )
    turn.remember(stage=Stage.WORKING)
    turn.tell("plan_made", tells.plan_made(item.round, pieces, named), item)
    turn.finish(item, TaskStatus.COMPLETED)


def _plan(turn: Turn) -> bool:
    if not turn.cast.workers:
        # The manager has to do it all.
        turn.remember(stage=Stage.WORKING)
        return True
    number = turn.state.round
    name = f"manager/plan-{number}"
    if name in turn.items:
        return _give_up(turn, Origin.PLAN)
    missing = turn.state.missing
    turn.items[name] = Item(name=name, origin=Origin.PLAN, agent=turn.cast.manager, round=number, context=missing)
    return True


def _write(turn: Turn) -> bool:
    if not all(each.ended for each in turn.of(Origin.PLANNED)):
        return False
    turn.remember(stage=Stage.WRITING)
    for item in turn.of(Origin.TASK):
        if item.held:
            turn.change(item, held=False, draft=True, rounds=0, failures=0, feedback=turn.state.missing)
    return True


def _check(turn: Turn) -> bool:
    tasks = turn.of(Origin.TASK)
    if not all(each.settled for each in tasks) or not any(each.held for each in tasks):
        return False
    turn.remember(stage=Stage.CHECKING)
    number = turn.state.round
    name = f"manager/check-{number}"
    turn.items[name] = Item(name=name, origin=Origin.CHECK, agent=turn.cast.manager, round=number)
    return True


def _give_up(turn: Turn, origin: Origin) -> bool:
    """Where the manager could not be asked, stay with what there is."""
    item = turn.of(origin)[-1]
    if not item.ended or item.done:
        return False
    reason, message = item.reason, item.message
    if origin is Origin.PLAN and reason not in (BUDGET, "PLANS_EXHAUSTED"):
        reason, message = "TASK_FAILED", f"The manager could not be asked for a plan: {message or reason}"
    changed = _release(turn, reason, message)
    left = [each for each in turn.of(Origin.TASK) if not each.ended]
    turn.skip(left, reason, message)
    return changed or bool(left)


def _release(turn: Turn, reason: str = "", message: str = "") -> bool:
    """End all tasks whose results wait for it; with a reason as incomplete."""
    held = [each for each in turn.of(Origin.TASK) if each.held]
    for item in held:
        if reason or item.partial:
            turn.finish(item, TaskStatus.INCOMPLETE, reason or item.reason, message or item.message)
        else:
            turn.finish(item, TaskStatus.COMPLETED)
    return bool(held)
