"""How long a run has been at work."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Counts seconds from its making on, but for those in which it is stopped."""

    def __init__(self) -> None:
        self._since: float | None = time.monotonic()
        self._counted = 0.0

    @property
    def seconds(self) -> float:
        """How many so far."""
        return self._counted + (0.0 if self._since is None else time.monotonic() - self._since)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Count nothing meanwhile."""
        self._counted, self._since = self.seconds, None
        try:
            yield
        finally:
            self._since = time.monotonic()
