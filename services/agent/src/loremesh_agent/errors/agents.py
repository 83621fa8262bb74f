"""What is wrong with an agent, its prompt or its schema."""

from collections.abc import Sequence

from loremesh_kit.errors import Code, FieldViolation, InvalidField, Missing, ServiceError


class AgentNotFound(Missing):
    """No agent has this id."""

    reason = "AGENT_NOT_FOUND"
    what, key, type = "agent", "agent_id", "loremesh.agent.v1.Agent"


class AgentExists(ServiceError):
    """An agent has this id already."""

    code = Code.ALREADY_EXISTS
    reason = "AGENT_EXISTS"

    def __init__(self, agent_id: str) -> None:
        super().__init__(f"There is an agent {agent_id!r} already.", metadata={"agent_id": agent_id})


class AgentRevisionNotFound(ServiceError):
    """The agent has no revision of this number."""

    code = Code.NOT_FOUND
    reason = "AGENT_REVISION_NOT_FOUND"

    def __init__(self, agent_id: str, revision: int) -> None:
        super().__init__(
            f"The agent {agent_id!r} has no revision {revision}.",
            metadata={"agent_id": agent_id, "revision": str(revision)},
        )


class AgentInvalid(InvalidField):
    """The agent contradicts itself, or has several faults."""

    reason = "AGENT_INVALID"

    def __init__(self, problem: str, *, violations: Sequence[FieldViolation] = ()) -> None:
        """`violations` name the fields."""
        super().__init__(problem)
        self.violations = tuple(violations)


class AgentMismatch(InvalidField):
    """The conversation is held with another agent."""

    reason = "AGENT_MISMATCH"

    def __init__(self, agent_id: str) -> None:
        super().__init__(
            f"The conversation is held with the agent {agent_id!r}.", metadata={"agent_id": agent_id}, field="agent_id"
        )


class FieldMaskInvalid(InvalidField):
    """The update mask names what cannot be changed."""

    reason = "FIELD_MASK_INVALID"

    def __init__(self, path: str) -> None:
        super().__init__(f"{path!r} cannot be changed.", metadata={"path": path}, field="update_mask")


class PromptNotFound(InvalidField):
    """No prompt has this name, version and language."""

    reason = "PROMPT_NOT_FOUND"

    def __init__(self, prompt: str) -> None:
        super().__init__(f"There is no prompt {prompt}.", metadata={"prompt": prompt}, field="prompt")


class PromptInvalid(InvalidField):
    """The prompt's variables are not those it is given, or it cannot be read."""

    reason = "PROMPT_INVALID"

    def __init__(self, problem: str) -> None:
        super().__init__(problem, metadata={"problem": problem}, field="prompt")


class SchemaInvalid(InvalidField):
    """It is no JSON Schema, or too large a one."""

    reason = "SCHEMA_INVALID"

    def __init__(self, problem: str, *, field: str) -> None:
        super().__init__(f"Not a usable JSON Schema: {problem}", metadata={"problem": problem}, field=field)
