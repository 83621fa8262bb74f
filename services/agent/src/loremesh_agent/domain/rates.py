"""Rates: so much a minute, and no more."""


class Bucket:
    """Holds what a minute allows and fills as time goes by; what is taken before it is there is owed.

    Times are seconds of one monotonic clock, whichever.
    """

    def __init__(self, *, per_minute: int) -> None:
        self._capacity = float(per_minute)
        self._level = self._capacity
        self._at = 0.0

    def wait(self, amount: float, now: float) -> float:
        """Seconds until that much is there; more than a minute allows waits for all of it."""
        self._fill(now)
        return max(0.0, (min(amount, self._capacity) - self._level) * 60 / self._capacity)

    def take(self, amount: float, now: float) -> None:
        """Take it, or owe it."""
        self._fill(now)
        self._level -= min(amount, self._capacity)

    def give_back(self, amount: float) -> None:
        """What was taken and not used."""
        self._level = min(self._capacity, self._level + amount)

    def _fill(self, now: float) -> None:
        self._level = min(self._capacity, self._level + max(0.0, now - self._at) * self._capacity / 60)
        self._at = max(self._at, now)
