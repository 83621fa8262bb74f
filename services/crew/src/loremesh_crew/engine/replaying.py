"""Runs decided anew, and compared with what was decided then."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from loremesh_crew.domain import codec
from loremesh_crew.engine.running import Running
from loremesh_crew.ports import KeptDecision, RunViews

_PAGE = 200
_MOST_DIFFERENCES = 100
_SHOWN_CHARS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A decision that comes out differently; texts are JSON, cut."""

    decision: int
    event: str
    recorded: str
    replayed: str


class Replaying:
    """Decides runs anew."""

    def __init__(self, *, views: RunViews, running: Running) -> None:
        self._views = views
        self._running = running

    async def replay(self, run_id: str) -> tuple[int, list[Difference]]:
        """How many decisions there are, and which of them come out differently, the first hundred.

        Raises RunNotFound, EngineVersionUnknown.
        """
        run = await self._views.get(run_id)
        machine = self._running.machine(run)
        differences: list[Difference] = []
        state, number = machine.begin(run.pinned), 0
        async for kept in history_of(self._views, run_id):
            number = kept.number
            state, commands = machine.decide(run.pinned, state, kept.event)
            now = [codec.tagged(each) for each in commands]
            if now != kept.commands and len(differences) < _MOST_DIFFERENCES:
                differences.append(_difference(kept, now))
            # Long histories are many decisions, and others want to be served.
            await asyncio.sleep(0)
        return number, differences


async def history_of(views: RunViews, run_id: str) -> AsyncIterator[KeptDecision]:
    """All decisions on a run, in order."""
    after = 0
    while page := await views.history(run_id, after=after, limit=_PAGE):
        for each in page:
            yield each
        after = page[-1].number


def _difference(kept: KeptDecision, now: list[dict[str, object]]) -> Difference:
    return Difference(
        decision=kept.number,
        event=type(kept.event).__name__,
        recorded=codec.text(list(kept.commands))[:_SHOWN_CHARS],
        replayed=codec.text(now)[:_SHOWN_CHARS],
    )
