"""Crews and flows built in Python: the same messages that files and requests carry.

    researcher = Agent("researcher", role="Research Analyst", goal="Find what matters about {topic}.")
    writer = Agent("writer", role="Writer", temperature=0.7)
    crew = (
        CrewBuilder("content-crew")
        .agents(researcher, writer)
        .task("research", "Write down the facts about {topic}.", agent=researcher)
        .task("writing", "Write an article about {topic}.", agent=writer, depends_on=["research"])
        .build()
    )

Nothing is checked here but types: whoever keeps the crew says everything that is wrong with it at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, Self

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct, Value
from loremesh.agent.v1 import agent_pb2
from loremesh.crew.v1 import crew_pb2, flow_pb2, run_pb2

Process = Literal["sequential", "parallel", "hierarchical"]
VariableType = Literal["string", "int", "double", "bool", "list", "map"]
# Seconds, or a timedelta.
Time = float | timedelta


class Agent:
    """A member of a crew; see CrewAgent in crew.proto for what each field means."""

    def __init__(
        self,
        name: str,
        *,
        role: str = "",
        goal: str = "",
        backstory: str = "",
        agent_id: str = "",
        model: str = "",
        temperature: float | None = None,
        tools: Sequence[str | agent_pb2.ToolUse] = (),
        memory: bool | agent_pb2.MemorySettings | None = None,
        allow_delegation: bool = False,
        max_iter: int = 0,
        max_rpm: int = 0,
        verbose: bool = False,
        top_k_documents: int = 0,
        vector_stores: Sequence[str] = (),
        max_output_tokens: int | None = None,
    ) -> None:
        self.message = crew_pb2.CrewAgent(
            name=name,
            role=role,
            goal=goal,
            backstory=backstory,
            agent_id=agent_id,
            model=model,
            temperature=temperature,
            tools=_tools(tools),
            memory=agent_pb2.MemorySettings(recall=memory, extract=memory) if isinstance(memory, bool) else memory,
            allow_delegation=allow_delegation,
            max_iter=max_iter,
            max_rpm=max_rpm,
            verbose=verbose,
            top_k_documents=top_k_documents,
            vector_store_ids=vector_stores,
            max_output_tokens=max_output_tokens,
        )


class Task:
    """A piece of work; see CrewTask in crew.proto for what each field means."""

    def __init__(
        self,
        name: str,
        description: str,
        *,
        expected_output: str = "",
        agent: Agent | str = "",
        depends_on: "Iterable[Task | str]" = (),
        tools: Sequence[str | agent_pb2.ToolUse] = (),
        timeout: Time | None = None,
        retry: crew_pb2.RetryPolicy | None = None,
        human_input: bool | str | crew_pb2.HumanInput = False,
        guardrails: Sequence[crew_pb2.Guardrail] = (),
        max_guardrail_rounds: int | None = None,
        output_schema: Mapping[str, Any] | None = None,
        output_file: str = "",
        priority: int = 0,
    ) -> None:
        self.message = crew_pb2.CrewTask(
            name=name,
            description=description,
            expected_output=expected_output,
            agent=agent.message.name if isinstance(agent, Agent) else agent,
            depends_on=[each.message.name if isinstance(each, Task) else each for each in depends_on],
            tools=_tools(tools),
            timeout=_duration(timeout),
            retry=retry,
            human_input=_human_input(human_input),
            guardrails=guardrails,
            max_guardrail_rounds=max_guardrail_rounds,
            output_schema=_struct(output_schema),
            output_file=output_file,
            priority=priority,
        )


class CrewBuilder:
    """Puts a crew together, one call after the other; `build` gives the message."""

    def __init__(self, crew_id: str = "", *, name: str = "", description: str = "") -> None:
        self._crew = crew_pb2.Crew(id=crew_id, name=name, description=description)

    def agents(self, *agents: Agent) -> Self:
        """Add members, in this order."""
        self._crew.agents.extend(agent.message for agent in agents)
        return self

    def tasks(self, *tasks: Task) -> Self:
        """Add tasks, in this order."""
        self._crew.tasks.extend(task.message for task in tasks)
        return self

    def task(self, name: str, description: str, **fields: Any) -> Self:
        """Add a task made of Task's fields."""
        return self.tasks(Task(name, description, **fields))

    def process(self, process: Process, *, manager: Agent | str = "", manager_model: str = "") -> Self:
        """Say how the tasks come to be done, and with `hierarchical` by whom they are planned."""
        self._crew.process = crew_pb2.Process.Value(f"PROCESS_{process.upper()}")
        self._crew.manager = manager.message.name if isinstance(manager, Agent) else manager
        self._crew.manager_model = manager_model
        return self

    def parallel(self, max_parallel: int = 0) -> Self:
        """Let tasks be done at once, so many at most; zero is the default's number."""
        self._crew.max_parallel = max_parallel
        return self.process("parallel")

    def keep_going(self) -> Self:
        """Let what does not depend on a failed task go on: the run ends as INCOMPLETE then."""
        self._crew.fail_fast = False
        return self

    def memory(self) -> Self:
        """Share what the agents learn, and keep it for later runs."""
        self._crew.memory = True
        return self

    def verbose(self) -> Self:
        """Let events carry what agents are asked in full."""
        self._crew.verbose = True
        return self

    def limits(self, *, tokens: int = 0, cost_micros: int = 0, tool_calls: int = 0, time: Time | None = None) -> Self:
        """Limit a run of it; zero and None are no limit."""
        self._crew.limits.CopyFrom(_limits(tokens, cost_micros, tool_calls, time))
        return self

    def inputs(self, schema: Mapping[str, Any] | None = None, *, example: Mapping[str, Any] | None = None) -> Self:
        """Say what its inputs are, as a JSON Schema, and give an example of them."""
        _set(self._crew.inputs_schema, schema)
        _set(self._crew.example_inputs, example)
        return self

    def build(self) -> crew_pb2.Crew:
        """The message as it is now; what is added later is not in it."""
        return _copy(self._crew)


