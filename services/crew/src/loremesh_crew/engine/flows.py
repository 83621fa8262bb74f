"""Flows; see `definitions.py`."""

from loremesh_crew.domain.definitions import Flow
from loremesh_crew.domain.machine import RunKind
from loremesh_crew.engine.definitions import DefinitionEngine


class FlowEngine(DefinitionEngine[Flow]):
    """The use cases of FlowService."""

    kind = RunKind.FLOW

    async def get(self, definition_id: str, *, revision: int = 0) -> Flow:
        """The flow as it is, or as it was; raises FlowNotFound, FlowRevisionNotFound."""
        return await self._library.flow(definition_id, revision=revision)
