"""Finds the two files of a CrewAI project that a crew is made of."""

from pathlib import Path

from loremesh_cli.errors import UsageError

# In the order they are looked for: the folder itself, then where CrewAI's own template has them.
_PLACES = (".", "config", "src/*/config")


def read(directory: Path) -> tuple[str, str]:
    """The texts of `agents.yaml` and `tasks.yaml`; raises UsageError where they are not there."""
    for place in _PLACES:
        for folder in sorted(directory.glob(place)) if "*" in place else [directory / place]:
            agents, tasks = folder / "agents.yaml", folder / "tasks.yaml"
            if agents.is_file() and tasks.is_file():
                try:
                    return agents.read_text(encoding="utf-8"), tasks.read_text(encoding="utf-8")
                except (OSError, ValueError) as error:
                    raise UsageError(f"{folder} cannot be read: {error}", reason="FILE_INVALID") from error
    raise UsageError(f"no agents.yaml and tasks.yaml in {directory}, config or src/*/config", reason="FILE_INVALID")