class Flowing:
    """A flow in the making: what may follow any of its steps."""

    def __init__(self, flow: flow_pb2.Flow) -> None:
        self._flow = flow

    def state(self, state_id: str, name: str = "") -> "StateStep":
        """Add a state; what is said of it comes next."""
        self._flow.states.add(id=state_id, name=name)
        return StateStep(self._flow)

    def transition(self, start: str, end: str) -> "TransitionStep":
        """Add a way from one state to another; what is said of it comes next."""
        self._flow.transitions.append(flow_pb2.Transition(**{"from": start, "to": end}))
        return TransitionStep(self._flow)

    def variable(self, name: str, variable_type: VariableType = "string", initial: Any = None) -> Self:
        """Add a variable; an input of its name sets it at the start."""
        kind = flow_pb2.VariableType.Value(f"VARIABLE_TYPE_{variable_type.upper()}")
        self._flow.variables.add(name=name, type=kind, initial=None if initial is None else _value(initial))
        return self

    def output(self, text: str) -> Self:
        """Say what its runs' output is, as text with placeholders; otherwise it is the last output there was."""
        self._flow.output = text
        return self

    def max_iterations(self, visits: int) -> Self:
        """Visit so many states at most."""
        self._flow.max_iterations = visits
        return self

    def limits(self, *, tokens: int = 0, cost_micros: int = 0, tool_calls: int = 0, time: Time | None = None) -> Self:
        """Limit a run of it; zero and None are no limit."""
        self._flow.limits.CopyFrom(_limits(tokens, cost_micros, tool_calls, time))
        return self

    def inputs(self, schema: Mapping[str, Any] | None = None, *, example: Mapping[str, Any] | None = None) -> Self:
        """Say what its inputs are, as a JSON Schema, and give an example of them."""
        _set(self._flow.inputs_schema, schema)
        _set(self._flow.example_inputs, example)
        return self

    def build(self) -> flow_pb2.Flow:
        """The message as it is now; what is added later is not in it."""
        return _copy(self._flow)


class FlowBuilder(Flowing):
    """Puts a flow together, one call after the other; `build` gives the message."""

    def __init__(self, flow_id: str = "", *, name: str = "", description: str = "") -> None:
        super().__init__(flow_pb2.Flow(id=flow_id, name=name, description=description))


class StateStep(Flowing):
    """What can be said of the state that was just added."""

    @property
    def _state(self) -> flow_pb2.FlowState:
        return self._flow.states[-1]

    def initial(self) -> Self:
        """A run begins here."""
        self._state.initial = True
        return self

    def final(self, *, fails: bool = False) -> Self:
        """A run ends here, as a failure or not."""
        self._state.final, self._state.fails = True, fails
        return self

    def with_crew(self, crew: str, *, revision: int = 0, **inputs: str) -> Self:
        """A crew's run; its inputs are texts with placeholders."""
        self._state.crew.CopyFrom(flow_pb2.CrewWork(crew_id=crew, revision=revision, inputs=inputs))
        return self

    def with_agent(self, agent: Agent, task: Task) -> Self:
        """A task of an agent."""
        self._state.agent.CopyFrom(flow_pb2.AgentWork(agent=agent.message, task=task.message))
        return self

    def with_tool(self, tool: str, **arguments: Any) -> Self:
        """A call of a tool."""
        self._state.tool.CopyFrom(flow_pb2.ToolWork(tool=tool, arguments=_struct(arguments)))
        return self

    def with_flow(self, flow: str, *, revision: int = 0, **inputs: str) -> Self:
        """A run of another flow; its inputs are texts with placeholders."""
        self._state.flow.CopyFrom(flow_pb2.FlowWork(flow_id=flow, revision=revision, inputs=inputs))
        return self

    def wait(self, time: Time | None = None, *, signal: str = "") -> Self:
        """A pause, a signal from outside, or whichever comes first."""
        self._state.wait.CopyFrom(flow_pb2.WaitWork(duration=_duration(time), signal=signal))
        return self

    def assign(self, variable: str, expression: str) -> Self:
        """Set a variable from what came of it, with a CEL expression."""
        self._state.assignments.add(variable=variable, expression=expression)
        return self


