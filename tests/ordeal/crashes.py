"""Crash points: found by looking on while everything goes well, then struck one after the other."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tests.ordeal.acts import Act
from tests.ordeal.checker import Finding, Promise
from tests.ordeal.life import Aim, Mode, Point
from tests.ordeal.lot import Lot
from tests.ordeal.steel import LEASE

# They come by the clock, not by the work: whether and when an act meets one differs from run to run.
_BY_THE_CLOCK = re.compile(r"@(sweeper\.|leases\._EXTEND|consumer\._ask|outbox\._SEND_AGAIN)")
# Loops meet these several times in one act; only the first time is the same in each run.
_IN_LOOPS = re.compile(r"@(outbox\.|leases\.|events\.)")
PROMISES = frozenset({Promise.STRICT_SEARCH})


@dataclass(frozen=True, slots=True)
class Case:
    """One act, struck at one point in one way."""

    act: Act
    aim: Aim

    def __str__(self) -> str:
        return f"{self.act.name}: {self.aim.point} {self.aim.mode}"


async def discover(lot: Lot, act: Act) -> list[Point]:
    """Every call through a port while the act is done, but those that come by the clock."""
    subject = await act.prepare(lot)
    life = lot.process.life
    life.aim(None)
    await act.perform(lot, subject)
    if not await lot.quiet():
        message = f"{act.name} does not end even when nothing fails"
        raise AssertionError(message)
    return [
        point
        for point in life.passed
        if not _BY_THE_CLOCK.search(point.name) and (point.nth == 1 or not _IN_LOOPS.search(point.name))
    ]


async def suffer(lot: Lot, case: Case) -> tuple[bool, list[Finding]]:
    """Do the act, be struck, start again, come to rest; whether the point was met, and the verdict."""
    subject = await case.act.prepare(lot)
    struck = lot.process
    struck.life.aim(case.aim)
    acting = asyncio.ensure_future(case.act.perform(lot, subject))
    await _struck_or_done(lot, acting)
    if struck.life.frozen.is_set():
        await lot.start()
        await lot.pass_time()
        await lot.quiet(2.5 * LEASE)
        struck.life.thaw()
        await acting
        await lot.quiet(2.5 * LEASE)
        await struck.end()
    await acting
    if struck.life.died.is_set():
        await lot.start()
    await lot.settle()
    met = struck.life.struck
    lot.process.life.aim(None)
    if subject and not case.act.name.startswith("delete"):
        await lot.look(subject)
    return met, await lot.settled_verdict(promises=PROMISES)


async def _struck_or_done(lot: Lot, acting: "asyncio.Future[object]") -> None:
    life = lot.process.life
    ends = [asyncio.ensure_future(each.wait()) for each in (life.died, life.frozen)]
    await asyncio.wait({acting, *ends}, return_when=asyncio.FIRST_COMPLETED)
    for each in ends:
        each.cancel()
    await lot.quiet(or_dead=True)


def cases(act: Act, points: Sequence[Point], modes: Sequence[Mode] = tuple(Mode)) -> list[Case]:
    """Every point in every mode."""
    return [Case(act, Aim(point, mode)) for point in points for mode in modes]
