"""Filling chunks with units."""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from loremesh_ingestion.domain.chunking.units import Unit

_LOOKAHEAD = 4  # chunks; the last ones share what is left evenly, so that none is a scrap


def pack(units: Iterable[Unit], *, limit: int, overlap: int = 0) -> Iterator[list[Unit]]:
    """Yield runs of neighbouring units of at most `limit` tokens, as few as filling one after the other gives.

    With `overlap` a run begins with the last units of the one before it, as many as fit in that many tokens.
    """
    before: list[Unit] = []
    for group in _groups(units, limit - overlap):
        repeated = _tail(before[1:], min(overlap, limit - _total(group)))  # never all of it
        yield [*repeated, *group]
        before = group


def _groups(units: Iterable[Unit], capacity: int) -> Iterator[list[Unit]]:
    waiting: deque[Unit] = deque()
    total = 0
    for unit in units:
        waiting.append(unit)
        total += unit.tokens
        while total > _LOOKAHEAD * capacity:
            group = _first(waiting, capacity)
            total -= _total(group)
            yield group
    even = _even_capacity(waiting, capacity)
    while waiting:
        yield _first(waiting, even)


def _first(waiting: deque[Unit], capacity: int) -> list[Unit]:
    """Take what fits from the front; a unit over `capacity` (it may fill a whole chunk) is taken alone."""
    group = [waiting.popleft()]
    room = capacity - group[0].tokens
    while waiting and waiting[0].tokens <= room:
        group.append(waiting.popleft())
        room -= group[-1].tokens
    return group


def _even_capacity(units: Iterable[Unit], capacity: int) -> int:
    """Return the smallest capacity that needs no more groups than `capacity` does."""
    sizes = [unit.tokens for unit in units]
    fewest = _count(sizes, capacity)
    if fewest <= 1:
        return capacity
    return bisect_left(range(capacity), True, key=lambda smaller: _count(sizes, smaller) <= fewest)  # noqa: FBT003


def _count(sizes: Sequence[int], capacity: int) -> int:
    groups, room = 0, -1
    for size in sizes:
        if size > room:
            groups, room = groups + 1, capacity
        room -= size
    return groups


def _tail(units: list[Unit], tokens: int) -> list[Unit]:
    tail: list[Unit] = []
    for unit in reversed(units):
        tokens -= unit.tokens
        if tokens < 0:
            break
        tail.insert(0, unit)
    return tail


def _total(units: Iterable[Unit]) -> int:
    return sum(unit.tokens for unit in units)
