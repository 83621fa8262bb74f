"""Flows: made, read, changed, deleted, and set to work."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from loremesh_kit.errors import EtagMismatch, FieldViolation
from loremesh_kit.ids import new_id
from loremesh_kit.pages import Position

from loremesh_crew.domain.definitions import Flow, RunLimits
from loremesh_crew.domain.machine import RunKind
from loremesh_crew.engine.flow_vetting import FlowVetting
from loremesh_crew.errors import BuiltInReadOnly, FlowExists, FlowInvalid, FlowNotFound
from loremesh_crew.ports import DefinitionStore, Kickoffs, Library, NewRun

# How often a change is made anew because another came between.
_TRIES = 10
_BUILT_IN = "built-in"


class FlowEngine:
    """The use cases of FlowService."""

    def __init__(
        self,
        *,
        store: DefinitionStore,
        built_in: Mapping[str, Flow],
        library: Library,
        vetting: FlowVetting,
        kickoffs: Kickoffs,
    ) -> None:
        """`built_in` are by their ids."""
        self._store = store
        self._built_in = built_in
        self._library = library
        self._vetting = vetting
        self._kickoffs = kickoffs

    async def create(self, flow: Flow) -> Flow:
        """Keep a new flow, with an id of ours where it has none; raises FlowExists, FlowInvalid."""
        if flow.id in self._built_in:
            raise FlowExists(flow.id)
        await self._check(flow)
        kept: Flow = await self._store.create(replace(flow, id=flow.id or new_id(), revision=1))
        return kept

    async def faults(self, flow: Flow) -> Sequence[FieldViolation]:
        """What is wrong with it."""
        return await self._vetting.faults(flow)

    async def get(self, flow_id: str, *, revision: int = 0) -> Flow:
        """The flow as it is, or as it was; raises FlowNotFound, FlowRevisionNotFound."""
        return await self._library.flow(flow_id, revision=revision)

    async def page(self, *, after: Position | None, limit: int) -> Sequence[Flow]:
        """At most `limit`: those built in, then by id."""
        found: list[Flow] = []
        if after is None or after.sort_key == _BUILT_IN:
            passed = after.id if after else ""
            found = [flow for flow_id, flow in sorted(self._built_in.items()) if flow_id > passed][:limit]
            after = None
        if len(found) < limit:
            # One that was kept before one of its id was built in is not to be had.
            room = limit - len(found) + len(self._built_in)
            kept = await self._store.page(after=after.id if after else "", limit=room)
            found.extend(flow for flow in kept if flow.id not in self._built_in)
        return found[:limit]

    async def update(self, flow_id: str, change: Callable[[Flow], Flow], *, etag: str) -> Flow:
        """What `change` makes of the flow, as its next revision; the current one where that is the same.

        Raises FlowNotFound, BuiltInReadOnly, EtagMismatch, FlowInvalid.
        """
        self._refuse_built_in(flow_id)
        for _ in range(_TRIES):
            current = await self.get(flow_id)
            if etag not in ("", current.etag):
                raise EtagMismatch
            wanted = replace(
                change(current),
                id=flow_id,
                revision=current.revision,
                built_in=False,
                create_time=current.create_time,
                update_time=current.update_time,
            )
            if wanted == current:
                return current
            await self._check(wanted)
            kept: Flow | None = await self._store.revise(wanted, expected=current.revision)
            if kept is not None:
                return kept
        raise EtagMismatch

    async def delete(self, flow_id: str) -> None:
        """Delete it; raises FlowNotFound, BuiltInReadOnly."""
        self._refuse_built_in(flow_id)
        if not await self._store.delete(flow_id):
            raise FlowNotFound(flow_id)

    async def revisions(self, flow_id: str, *, before: int | None, limit: int) -> Sequence[Flow]:
        """At most `limit`, newest first; raises FlowNotFound."""
        current = await self.get(flow_id)
        if current.built_in:
            return [current] if before is None or before > current.revision else []
        return await self._store.revisions(flow_id, before=before, limit=limit)

    async def rollback(self, flow_id: str, *, revision: int, etag: str) -> Flow:
        """Make an old revision the next one; raises FlowRevisionNotFound, and as `update`."""
        self._refuse_built_in(flow_id)
        await self.get(flow_id)
        past = await self.get(flow_id, revision=revision)
        return await self.update(flow_id, lambda _: past, etag=etag)

    async def kickoff(self, flow_id: str, *, revision: int, inputs: Mapping[str, Any], limits: RunLimits) -> str:
        """Start a run; its id. Raises what ports.Kickoffs does."""
        run = NewRun(kind=RunKind.FLOW, definition_id=flow_id, revision=revision, inputs=inputs, limits=limits)
        (run_id,) = await self._kickoffs.start([run])
        return run_id

    async def _check(self, flow: Flow) -> None:
        if found := await self.faults(flow):
            raise FlowInvalid(found)

    def _refuse_built_in(self, flow_id: str) -> None:
        if flow_id in self._built_in:
            raise BuiltInReadOnly(flow_id)
