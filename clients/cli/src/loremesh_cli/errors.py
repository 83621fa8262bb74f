"""What goes wrong, in words for the person at the terminal, with the exit status it ends in."""


class CommandError(Exception):
    """A command could not do what it was asked; `reason` is a word a script can tell apart."""

    status = 1

    def __init__(self, message: str, *, reason: str = "FAILED") -> None:
        super().__init__(message)
        self.reason = reason


class UsageError(CommandError):
    """What was asked for makes no sense."""

    status = 2


class MeshUnreachableError(CommandError):
    """No mesh answers at the address."""

    status = 3
