"""Crews and flows as their owners define them; limits, defaults and meaning are those of crew.proto and flow.proto.

Times are in seconds, money in millionths of a US dollar. Empty, zero and None mean what they mean in the protos.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class Process(StrEnum):
    """How a crew's tasks come to be done."""

    SEQUENTIAL = "SEQUENTIAL"
    PARALLEL = "PARALLEL"
    HIERARCHICAL = "HIERARCHICAL"


class VariableType(StrEnum):
    """What a flow's variable holds."""

    STRING = "STRING"
    INT = "INT"
    DOUBLE = "DOUBLE"
    BOOL = "BOOL"
    LIST = "LIST"
    MAP = "MAP"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """A tool in an agent's hands; policies by their names in agent.proto, empty as the tool's default."""

    name: str
    approval: str = ""
    approval_seconds: float | None = None
    on_expiry: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySettings:
    """What an agent remembers."""

    recall: bool = False
    extract: bool = False
    max_items: int = 0
    ttl_seconds: float | None = None
    embeddings: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """Limits of a run; zero or None: none of its own."""

    max_tokens: int = 0
    max_cost_micros: int = 0
    max_tool_calls: int = 0
    max_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CrewAgent:
    """A member of a crew."""

    name: str
    role: str = ""
    goal: str = ""
    backstory: str = ""
    # An agent of the mesh in place of what follows, but for `allow_delegation`.
    agent_id: str = ""
    agent_revision: int = 0
    model: str = ""
    temperature: float | None = None
    tools: tuple[ToolUse, ...] = ()
    memory: MemorySettings | None = None
    allow_delegation: bool = False
    max_iter: int = 0
    max_rpm: int = 0
    verbose: bool = False
    top_k_documents: int = 0
    vector_store_ids: tuple[str, ...] = ()
    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often something is tried again, and when."""

    max_attempts: int = 3
    initial_pause: float = 1.0
    retry_incomplete: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HumanInput:
    """A human accepts an output."""

    question: str = ""
    due_seconds: float = 86_400.0
    on_expiry: str = "DENY"
    assignee: str = ""
    max_rounds: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Guardrail:
    """Something an output must fulfil; exactly one rule is set."""

    matches: str = ""
    matches_not: str = ""
    min_length: int = 0
    max_length: int = 0
    expression: str = ""
    criterion: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrewTask:
    """A piece of work."""

    name: str
    description: str
    expected_output: str = ""
    agent: str = ""
    depends_on: tuple[str, ...] = ()
    tools: tuple[ToolUse, ...] = ()
    timeout: float = 600.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    human_input: HumanInput | None = None
    guardrails: tuple[Guardrail, ...] = ()
    max_guardrail_rounds: int = 2
    output_schema: Mapping[str, Any] | None = None
    output_file: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """One revision of a crew."""

    id: str
    revision: int = 1
    name: str = ""
    description: str = ""
    agents: tuple[CrewAgent, ...] = ()
    tasks: tuple[CrewTask, ...] = ()
    process: Process = Process.SEQUENTIAL
    manager: str = ""
    manager_model: str = ""
    max_parallel: int = 10
    fail_fast: bool = True
    memory: bool = False
    limits: RunLimits = field(default_factory=RunLimits)
    inputs_schema: Mapping[str, Any] | None = None
    verbose: bool = False
    example_inputs: Mapping[str, Any] | None = None
    built_in: bool = False
    create_time: datetime | None = None
    update_time: datetime | None = None

    @property
    def etag(self) -> str:
        """What an update sends back to change only what was read."""
        return str(self.revision)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrewWork:
    """A crew's run, with texts for its inputs."""

    crew_id: str
    revision: int = 0
    inputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentWork:
    """A task of an agent."""

    agent: CrewAgent
    task: CrewTask


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolWork:
    """A call of a tool."""

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitWork:
    """A pause, or a signal from outside, or whichever is first."""

    seconds: float | None = None
    signal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowWork:
    """A run of another flow, with texts for its inputs."""

    flow_id: str
    revision: int = 0
    inputs: Mapping[str, str] = field(default_factory=dict)


Work = CrewWork | AgentWork | ToolWork | WaitWork | FlowWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Sets a variable to what a CEL expression gives."""

    variable: str
    expression: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A variable of a flow; None: the empty value of its type."""

    name: str
    type: VariableType = VariableType.STRING
    initial: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowState:
    """A state, and what is done in it; None: nothing."""

    id: str
    name: str = ""
    initial: bool = False
    final: bool = False
    fails: bool = False
    # At most one of the five; apart, so that each is read back as what it is.
    crew: CrewWork | None = None
    agent: AgentWork | None = None
    tool: ToolWork | None = None
    wait: WaitWork | None = None
    flow: FlowWork | None = None
    assignments: tuple[Assignment, ...] = ()

    @property
    def work(self) -> Work | None:
        """What is done in it."""
        return self.crew or self.agent or self.tool or self.wait or self.flow


class ConditionKind(StrEnum):
    """What a condition looks at."""

    ALWAYS = "always"
    ON_SUCCESS = "on_success"
    ON_FAILURE = "on_failure"
    OUTPUT_CONTAINS = "output_contains"
    OUTPUT_MATCHES = "output_matches"
    VARIABLE_EQUALS = "variable_equals"
    AND = "and"
    OR = "or"
    NOT = "not"
    EXPRESSION = "expression"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Something that holds or does not."""

    kind: ConditionKind = ConditionKind.ALWAYS
    # The text contained, the pattern, or the expression.
    text: str = ""
    case_sensitive: bool = False
    variable: str = ""
    value: Any = None
    # Of AND and OR, and the one of NOT.
    conditions: "tuple[Condition, ...]" = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A way from one state to another."""

    from_state: str
    to_state: str
    condition: Condition = field(default_factory=Condition)
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """One revision of a flow."""

    id: str
    revision: int = 1
    name: str = ""
    description: str = ""
    states: tuple[FlowState, ...] = ()
    transitions: tuple[Transition, ...] = ()
    variables: tuple[Variable, ...] = ()
    max_iterations: int = 100
    limits: RunLimits = field(default_factory=RunLimits)
    inputs_schema: Mapping[str, Any] | None = None
    # Text of its runs' output, with placeholders; empty: the last output there was.
    output: str = ""
    example_inputs: Mapping[str, Any] | None = None
    built_in: bool = False
    create_time: datetime | None = None
    update_time: datetime | None = None

    @property
    def etag(self) -> str:
        """What an update sends back to change only what was read."""
        return str(self.revision)
