"""Crews, and what they have beside flows."""

from collections.abc import Mapping, Sequence
from typing import Any

from loremesh_crew.domain.definitions import Crew, RunLimits
from loremesh_crew.domain.inputs import check_inputs
from loremesh_crew.domain.machine import RunKind
from loremesh_crew.engine.definitions import DefinitionEngine
from loremesh_crew.ports import NewRun


class CrewEngine(DefinitionEngine[Crew]):
    """The use cases of CrewService."""

    kind = RunKind.CREW

    async def get(self, definition_id: str, *, revision: int = 0) -> Crew:
        """The crew as it is, or as it was; raises CrewNotFound, CrewRevisionNotFound."""
        return await self._library.crew(definition_id, revision=revision)

    async def kickoff_for_each(
        self, crew_id: str, *, revision: int, inputs: Sequence[Mapping[str, Any]], limits: RunLimits
    ) -> Sequence[str]:
        """Start a run for each of the inputs, all of one revision; their ids. Raises what ports.Kickoffs does."""
        crew = await self.get(crew_id, revision=revision)
        runs = [
            NewRun(
                kind=self.kind,
                definition_id=crew_id,
                revision=crew.revision,
                inputs=check_inputs(crew, each, field=f"inputs[{i}]"),
                limits=limits,
            )
            for i, each in enumerate(inputs)
        ]
        return await self._kickoffs.start(runs)
