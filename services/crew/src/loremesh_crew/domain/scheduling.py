"""What of a crew's run can be begun, and in which order."""

from loremesh_crew.domain.crew_state import Item, Origin, Stage
from loremesh_crew.domain.crew_turn import BUDGET, Turn
from loremesh_crew.domain.definitions import Process
from loremesh_crew.domain.machine import TaskStatus

_AT_ONCE = 10


def begin_ready(turn: Turn) -> bool:
    """Begin what can be begun; whether anything changed."""
    moved = False
    for name in _ready(turn):
        item = turn.items[name]
        if turn.state.stop is None and (item.origin is Origin.DELEGATED or _room(turn)):
            moved = turn.begin(item) or moved
    return moved


def skip_dependants(turn: Turn) -> bool:
    """End what depends on what has no output; whether anything changed."""
    moved = False
    for item in tuple(turn.items.values()):
        begun = item.status is not TaskStatus.PENDING and not item.draft
        failed = None if begun or item.task_id else _failed(turn, item)
        if failed is None:
            continue
        moved = True
        # What a round before made is there.
        status = TaskStatus.INCOMPLETE if item.draft else TaskStatus.SKIPPED
        if failed.reason == BUDGET:
            turn.finish(item, status, BUDGET, failed.message)
        else:
            turn.finish(item, status, "DEPENDENCY_FAILED", f"It depends on {failed.name}, which has no output.")
    return moved


def _failed(turn: Turn, item: Item) -> Item | None:
    needed = (turn.items[name] for name in item.depends_on)
    return next((each for each in needed if each.ended and not each.done), None)


def _room(turn: Turn) -> bool:
    """Whether one more may be in work; what was handed on needs no room: whoever waits for it has some."""
    at_once = 1 if turn.crew.process is Process.SEQUENTIAL else turn.crew.max_parallel or _AT_ONCE
    return sum(1 for each in turn.items.values() if each.task_id and each.origin is not Origin.DELEGATED) < at_once


def _ready(turn: Turn) -> list[str]:
    """Names of what waits for nothing but room and budget: what was begun before, then by priority, then in order."""
    ready: list[tuple[bool, int, int, str]] = []
    in_turn = turn.crew.process is not Process.PARALLEL
    # Tasks that are done one after the other: whether those before are.
    passed = turn.state.stage is Stage.WRITING or not turn.cast.managed
    for place, item in enumerate(turn.items.values()):
        own = item.origin is Origin.TASK
        free = item.to_begin and not item.timer and (passed or not own)
        if free and all(turn.items[name].done for name in item.depends_on):
            priority = turn.cast.task(item).priority
            ready.append((not item.attempts, -priority, place, item.name))
        if own and in_turn:
            passed = passed and item.settled
    return [name for *_, name in sorted(ready)]
