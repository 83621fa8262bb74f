"""The table."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tests.ordeal.checker import EVERY_PROMISE, Finding, Promise, tally
from tests.ordeal.ledger import Entry, Outcome
from tests.ordeal.plan import Fault

_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of an ordeal; `recovery` has for each document that was late its seconds since the last fault.

    `window` is how many unfinished documents all clients together had at most.
    """

    seed: int
    window: int
    findings: Sequence[Finding]
    entries: Sequence[Entry]
    faults: Sequence[Fault]
    missed: Sequence[Fault]
    recovery: Sequence[float]
    promises: Collection[Promise]

    @property
    def passed(self) -> bool:
        """Whether every promise was kept."""
        return not self.findings

    def __str__(self) -> str:
        counted = Counter(f"{entry.call} {entry.outcome}" for entry in self.entries)
        kinds = Counter(fault.kind for fault in self.faults)
        accepted = sum(entry.call == "upload" and entry.outcome is Outcome.OK for entry in self.entries)
        runs = sum(entry.call == "run" and entry.outcome is Outcome.OK for entry in self.entries)
        switches = sum(entry.call == "switched" and entry.outcome is Outcome.OK for entry in self.entries)
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        lines = [
            "",
            f"seed {self.seed}: {accepted} documents, {runs} runs accepted",
            f"at most {self.window} documents unfinished at a time; {switches} switches of a generation",
            f"faults: {faults}; {len(self.missed)} left out",
            "calls: " + ", ".join(f"{count} {name}" for name, count in sorted(counted.items())),
            *(f"not checked, for this mesh does not promise it yet: {each}" for each in self._absent()),
            "",
            *(f"{wrong:<12}{count:>6}" for wrong, count in tally(self.findings).items()),
            f"recovery    p50 {percentile(self.recovery, 50):.1f} s, p99 {percentile(self.recovery, 99):.1f} s",
            *(f"  {each.wrong}: {each.what}" for each in self.findings[:_SHOWN]),
        ]
        return "\n".join(lines)

    def _absent(self) -> list[str]:
        return sorted(EVERY_PROMISE.difference(self.promises))


def percentile(sorted_values: Sequence[float], percent: int) -> float:
    """The value below which so many percent are; 0 for none."""
    if not sorted_values:
        return 0.0
    return sorted_values[min(len(sorted_values) - 1, len(sorted_values) * percent // 100)]
