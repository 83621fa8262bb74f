"""Circuit breakers: a provider that fails again and again is left alone for a while."""


class Breaker:
    """Opens after so many failures in a row; after `seconds` one request at a time finds out how things are.

    Times are seconds of one monotonic clock, whichever.
    """

    def __init__(self, *, failures: int, seconds: float) -> None:
        self._limit = failures
        self._seconds = seconds
        self._failures = 0
        self._open_until = 0.0
        self._probing = False

    def enter(self, now: float) -> float:
        """Zero to let a request pass, whose end must then be told; otherwise seconds until the next one may try."""
        if self._failures < self._limit:
            return 0.0
        if left := self.left(now):
            return left
        if self._probing:
            return self._seconds
        self._probing = True
        return 0.0

    def left(self, now: float) -> float:
        """Seconds for which it stays open; zero where it is not."""
        return max(0.0, self._open_until - now) if self._failures >= self._limit else 0.0

    def succeeded(self) -> None:
        """A request was answered, with a refusal maybe."""
        self._failures = 0
        self._probing = False

    def failed(self, now: float) -> None:
        """A request was not."""
        self._failures += 1
        self._probing = False
        self._open_until = now + self._seconds

    def abandoned(self) -> None:
        """Nobody waited for the answer: the next one may try."""
        self._probing = False
