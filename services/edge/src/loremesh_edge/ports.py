"""What the edge service needs of others."""

from collections.abc import Mapping
from typing import Protocol


class HealthSource(Protocol):
    """One service of the mesh, asked how it is."""

    async def health(self) -> Mapping[str, bool]:
        """Whether each name serves: `""` is the service itself, `dependency/<name>` something it depends on.

        Raises Unreachable when no answer comes.
        """
        ...


class Unreachable(Exception):
    """The service does not answer."""
