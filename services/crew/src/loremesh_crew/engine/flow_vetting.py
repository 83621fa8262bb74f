"""What is wrong with a flow that is to be kept, by the word of others too: crews, other flows, the agent service."""

from collections.abc import Iterator
from dataclasses import replace

from loremesh_kit.errors import FieldViolation

from loremesh_crew.domain import flow_checks
from loremesh_crew.domain.definitions import CrewAgent, CrewWork, Flow, FlowWork, ToolUse
from loremesh_crew.domain.inputs import needed
from loremesh_crew.engine.vetting import Asked, Question, Vetting, about_agent, about_task
from loremesh_crew.errors import (
    CrewNotFound,
    CrewRevisionNotFound,
    FlowInvalid,
    FlowNotFound,
    FlowRevisionNotFound,
)
from loremesh_crew.ports import Library

# Flows that a flow comes to, itself among them.
_MAX_FLOWS = 200


class FlowVetting:
    """Finds all faults of a flow at once."""

    def __init__(self, *, library: Library, vetting: Vetting) -> None:
        self._library = library
        self._vetting = vetting

    async def faults(self, flow: Flow) -> list[FieldViolation]:
        """Every one there is; raises DependencyUnavailable."""
        found = list(flow_checks.faults(flow))
        below = _Below(self._library)
        for i, state in enumerate(flow.states):
            match state.work:
                case CrewWork() as work:
                    found.extend(await self._crew_faults(flow, work, field=f"states[{i}].crew"))
                case FlowWork() as work:
                    found.extend(await below.faults(flow, work, field=f"states[{i}].flow"))
        answered = await self._vetting.answered(_asked(flow))
        return [*found, *(replace(each, field=each.field.replace(_TOOLS, "")) for each in answered)]

    async def _crew_faults(self, flow: Flow, work: CrewWork, *, field: str) -> list[FieldViolation]:
        try:
            crew = await self._library.crew(work.crew_id, revision=work.revision)
        except CrewNotFound as error:
            return [FieldViolation(f"{field}.crew_id", error.message, error.reason)]
        except CrewRevisionNotFound as error:
            return [FieldViolation(f"{field}.revision", error.message, error.reason)]
        return list(flow_checks.ungiven(flow, work.inputs, needed(crew), field=field))


class _Below:
    """The flows that a flow comes to."""

    def __init__(self, library: Library) -> None:
        self._library = library
        # How many levels each has, by id and revision.
        self._levels: dict[tuple[str, int], int] = {}

    async def faults(self, flow: Flow, work: FlowWork, *, field: str) -> list[FieldViolation]:
        """What is wrong with a state's flow."""
        try:
            levels = await self._of(work, path=(flow.id,))
        except FlowNotFound as error:
            return [FieldViolation(f"{field}.flow_id", error.message, error.reason)]
        except FlowRevisionNotFound as error:
            return [FieldViolation(f"{field}.revision", error.message, error.reason)]
        except _Circle as circle:
            way = " -> ".join(circle.path)
            return [FieldViolation(f"{field}.flow_id", f"Flows contain each other: {way}.", "FLOW_CYCLE")]
        except _TooMany:
            problem = f"The flow comes to more than {_MAX_FLOWS} others."
            return [FieldViolation(f"{field}.flow_id", problem, FlowInvalid.reason)]
        if levels + 1 > flow_checks.MAX_LEVELS:
            problem = f"Flows contain each other deeper than {flow_checks.MAX_LEVELS} levels."
            return [FieldViolation(f"{field}.flow_id", problem, "FLOW_CYCLE")]
        child = await self._library.flow(work.flow_id, revision=work.revision)
        return list(flow_checks.ungiven(flow, work.inputs, flow_checks.needed(child), field=field))

    async def _of(self, work: FlowWork, *, path: tuple[str, ...]) -> int:
        if work.flow_id in path:
            raise _Circle((*path, work.flow_id))
        key = (work.flow_id, work.revision)
        if key not in self._levels and len(path) <= flow_checks.MAX_LEVELS:
            if len(self._levels) >= _MAX_FLOWS:
                raise _TooMany
            flow = await self._library.flow(work.flow_id, revision=work.revision)
            self._levels[key] = 1
            inner = [
                await self._of(state.flow, path=(*path, work.flow_id))
                for state in flow.states
                if state.flow is not None
            ]
            self._levels[key] = 1 + max(inner, default=0)
        return self._levels.get(key, 1)


class _Circle(Exception):
    def __init__(self, path: tuple[str, ...]) -> None:
        super().__init__(path)
        self.path = path


class _TooMany(Exception):
    pass


_TOOLS = ".tools[0].name"


def _asked(flow: Flow) -> Iterator[Asked]:
    for i, state in enumerate(flow.states):
        if state.agent:
            yield about_agent(state.agent.agent, prefix=f"states[{i}].agent.agent.")
            yield from about_task(state.agent.task, prefix=f"states[{i}].agent.task.")
        elif state.tool:
            question = Question(agent=CrewAgent(name="agent"), tools=(ToolUse(name=state.tool.tool),))
            yield Asked(prefix=f"states[{i}].tool.tool.", question=question, fields=("tools",))
