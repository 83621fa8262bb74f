"""What the supervisor is given: programs, and what each needs to be there first."""

from dataclasses import dataclass
from pathlib import Path

from loremesh_cli.mesh.program import Program


@dataclass(frozen=True, slots=True)
class Stamp:
    """Remembers that a step was done; `text` stands for what it was done with."""

    file: Path
    text: str

    def matches(self) -> bool:
        """Tell whether it was done with the same."""
        return self.file.exists() and self.file.read_text() == self.text

    def put(self) -> None:
        """Remember it."""
        self.file.write_text(self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A program which starts when all it `needs` are ready, and stops before these and before all it `uses`.

    `once`: a step of the start, which ends by itself with status 0.
    """

    program: Program
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    once: bool = False
    address: str = ""
    stamp: Stamp | None = None

    @property
    def name(self) -> str:
        """Return the name of its program."""
        return self.program.name

    @property
    def done(self) -> bool:
        """Tell whether it is a step that need not be done again."""
        return self.stamp is not None and self.stamp.matches()
