"""Crews: made, read, changed, deleted, and set to work."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from loremesh_kit.errors import EtagMismatch, FieldViolation
from loremesh_kit.ids import new_id
from loremesh_kit.pages import Position

from loremesh_crew.domain.definitions import Crew, RunLimits
from loremesh_crew.domain.inputs import check_inputs
from loremesh_crew.domain.machine import RunKind
from loremesh_crew.engine.vetting import Vetting
from loremesh_crew.errors import BuiltInReadOnly, CrewExists, CrewInvalid, CrewNotFound
from loremesh_crew.ports import DefinitionStore, Kickoffs, Library, NewRun

# How often a change is made anew because another came between.
_TRIES = 10
_BUILT_IN = "built-in"
_KEPT = "kept"


def position(crew_id: str, *, built_in: bool) -> Position:
    """Where a crew stands in the list."""
    return Position(sort_key=_BUILT_IN if built_in else _KEPT, id=crew_id)


class CrewEngine:
    """The use cases of CrewService."""

    def __init__(
        self,
        *,
        store: DefinitionStore,
        built_in: Mapping[str, Crew],
        library: Library,
        vetting: Vetting,
        kickoffs: Kickoffs,
    ) -> None:
        """`built_in` are by their ids."""
        self._store = store
        self._built_in = built_in
        self._library = library
        self._vetting = vetting
        self._kickoffs = kickoffs

    async def create(self, crew: Crew) -> Crew:
        """Keep a new crew, with an id of ours where it has none; raises CrewExists, CrewInvalid."""
        if crew.id in self._built_in:
            raise CrewExists(crew.id)
        await self.check(crew)
        kept: Crew = await self._store.create(replace(crew, id=crew.id or new_id(), revision=1))
        return kept

    async def check(self, crew: Crew) -> None:
        """Raise CrewInvalid with all that is wrong with it."""
        if found := await self.faults(crew):
            raise CrewInvalid(found)

    async def faults(self, crew: Crew) -> Sequence[FieldViolation]:
        """What is wrong with it."""
        return await self._vetting.faults(crew)

    async def get(self, crew_id: str, *, revision: int = 0) -> Crew:
        """The crew as it is, or as it was; raises CrewNotFound, CrewRevisionNotFound."""
        return await self._library.crew(crew_id, revision=revision)

    async def page(self, *, after: Position | None, limit: int) -> Sequence[Crew]:
        """At most `limit`: those built in, then by id."""
        found: list[Crew] = []
        if after is None or after.sort_key == _BUILT_IN:
            passed = after.id if after else ""
            found = [crew for crew_id, crew in sorted(self._built_in.items()) if crew_id > passed][:limit]
            after = None
        if len(found) < limit:
            # One that was kept before one of its id was built in is not to be had.
            room = limit - len(found) + len(self._built_in)
            kept = await self._store.page(after=after.id if after else "", limit=room)
            found.extend(crew for crew in kept if crew.id not in self._built_in)
        return found[:limit]

    async def update(self, crew_id: str, change: Callable[[Crew], Crew], *, etag: str) -> Crew:
        """What `change` makes of the crew, as its next revision; the current one where that is the same.

        Raises CrewNotFound, BuiltInReadOnly, EtagMismatch, CrewInvalid.
        """
        self._refuse_built_in(crew_id)
        for _ in range(_TRIES):
            current = await self.get(crew_id)
            if etag not in ("", current.etag):
                raise EtagMismatch
            wanted = replace(
                change(current),
                id=crew_id,
                revision=current.revision,
                built_in=False,
                create_time=current.create_time,
                update_time=current.update_time,
            )
            if wanted == current:
                return current
            await self.check(wanted)
            kept: Crew | None = await self._store.revise(wanted, expected=current.revision)
            if kept is not None:
                return kept
        raise EtagMismatch

    async def delete(self, crew_id: str) -> None:
        """Delete it; raises CrewNotFound, BuiltInReadOnly."""
        self._refuse_built_in(crew_id)
        if not await self._store.delete(crew_id):
            raise CrewNotFound(crew_id)

    async def revisions(self, crew_id: str, *, before: int | None, limit: int) -> Sequence[Crew]:
        """At most `limit`, newest first; raises CrewNotFound."""
        current = await self.get(crew_id)
        if current.built_in:
            return [current] if before is None or before > current.revision else []
        return await self._store.revisions(crew_id, before=before, limit=limit)

    async def rollback(self, crew_id: str, *, revision: int, etag: str) -> Crew:
        """Make an old revision the next one; raises CrewRevisionNotFound, and as `update`."""
        self._refuse_built_in(crew_id)
        await self.get(crew_id)
        past = await self.get(crew_id, revision=revision)
        return await self.update(crew_id, lambda _: past, etag=etag)

    async def kickoff(self, crew_id: str, *, revision: int, inputs: Mapping[str, Any], limits: RunLimits) -> str:
        """Start a run; its id. Raises what ports.Kickoffs does."""
        run = NewRun(kind=RunKind.CREW, definition_id=crew_id, revision=revision, inputs=inputs, limits=limits)
        (run_id,) = await self._kickoffs.start([run])
        return run_id

    async def kickoff_for_each(
        self, crew_id: str, *, revision: int, inputs: Sequence[Mapping[str, Any]], limits: RunLimits
    ) -> Sequence[str]:
        """Start a run for each of the inputs, all of one revision; their ids. Raises what ports.Kickoffs does."""
        crew = await self.get(crew_id, revision=revision)
        runs = [
            NewRun(
                kind=RunKind.CREW,
                definition_id=crew_id,
                revision=crew.revision,
                inputs=check_inputs(crew, each, field=f"inputs[{i}]"),
                limits=limits,
            )
            for i, each in enumerate(inputs)
        ]
        return await self._kickoffs.start(runs)

    def _refuse_built_in(self, crew_id: str) -> None:
        if crew_id in self._built_in:
            raise BuiltInReadOnly(crew_id)
