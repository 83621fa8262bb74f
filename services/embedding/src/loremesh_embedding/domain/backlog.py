"""Which texts are computed next: urgent before patient, fair among requests, alike in length."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeVar

# Padding a batch may hold: what a batch of its own would cost anyway, or a sixteenth of the real tokens.
_FREE_PADDING = 16
_PADDING_SHARE = 16

Owner = TypeVar("Owner", bound=Hashable)


class Priority(IntEnum):
    """How soon; someone waits for a query, and for a ranking, before they wait for a passage."""

    QUERY = 0
    RERANK = 1
    DOCUMENT = 2


@dataclass(slots=True)
class _Lane(Generic[Owner]):
    """What waits at one priority: entries are (length, ticket, index), shortest first; tickets in order of turn."""

    entries: list[tuple[int, int, int]] = field(default_factory=list)
    turns: dict[int, int] = field(default_factory=dict)


class Backlog(Generic[Owner]):
    """Texts that wait to be computed, each known by its owner and its index there."""

    def __init__(self, *, budget: int) -> None:
        """`budget` is the most tokens a batch holds, padding included; a longer text is a batch by itself."""
        self._budget = budget
        self._lanes: dict[Priority, _Lane[Owner]] = {priority: _Lane() for priority in Priority}
        self._owners: dict[int, Owner] = {}
        self._tickets: dict[Owner, tuple[Priority, int]] = {}
        self._next = 0

    def waiting(self, priority: Priority) -> int:
        """How many texts wait at this priority."""
        return len(self._lanes[priority].entries)

    def add(self, owner: Owner, lengths: Sequence[int], *, priority: Priority) -> None:
        """Queue one text per length, in tokens."""
        ticket, self._next = self._next, self._next + 1
        lane = self._lanes[priority]
        lane.entries.extend((length, ticket, index) for index, length in enumerate(lengths))
        lane.entries.sort()
        lane.turns[ticket] = len(lengths)
        self._owners[ticket], self._tickets[owner] = owner, (priority, ticket)

    def discard(self, owner: Owner) -> None:
        """Forget what still waits for `owner`; nothing happens when nothing does."""
        if owner not in self._tickets:
            return
        priority, ticket = self._tickets.pop(owner)
        lane = self._lanes[priority]
        lane.entries = [entry for entry in lane.entries if entry[1] != ticket]
        del lane.turns[ticket], self._owners[ticket]

    def take(self, *, up_to: Priority = Priority.DOCUMENT) -> list[tuple[Owner, int]]:
        """The next batch, of one priority and at most `up_to` patient; empty when nothing such waits."""
        for priority in Priority:
            if priority <= up_to and self._lanes[priority].entries:
                return self._take(self._lanes[priority])
        return []

    def _take(self, lane: _Lane[Owner]) -> list[tuple[Owner, int]]:
        # Whose turn it is gets its shortest text done, whatever else fits in beside it.
        turn = next(iter(lane.turns))
        seed = next(place for place, entry in enumerate(lane.entries) if entry[1] == turn)
        start, end = self._grow(lane.entries, seed)
        batch, lane.entries[start:end] = lane.entries[start:end], []
        lane.turns[turn] = lane.turns.pop(turn)
        taken = [(self._owners[ticket], index) for _, ticket, index in batch]
        for _, ticket, _ in batch:
            self._count_down(lane, ticket)
        return taken

    def _grow(self, entries: list[tuple[int, int, int]], seed: int) -> tuple[int, int]:
        """The widest slice around `seed`, first towards the longer, that keeps budget and padding."""
        start, end = seed, seed + 1
        real = entries[seed][0]
        while end < len(entries) and self._fits(entries[end][0], end + 1 - start, real + entries[end][0]):
            real += entries[end][0]
            end += 1
        longest = entries[end - 1][0]
        while start > 0 and self._fits(longest, end + 1 - start, real + entries[start - 1][0]):
            start -= 1
            real += entries[start][0]
        return start, end

    def _fits(self, longest: int, count: int, real: int) -> bool:
        padded = longest * count
        return padded <= self._budget and padded - real <= max(_FREE_PADDING, real // _PADDING_SHARE)

    def _count_down(self, lane: _Lane[Owner], ticket: int) -> None:
        lane.turns[ticket] -= 1
        if not lane.turns[ticket]:
            del lane.turns[ticket]
            del self._tickets[self._owners.pop(ticket)]
