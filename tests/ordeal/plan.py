"""Decides from the seed alone what goes wrong and when, so that a run can be played again."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

SERVICES = ("ingestion", "embedding", "retrieval", "agent", "crew", "edge", "gateway")
STORES = ("postgres", "nats", "seaweedfs")
LINKS = ("postgres", "nats", "s3")


class Kind(StrEnum):
    """The ways in which things go wrong."""

    KILL = "kill"
    FREEZE = "freeze"
    RESTART = "restart"
    WIPE = "wipe"
    CUT = "cut"
    SLOW = "slow"
    FULL = "full"


# Of a hundred faults.
_SHARES = {Kind.KILL: 55, Kind.FREEZE: 10, Kind.RESTART: 10, Kind.WIPE: 6, Kind.CUT: 8, Kind.SLOW: 6, Kind.FULL: 5}
_VICTIMS: dict[Kind, Sequence[str]] = {
    # What does the work is hit three times as often.
    Kind.KILL: (*SERVICES, *STORES, *("ingestion", "retrieval", "agent", "crew") * 2),
    Kind.FREEZE: ("ingestion", "ingestion", "retrieval", "embedding", "agent", "crew", "nats"),
    Kind.RESTART: SERVICES,
    Kind.WIPE: ("nats",),
    Kind.CUT: LINKS,
    Kind.SLOW: LINKS,
    # Where root runs the mesh, Postgres has an account of its own, out of the limit's reach.
    Kind.FULL: ("seaweedfs", "seaweedfs", "nats"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong, so many seconds after the start; `lasts` is for those which pass."""

    number: int
    at: float
    kind: Kind
    victim: str
    lasts: float = 0.0

    def __str__(self) -> str:
        lasting = f" for {self.lasts:.1f} s" if self.lasts else ""
        return f"{self.number:4} {self.at:7.1f} s  {self.kind} {self.victim}{lasting}"


def faults(*, seed: int, count: int, seconds: float, lease: float) -> list[Fault]:
    """`count` faults over `seconds`, about evenly; a freeze outlasts the lease of the jobs in hand."""
    chance = random.Random(seed)  # noqa: S311 - a plan to be played again, not a secret
    kinds = _kinds(chance, count)
    return [_fault(chance, number, kind, seconds / count, lease) for number, kind in enumerate(kinds)]


def _kinds(chance: random.Random, count: int) -> list[Kind]:
    """Each kind by its share and once at least, where there is room; in any order."""
    once = list(Kind)[:count]
    rest = chance.choices(list(_SHARES), weights=list(_SHARES.values()), k=count - len(once))
    kinds = [*once, *rest]
    chance.shuffle(kinds)
    return kinds


def _fault(chance: random.Random, number: int, kind: Kind, interval: float, lease: float) -> Fault:
    lasts = {
        Kind.FREEZE: lease * chance.uniform(1.2, 2.0),
        Kind.CUT: chance.uniform(0.5, 3.0),
        Kind.SLOW: chance.uniform(2.0, 6.0),
        Kind.FULL: chance.uniform(2.0, 6.0),
    }
    return Fault(
        number=number,
        at=interval * (number + chance.random()),
        kind=kind,
        victim=chance.choice(_VICTIMS[kind]),
        lasts=round(lasts.get(kind, 0.0), 2),
    )
