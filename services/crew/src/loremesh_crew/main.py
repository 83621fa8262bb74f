"""Connects the crew service to what it needs, and runs it."""


def main() -> None:
    """Serve, work, migrate or ask for health, as the command line says."""
    raise SystemExit("not there yet")
