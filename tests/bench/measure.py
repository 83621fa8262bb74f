"""Timing and reporting shared by the benchmarks."""

import statistics
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def milliseconds(work: Callable[[T], object], inputs: Iterable[T]) -> list[float]:
    """How long `work` took for each input, one after another."""
    times = []
    for value in inputs:
        started = time.perf_counter()
        work(value)
        times.append((time.perf_counter() - started) * 1000)
    return times


def p50(times: Iterable[float]) -> float:
    """The median."""
    return statistics.median(times)


def row(name: str, value: str, target: str, *, met: bool) -> None:
    """Print one line of the result."""
    print(f"{'ok ' if met else 'MISS'} {name:<58} {value:>16}   target {target}", flush=True)
