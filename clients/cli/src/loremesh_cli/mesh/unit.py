"""What the supervisor is given: programs, and what each needs to be there first."""

from dataclasses import dataclass

from loremesh_cli.mesh.program import Program


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A program which starts when all it `needs` are ready; `once`: a step which ends by itself with status 0."""

    program: Program
    needs: tuple[str, ...] = ()
    once: bool = False
    address: str = ""

    @property
    def name(self) -> str:
        """Return the name of its program."""
        return self.program.name
