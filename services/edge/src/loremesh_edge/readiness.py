"""Asks every service how it is, all at once, and puts the answers together."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from loremesh_edge.errors import MeshNotReady
from loremesh_edge.ports import HealthSource, Unreachable

_ITSELF = ""
_DEPENDENCY = "dependency/"


class State(StrEnum):
    """How a part of the mesh is."""

    READY = "READY"
    NOT_READY = "NOT_READY"
    UNREACHABLE = "UNREACHABLE"


@dataclass(frozen=True, slots=True)
class Component:
    """A service with what it depends on, or one of those."""

    name: str
    state: State
    dependencies: Sequence["Component"] = ()


class Readiness:
    """Knows every service of the mesh by name."""

    def __init__(self, *, services: Mapping[str, HealthSource], seconds: float) -> None:
        """`seconds` is how long a service may take to answer before it counts as unreachable."""
        self._services = services
        self._seconds = seconds

    async def check(self) -> Sequence[Component]:
        """Every service, all of them ready; raises MeshNotReady naming those which are not."""
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._ask(name, source)) for name, source in self._services.items()]
        components = [task.result() for task in asked]
        if failing := dict(_failing(components)):
            raise MeshNotReady(failing)
        return components

    async def _ask(self, name: str, source: HealthSource) -> Component:
        try:
            async with asyncio.timeout(self._seconds):
                return _component(name, await source.health())
        except (Unreachable, TimeoutError):
            return Component(name=name, state=State.UNREACHABLE)


def _component(name: str, serving: Mapping[str, bool]) -> Component:
    dependencies = [
        Component(name=each.removeprefix(_DEPENDENCY), state=_state(serves))
        for each, serves in sorted(serving.items())
        if each.startswith(_DEPENDENCY)
    ]
    return Component(name=name, state=_state(serving.get(_ITSELF, False)), dependencies=dependencies)


def _state(serves: bool) -> State:
    return State.READY if serves else State.NOT_READY


def _failing(components: Sequence[Component], *, within: str = "") -> Iterator[tuple[str, str]]:
    for component in components:
        if component.state is not State.READY:
            yield within + component.name, component.state.value
        yield from _failing(component.dependencies, within=f"{within}{component.name}/")
