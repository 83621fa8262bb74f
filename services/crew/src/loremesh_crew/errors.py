"""Why the crew service refuses a call.

ServiceError
├── Missing                         NOT_FOUND            CREW_NOT_FOUND, FLOW_NOT_FOUND, RUN_NOT_FOUND ...
├── Exists                          ALREADY_EXISTS       CREW_EXISTS, FLOW_EXISTS
├── DefinitionInvalid               INVALID_ARGUMENT     CREW_INVALID, FLOW_INVALID: every fault, each with its reason
├── InvalidField
│   ├── FieldMaskInvalid                                 FIELD_MASK_INVALID
│   ├── YamlInvalid                                      YAML_INVALID
│   ├── InputMissing, InputInvalid                       INPUT_MISSING, INPUT_INVALID
│   ├── AgentUnknown, VariableInvalid                    AGENT_UNKNOWN, VARIABLE_INVALID
│   ├── SignalUnknown                                    SIGNAL_UNKNOWN
│   └── SeqUnknown                                       SEQ_UNKNOWN
├── BuiltInReadOnly                 FAILED_PRECONDITION  BUILT_IN_READ_ONLY
├── RunFinished                     FAILED_PRECONDITION  RUN_FINISHED
├── NotAFlow                        FAILED_PRECONDITION  NOT_A_FLOW
├── EngineVersionUnknown            FAILED_PRECONDITION  ENGINE_VERSION_UNKNOWN
├── RunsFull                        RESOURCE_EXHAUSTED   RUNS_FULL
├── SignalsFull                     RESOURCE_EXHAUSTED   SIGNALS_FULL
└── TaskRefused                     (as the agent service said)

The reasons of runs and tasks are words in their state, not exceptions: `REASONS_OF_RUNS`; those of a definition's
faults are words in its violations: `REASONS_OF_FAULTS`.
"""

from collections.abc import Sequence

from loremesh_kit.errors import Code, FieldViolation, InvalidField, Missing, ServiceError

REASONS_OF_RUNS = frozenset(
    {
        "GUARDRAIL_FAILED",
        "PLAN_AGENT_UNKNOWN",
        "PLAN_CYCLE",
        "PLAN_REPEATED",
        "PLAN_INVALID",
        "PLANS_EXHAUSTED",
        "DELEGATION_REFUSED",
        "TASK_FAILED",
        "DEPENDENCY_FAILED",
        "RUN_BUDGET_EXHAUSTED",
        "RUN_EXPIRED",
        "NO_TRANSITION",
        "ITERATIONS_EXHAUSTED",
        "FLOW_FAILED",
        "WAIT_EXPIRED",
        "CHILD_FAILED",
        "EXPRESSION_FAILED",
        "OUTPUT_REJECTED",
        "TASK_TOO_LARGE",
    }
)
REASONS_OF_FAULTS = frozenset(
    {
        "AGENT_REPEATED",
        "TASK_UNKNOWN",
        "TASK_REPEATED",
        "TASK_CYCLE",
        "INPUT_UNKNOWN",
        "SCHEMA_INVALID",
        "PATTERN_INVALID",
        "EXPRESSION_INVALID",
        "STATE_UNKNOWN",
        "STATE_REPEATED",
        "STATE_UNREACHABLE",
        "INITIAL_STATE_MISSING",
        "FINAL_STATE_MISSING",
        "TRANSITION_NEVER_HOLDS",
        "VARIABLE_UNKNOWN",
        "FLOW_CYCLE",
        "TOOL_NOT_FOUND",
        "MODEL_UNKNOWN",
        "PROVIDER_NOT_CONFIGURED",
        "VECTOR_STORE_NOT_FOUND",
    }
)


class CrewNotFound(Missing):
    """No crew has this id."""

    reason = "CREW_NOT_FOUND"
    what, key, type = "crew", "crew_id", "loremesh.crew.v1.Crew"


class FlowNotFound(Missing):
    """No flow has this id."""

    reason = "FLOW_NOT_FOUND"
    what, key, type = "flow", "flow_id", "loremesh.crew.v1.Flow"


class RunNotFound(Missing):
    """The caller has no run of this id."""

    reason = "RUN_NOT_FOUND"
    what, key, type = "run", "run_id", "loremesh.crew.v1.Run"


class CrewRevisionNotFound(ServiceError):
    """No revision of the crew has this number."""

    code = Code.NOT_FOUND
    reason = "CREW_REVISION_NOT_FOUND"

    def __init__(self, crew_id: str, revision: int) -> None:
        super().__init__(
            f"The crew {crew_id!r} has no revision {revision}.",
            metadata={"crew_id": crew_id, "revision": str(revision)},
        )


class FlowRevisionNotFound(ServiceError):
    """No revision of the flow has this number."""

    code = Code.NOT_FOUND
    reason = "FLOW_REVISION_NOT_FOUND"

    def __init__(self, flow_id: str, revision: int) -> None:
        super().__init__(
            f"The flow {flow_id!r} has no revision {revision}.",
            metadata={"flow_id": flow_id, "revision": str(revision)},
        )


class FileNotFound(ServiceError):
    """No file of the run is called so."""

    code = Code.NOT_FOUND
    reason = "FILE_NOT_FOUND"

    def __init__(self, run_id: str, name: str) -> None:
        super().__init__(f"The run {run_id!r} has no file {name!r}.", metadata={"run_id": run_id, "file_name": name})


class VisitNotFound(ServiceError):
    """The run has not left this state, or not so often."""

    code = Code.NOT_FOUND
    reason = "VISIT_NOT_FOUND"

    def __init__(self, state: str, visit: int) -> None:
        super().__init__(
            "The run has not left this state, or not so often.", metadata={"state": state, "visit": str(visit)}
        )