class TransitionStep(Flowing):
    """What can be said of the transition that was just added."""

    def when(self, condition: flow_pb2.Condition) -> Self:
        """Take it where the condition holds."""
        self._flow.transitions[-1].condition.CopyFrom(condition)
        return self

    def with_priority(self, priority: int) -> Self:
        """Look at the higher first."""
        self._flow.transitions[-1].priority = priority
        return self


def always() -> flow_pb2.Condition:
    """It holds."""
    return flow_pb2.Condition(always=flow_pb2.Always())


def on_success() -> flow_pb2.Condition:
    """The state's work succeeded."""
    return flow_pb2.Condition(on_success=flow_pb2.OnSuccess())


def on_failure() -> flow_pb2.Condition:
    """The state's work failed."""
    return flow_pb2.Condition(on_failure=flow_pb2.OnFailure())


def output_contains(text: str, *, case_sensitive: bool = False) -> flow_pb2.Condition:
    """Its output contains a text."""
    return flow_pb2.Condition(output_contains=flow_pb2.OutputContains(text=text, case_sensitive=case_sensitive))


def output_matches(pattern: str) -> flow_pb2.Condition:
    """Its output matches a regular expression (RE2) somewhere."""
    return flow_pb2.Condition(output_matches=pattern)


def variable_equals(variable: str, value: Any) -> flow_pb2.Condition:
    """A variable has a value."""
    return flow_pb2.Condition(variable_equals=flow_pb2.VariableEquals(variable=variable, value=_value(value)))


def expression(text: str) -> flow_pb2.Condition:
    """A CEL expression is true."""
    return flow_pb2.Condition(expression=text)


def all_of(*conditions: flow_pb2.Condition) -> flow_pb2.Condition:
    """All of them hold."""
    return flow_pb2.Condition(**{"and": flow_pb2.Conditions(conditions=conditions)})


def any_of(*conditions: flow_pb2.Condition) -> flow_pb2.Condition:
    """One of them holds."""
    return flow_pb2.Condition(**{"or": flow_pb2.Conditions(conditions=conditions)})


def none_of(*conditions: flow_pb2.Condition) -> flow_pb2.Condition:
    """None of them holds."""
    return flow_pb2.Condition(**{"not": conditions[0] if len(conditions) == 1 else any_of(*conditions)})


def _tools(tools: Iterable[str | agent_pb2.ToolUse]) -> list[agent_pb2.ToolUse]:
    return [agent_pb2.ToolUse(name=each) if isinstance(each, str) else each for each in tools]


def _human_input(given: bool | str | crew_pb2.HumanInput) -> crew_pb2.HumanInput | None:
    if isinstance(given, crew_pb2.HumanInput):
        return given
    return crew_pb2.HumanInput(question="" if given is True else given) if given else None


def _limits(tokens: int, cost_micros: int, tool_calls: int, time: Time | None) -> run_pb2.RunLimits:
    return run_pb2.RunLimits(
        max_tokens=tokens, max_cost_micros=cost_micros, max_tool_calls=tool_calls, max_time=_duration(time)
    )


def _duration(time: Time | None) -> Duration | None:
    if time is None:
        return None
    duration = Duration()
    duration.FromTimedelta(time if isinstance(time, timedelta) else timedelta(seconds=time))
    return duration


def _struct(fields: Mapping[str, Any] | None) -> Struct | None:
    if fields is None:
        return None
    struct = Struct()
    struct.update(fields)
    return struct


def _set(target: Struct, fields: Mapping[str, Any] | None) -> None:
    if fields is not None:
        target.CopyFrom(_struct(fields) or Struct())


def _value(given: Any) -> Value:
    held = Struct()
    held.update({"value": given})
    return held.fields["value"]


def _copy(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
