"""Crews and flows alike: made, read, changed, deleted, and set to work."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from loremesh_kit.errors import EtagMismatch, FieldViolation
from loremesh_kit.ids import new_id
from loremesh_kit.pages import Position

from loremesh_crew.domain.definitions import Crew, Flow, RunLimits
from loremesh_crew.domain.machine import RunKind
from loremesh_crew.errors import (
    BuiltInReadOnly,
    CrewExists,
    CrewInvalid,
    CrewNotFound,
    FlowExists,
    FlowInvalid,
    FlowNotFound,
)
from loremesh_crew.ports import DefinitionStore, Kickoffs, Library, NewRun

# How often a change is made anew because another came between.
_TRIES = 10
_BUILT_IN = "built-in"
_KEPT = "kept"
_EXISTS = {RunKind.CREW: CrewExists, RunKind.FLOW: FlowExists}
_INVALID = {RunKind.CREW: CrewInvalid, RunKind.FLOW: FlowInvalid}
_MISSING = {RunKind.CREW: CrewNotFound, RunKind.FLOW: FlowNotFound}

D = TypeVar("D", Crew, Flow)
C_contra = TypeVar("C_contra", contravariant=True)


def position(definition_id: str, *, built_in: bool) -> Position:
    """Where a crew or a flow stands in the list."""
    return Position(sort_key=_BUILT_IN if built_in else _KEPT, id=definition_id)


class Vets(Protocol[C_contra]):
    """Finds what is wrong with definitions."""

    async def faults(self, definition: C_contra, /) -> Sequence[FieldViolation]:
        """All of it."""
        ...


class DefinitionEngine(Generic[D]):
    """The use cases which CrewService and FlowService share; Exists, Invalid and NotFound are those of the kind."""

    kind: ClassVar[RunKind]

    def __init__(
        self,
        *,
        store: DefinitionStore,
        built_in: Mapping[str, D],
        library: Library,
        vetting: Vets[D],
        kickoffs: Kickoffs,
    ) -> None:
        """`built_in` are by their ids."""
        self._store = store
        self._built_in: Mapping[str, D] = built_in
        self._library = library
        self._vetting: Vets[D] = vetting
        self._kickoffs = kickoffs

    async def get(self, definition_id: str, *, revision: int = 0) -> D:
        """As it is, or as it was; raises NotFound, and where there is no such revision that."""
        raise NotImplementedError

    async def create(self, definition: D) -> D:
        """Keep a new one, with an id of ours where it has none; raises Exists, Invalid."""
        if definition.id in self._built_in:
            raise _EXISTS[self.kind](definition.id)
        await self.check(definition)
        kept: D = await self._store.create(replace(definition, id=definition.id or new_id(), revision=1))
        return kept

    async def check(self, definition: D) -> None:
        """Raise Invalid with all that is wrong with it."""
        if found := await self.faults(definition):
            raise _INVALID[self.kind](found)

    async def faults(self, definition: D) -> Sequence[FieldViolation]:
        """What is wrong with it."""
        return await self._vetting.faults(definition)

    async def page(self, *, after: Position | None, limit: int) -> Sequence[D]:
        """At most `limit`: those built in, then by id."""
        found: list[D] = []
        if after is None or after.sort_key == _BUILT_IN:
            passed = after.id if after else ""
            found = [each for each_id, each in sorted(self._built_in.items()) if each_id > passed][:limit]
            after = None
        if len(found) < limit:
            # One that was kept before one of its id was built in is not to be had.
            room = limit - len(found) + len(self._built_in)
            kept = await self._store.page(after=after.id if after else "", limit=room)
            found.extend(each for each in kept if each.id not in self._built_in)
        return found[:limit]

    async def update(self, definition_id: str, change: Callable[[D], D], *, etag: str) -> D:
        """What `change` makes of it, as its next revision; the current one where that is the same.

        Raises NotFound, BuiltInReadOnly, EtagMismatch, Invalid.
        """
        self._refuse_built_in(definition_id)
        for _ in range(_TRIES):
            current = await self.get(definition_id)
            if etag not in ("", current.etag):
                raise EtagMismatch
            wanted = replace(
                change(current),
                id=definition_id,
                revision=current.revision,
                built_in=False,
                create_time=current.create_time,
                update_time=current.update_time,
            )
            if wanted == current:
                return current
            await self.check(wanted)
            kept: D | None = await self._store.revise(wanted, expected=current.revision)
            if kept is not None:
                return kept
        raise EtagMismatch

    async def delete(self, definition_id: str) -> None:
        """Delete it; raises NotFound, BuiltInReadOnly."""
        self._refuse_built_in(definition_id)
        if not await self._store.delete(definition_id):
            raise _MISSING[self.kind](definition_id)

    async def revisions(self, definition_id: str, *, before: int | None, limit: int) -> Sequence[D]:
        """At most `limit`, newest first; raises NotFound."""
        current = await self.get(definition_id)
        if current.built_in:
            return [current] if before is None or before > current.revision else []
        return await self._store.revisions(definition_id, before=before, limit=limit)

    async def rollback(self, definition_id: str, *, revision: int, etag: str) -> D:
        """Make an old revision the next one; raises as `get` and `update`."""
        self._refuse_built_in(definition_id)
        await self.get(definition_id)
        past = await self.get(definition_id, revision=revision)
        return await self.update(definition_id, lambda _: past, etag=etag)

    async def kickoff(self, definition_id: str, *, revision: int, inputs: Mapping[str, Any], limits: RunLimits) -> str:
        """Start a run; its id. Raises what ports.Kickoffs does."""
        run = NewRun(kind=self.kind, definition_id=definition_id, revision=revision, inputs=inputs, limits=limits)
        (run_id,) = await self._kickoffs.start([run])
        return run_id

    def _refuse_built_in(self, definition_id: str) -> None:
        if definition_id in self._built_in:
            raise BuiltInReadOnly(definition_id)