class CrewExists(ServiceError):
    """A crew has this id already."""

    code = Code.ALREADY_EXISTS
    reason = "CREW_EXISTS"

    def __init__(self, crew_id: str) -> None:
        super().__init__(f"There is a crew {crew_id!r} already.", metadata={"crew_id": crew_id})


class FlowExists(ServiceError):
    """A flow has this id already."""

    code = Code.ALREADY_EXISTS
    reason = "FLOW_EXISTS"

    def __init__(self, flow_id: str) -> None:
        super().__init__(f"There is a flow {flow_id!r} already.", metadata={"flow_id": flow_id})


class DefinitionInvalid(ServiceError):
    """It cannot be as it is; every fault is told at once."""

    code = Code.INVALID_ARGUMENT
    kind = ""

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        faults = "1 fault" if len(violations) == 1 else f"{len(violations)} faults"
        super().__init__(f"The {self.kind} has {faults}: {violations[0].description}")
        self.violations = tuple(violations)


class CrewInvalid(DefinitionInvalid):
    """The crew cannot be as it is."""

    reason = "CREW_INVALID"
    kind = "crew"


class FlowInvalid(DefinitionInvalid):
    """The flow cannot be as it is."""

    reason = "FLOW_INVALID"
    kind = "flow"


class BuiltInReadOnly(ServiceError):
    """It came with Loremesh."""

    code = Code.FAILED_PRECONDITION
    reason = "BUILT_IN_READ_ONLY"

    def __init__(self, id_: str) -> None:
        super().__init__(
            f"{id_!r} came with Loremesh and stays as it is: make one of your own from it.", metadata={"id": id_}
        )


class FieldMaskInvalid(InvalidField):
    """The update mask names a field that is not there or cannot be changed."""

    reason = "FIELD_MASK_INVALID"

    def __init__(self, path: str) -> None:
        super().__init__(f"The field {path!r} is not there or cannot be changed.", field="update_mask")


class YamlInvalid(InvalidField):
    """The YAML cannot be read, or has what is not taken."""

    reason = "YAML_INVALID"

    def __init__(self, problem: str, *, field: str, line: int = 0) -> None:
        super().__init__(
            f"{field} cannot be taken: {problem}", field=field, metadata={"problem": problem, "line": str(line)}
        )


class AgentUnknown(InvalidField):
    """No agent of the mesh is called so."""

    reason = "AGENT_UNKNOWN"

    def __init__(self, agent: str, *, field: str = "crew_id") -> None:
        super().__init__(f"There is no agent {agent!r}.", field=field, metadata={"agent": agent})


class InputMissing(InvalidField):
    """An input is not there."""

    reason = "INPUT_MISSING"

    def __init__(self, name: str, *, field: str = "inputs") -> None:
        super().__init__(f"The input {name!r} is missing.", field=field, metadata={"input": name})


class InputInvalid(InvalidField):
    """The inputs do not fulfil their schema, or are too large."""

    reason = "INPUT_INVALID"

    def __init__(self, problem: str, *, field: str = "inputs") -> None:
        super().__init__(f"{field} cannot be taken: {problem}", field=field, metadata={"problem": problem})


class VariableInvalid(InvalidField):
    """An input is not of its variable's type."""

    reason = "VARIABLE_INVALID"

    def __init__(self, variable: str, type_: str) -> None:
        super().__init__(f"The variable {variable!r} is to be {type_}.", field="inputs")


class SignalUnknown(InvalidField):
    """No state of the flow waits for a signal of this name."""

    reason = "SIGNAL_UNKNOWN"

    def __init__(self, signal: str) -> None:
        super().__init__(f"No state waits for a signal {signal!r}.", field="signal", metadata={"signal": signal})


class SeqUnknown(InvalidField):
    """The run has no event of this seq."""

    reason = "SEQ_UNKNOWN"

    def __init__(self, last_seq: int) -> None:
        super().__init__(
            f"The run's last event is {last_seq}.", field="after_seq", metadata={"last_seq": str(last_seq)}
        )


class RunFinished(ServiceError):
    """The run is over."""

    code = Code.FAILED_PRECONDITION
    reason = "RUN_FINISHED"

    def __init__(self, run_id: str, status: str) -> None:
        super().__init__("The run is over.", metadata={"run_id": run_id, "status": status})


class NotAFlow(ServiceError):
    """The run is no flow's."""

    code = Code.FAILED_PRECONDITION
    reason = "NOT_A_FLOW"

    def __init__(self, run_id: str) -> None:
        super().__init__("The run is no flow's.", metadata={"run_id": run_id})


class EngineVersionUnknown(ServiceError):
    """The run was decided by an engine that this version no longer has."""

    code = Code.FAILED_PRECONDITION
    reason = "ENGINE_VERSION_UNKNOWN"

    def __init__(self, version: int) -> None:
        super().__init__(f"Version {version} of the engine is no longer here.", metadata={"version": str(version)})


class RunsFull(ServiceError):
    """The tenant has as many runs in progress as it may."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "RUNS_FULL"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"There are {limit} runs in progress already.", metadata={"limit": str(limit)}, retry_after=5.0
        )


class SignalsFull(ServiceError):
    """The run keeps as many signals that nothing waited for yet as it may."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "SIGNALS_FULL"

    def __init__(self, signal: str) -> None:
        super().__init__(
            "The run keeps as many signals that nothing waited for yet as it may.",
            metadata={"signal": signal},
            retry_after=5.0,
        )


class TaskRefused(Exception):
    """The agent service will never do the task."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.message = message
