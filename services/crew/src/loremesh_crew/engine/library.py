"""Crews and flows by their ids, those built in first."""

from collections.abc import Callable, Mapping
from typing import Any

from loremesh_kit.errors import ServiceError

from loremesh_crew.domain.definitions import Crew, Flow
from loremesh_crew.errors import CrewNotFound, CrewRevisionNotFound, FlowNotFound, FlowRevisionNotFound
from loremesh_crew.ports import DefinitionStore


class DefinitionLibrary:
    """See ports.Library."""

    def __init__(
        self,
        *,
        crews: DefinitionStore,
        flows: DefinitionStore,
        built_in_crews: Mapping[str, Crew],
        built_in_flows: Mapping[str, Flow],
    ) -> None:
        """Those built in are by their ids."""
        self._crews = _Shelf(crews, built_in_crews, CrewNotFound, CrewRevisionNotFound)
        self._flows = _Shelf(flows, built_in_flows, FlowNotFound, FlowRevisionNotFound)

    async def crew(self, crew_id: str, *, revision: int = 0) -> Crew:
        """See ports.Library."""
        found: Crew = await self._crews.find(crew_id, revision)
        return found

    async def flow(self, flow_id: str, *, revision: int = 0) -> Flow:
        """See ports.Library."""
        found: Flow = await self._flows.find(flow_id, revision)
        return found


class _Shelf:
    def __init__(
        self,
        store: DefinitionStore,
        built_in: Mapping[str, Any],
        missing: Callable[[str], ServiceError],
        revision_missing: Callable[[str, int], ServiceError],
    ) -> None:
        self._store = store
        self._built_in = built_in
        self._missing = missing
        self._revision_missing = revision_missing

    async def find(self, id_: str, revision: int) -> Any:
        built_in = self._built_in.get(id_)
        if built_in is not None:
            if revision in (0, built_in.revision):
                return built_in
            raise self._revision_missing(id_, revision)
        found = await (self._store.revision(id_, revision) if revision else self._store.current(id_))
        if found is not None:
            return found
        if revision and await self._store.revisions(id_, before=None, limit=1):
            raise self._revision_missing(id_, revision)
        raise self._missing(id_)
