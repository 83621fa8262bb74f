"""Why the agent refuses a call or ends a run.

ServiceError
├── InvalidField                    INVALID_ARGUMENT
│   ├── MessageEmpty                                     MESSAGE_EMPTY
│   └── MessageTooLong                                   MESSAGE_TOO_LONG
├── AgentNotFound                   NOT_FOUND            AGENT_NOT_FOUND
├── ConversationNotFound            NOT_FOUND            CONVERSATION_NOT_FOUND
├── MessageNotFound                 NOT_FOUND            MESSAGE_NOT_FOUND
├── ChatJobNotFound                 NOT_FOUND            CHAT_JOB_NOT_FOUND
├── VectorStoreNotFound             NOT_FOUND            VECTOR_STORE_NOT_FOUND
├── ConversationBusy                ABORTED              CONVERSATION_BUSY
├── QueueFull                       RESOURCE_EXHAUSTED   QUEUE_FULL
├── KeptFailure                     (as the run it ended said)
├── GivenUp                         (as its cause)
├── ProviderError
│   ├── ProviderUnavailable         UNAVAILABLE          PROVIDER_UNAVAILABLE
│   ├── ProviderTimeout             UNAVAILABLE          PROVIDER_TIMEOUT
│   ├── ProviderStreamCut           UNAVAILABLE          PROVIDER_STREAM_CUT
│   ├── ProviderRefused             FAILED_PRECONDITION  PROVIDER_REFUSED
│   └── ProviderRateLimited         RESOURCE_EXHAUSTED   PROVIDER_RATE_LIMITED
├── Missing                         NOT_FOUND            one each for approvals, memories, receipts, tasks, tool servers
├── ToolError                       what a model is told of a tool: TOOL_...
└── one each for what agents, approvals, budgets, memories, prompts and tool servers refuse, named for its reason

The rest are the kit's own. No provider's own words are in any of them: they may quote keys and prompts.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from loremesh_kit.errors import Code, FieldViolation, InvalidField, ServiceError

Limit = Literal["connect", "first_token", "idle", "total"]


class MessageEmpty(InvalidField):
    """There is nothing to answer."""

    reason = "MESSAGE_EMPTY"

    def __init__(self) -> None:
        super().__init__("message must not be empty", field="message")


class MessageTooLong(InvalidField):
    """The message alone is longer than the model can read."""

    reason = "MESSAGE_TOO_LONG"

    def __init__(self, *, limit_tokens: int) -> None:
        super().__init__(
            f"The message is longer than the {limit_tokens} tokens the model can read of it.",
            field="message",
            metadata={"limit_tokens": str(limit_tokens)},
        )


class AgentNotFound(ServiceError):
    """No agent has this id."""

    code = Code.NOT_FOUND
    reason = "AGENT_NOT_FOUND"

    def __init__(self, agent_id: str) -> None:
        super().__init__(
            f"There is no agent {agent_id!r}.",
            metadata={"agent_id": agent_id},
            resource=("loremesh.agent.v1.Agent", agent_id),
        )


class ConversationNotFound(ServiceError):
    """The caller has no conversation of this id."""

    code = Code.NOT_FOUND
    reason = "CONVERSATION_NOT_FOUND"

    def __init__(self, conversation_id: str) -> None:
        super().__init__(
            f"There is no conversation {conversation_id!r}.",
            metadata={"conversation_id": conversation_id},
            resource=("loremesh.agent.v1.Conversation", conversation_id),
        )


class MessageNotFound(ServiceError):
    """The caller has no answer of this id."""

    code = Code.NOT_FOUND
    reason = "MESSAGE_NOT_FOUND"

    def __init__(self, message_id: str) -> None:
        super().__init__(
            f"There is no answer {message_id!r}.",
            metadata={"message_id": message_id},
            resource=("loremesh.agent.v1.Message", message_id),
        )


class ChatJobNotFound(ServiceError):
    """The caller has no chat job of this id, or not any more."""

    code = Code.NOT_FOUND
    reason = "CHAT_JOB_NOT_FOUND"

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"There is no chat job {job_id!r}.",
            metadata={"job_id": job_id},
            resource=("loremesh.agent.v1.ChatJob", job_id),
        )


class VectorStoreNotFound(ServiceError):
    """The caller has no vector store of this id."""

    code = Code.NOT_FOUND
    reason = "VECTOR_STORE_NOT_FOUND"

    def __init__(self, vector_store_id: str) -> None:
        super().__init__(
            f"There is no vector store {vector_store_id!r}.",
            metadata={"vector_store_id": vector_store_id},
            resource=("loremesh.ingestion.v1.VectorStore", vector_store_id),
        )


class ConversationBusy(ServiceError):
    """The conversation is answering another message."""

    code = Code.ABORTED
    reason = "CONVERSATION_BUSY"

    def __init__(self, conversation_id: str, *, retry_after: float) -> None:
        super().__init__(
            "The conversation is answering another message.",
            metadata={"conversation_id": conversation_id},
            retry_after=retry_after,
        )


class QueueFull(ServiceError):
    """The tenant has as many chat jobs waiting as it may."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "QUEUE_FULL"

    def __init__(self, *, limit: int) -> None:
        super().__init__("Too many chat jobs are waiting.", metadata={"limit": str(limit)}, retry_after=5.0)


class KeptFailure(ServiceError):
    """Why a run failed, as it was kept."""

    def __init__(self, message: str, *, reason: str, retryable: bool, metadata: Mapping[str, str]) -> None:
        super().__init__(message, metadata=metadata)
        self.reason = reason
        self._retryable = retryable

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self._retryable


class GivenUp(ServiceError):
    """A failure which may pass, but has been waited for long enough."""

    def __init__(self, cause: ServiceError) -> None:
        super().__init__(cause.message, metadata=cause.metadata)
        self.reason = cause.reason
        self.cause = cause

    @property
    def retryable(self) -> bool:
        """Not by us."""
        return False


class ProviderError(ServiceError):
    """The model's provider did not give a whole answer."""

    def __init__(
        self,
        message: str,
        *,
        provider: str,
        model: str,
        retry_after: float | None = None,
        limit: Limit | None = None,
    ) -> None:
        """`message` is in our words; `limit` is the one that ran out."""
        metadata = {"provider": provider, "model": model, **({"limit": limit} if limit else {})}
        super().__init__(message, metadata=metadata, retry_after=retry_after)


class ProviderUnavailable(ProviderError):
    """It cannot be reached, is overloaded or failed; it may pass."""

    code = Code.UNAVAILABLE
    reason = "PROVIDER_UNAVAILABLE"


class ProviderTimeout(ProviderError):
    """It took too long; metadata `limit` says for what."""

    code = Code.UNAVAILABLE
    reason = "PROVIDER_TIMEOUT"


class ProviderStreamCut(ProviderError):
    """Its stream broke before it was complete."""

    code = Code.UNAVAILABLE
    reason = "PROVIDER_STREAM_CUT"


class ProviderRefused(ProviderError):
    """It refused the request for good: a wrong key, an unknown model."""

    code = Code.FAILED_PRECONDITION
    reason = "PROVIDER_REFUSED"


class Missing(ServiceError):
    """There is nothing of this id for the caller."""

    code = Code.NOT_FOUND
    what: ClassVar[str]
    key: ClassVar[str]
    type: ClassVar[str]

    def __init__(self, id_: str) -> None:
        super().__init__(f"There is no {self.what} {id_!r}.", metadata={self.key: id_}, resource=(self.type, id_))


class ApprovalNotFound(Missing):
    """The caller has no approval of this id."""

    reason = "APPROVAL_NOT_FOUND"
    what = "approval"
    key = "approval_id"
    type = "loremesh.agent.v1.Approval"


class MemoryNotFound(Missing):
    """The caller has no memory of this id."""

    reason = "MEMORY_NOT_FOUND"
    what = "memory"
    key = "memory_id"
    type = "loremesh.agent.v1.Memory"


class MemoryReceiptNotFound(Missing):
    """The caller has no receipt of a forgetting of this id."""

    reason = "MEMORY_RECEIPT_NOT_FOUND"
    what = "receipt"
    key = "receipt_id"
    type = "loremesh.agent.v1.MemoryReceipt"


class ToolServerNotFound(Missing):
    """The caller has no tool server of this id."""

    reason = "TOOL_SERVER_NOT_FOUND"
    what = "tool server"
    key = "tool_server_id"
    type = "loremesh.agent.v1.ToolServer"


class TaskNotFound(Missing):
    """The caller has no task of this id, or not any more."""

    reason = "TASK_NOT_FOUND"
    what = "task"
    key = "task_id"
    type = "loremesh.agent.v1.AgentTask"


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


class ModelUnknown(InvalidField):
    """No provider has this model."""

    reason = "MODEL_UNKNOWN"

    def __init__(self, model: str) -> None:
        super().__init__(
            f"{model!r} is no model: write provider/model, with a provider that ListProviders names.",
            metadata={"model": model},
            field="model",
        )


class ProviderNotConfigured(ServiceError):
    """The model's provider has no key here."""

    code = Code.FAILED_PRECONDITION
    reason = "PROVIDER_NOT_CONFIGURED"

    def __init__(self, provider: str, *, variable: str) -> None:
        super().__init__(
            f"The provider {provider} is not configured: set {variable}.",
            metadata={"provider": provider, "variable": variable},
        )


class ModelOutputInvalid(ServiceError):
    """The model answered with what is no answer."""

    code = Code.INTERNAL
    reason = "MODEL_OUTPUT_INVALID"

    def __init__(self, problem: str, *, provider: str, model: str) -> None:
        super().__init__(
            f"The model's answer cannot be used: {problem}", metadata={"provider": provider, "model": model}
        )


class AttachmentUnsupported(InvalidField):
    """The model takes no such attachment."""

    reason = "ATTACHMENT_UNSUPPORTED"

    def __init__(self, media_type: str, *, model: str) -> None:
        super().__init__(
            f"The model {model} takes no {media_type}.",
            metadata={"media_type": media_type, "model": model},
            field="attachments",
        )


class ToolError(ServiceError):
    """A tool was not called, or failed: the model is told the message."""

    def __init__(self, message: str, *, tool: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message, metadata={"tool": tool, **(metadata or {})})


class ToolNotFound(ToolError):
    """No tool has this name."""

    code = Code.NOT_FOUND
    reason = "TOOL_NOT_FOUND"

    def __init__(self, tool: str) -> None:
        super().__init__(f"There is no tool {tool!r}.", tool=tool)


class ToolUnknown(InvalidField):
    """An agent is given a tool that there is not."""

    reason = "TOOL_NOT_FOUND"

    def __init__(self, tool: str) -> None:
        super().__init__(f"There is no tool {tool!r}.", metadata={"tool": tool}, field="tools")


class ToolNotAllowed(ToolError):
    """The agent was not given this tool."""

    code = Code.PERMISSION_DENIED
    reason = "TOOL_NOT_ALLOWED"

    def __init__(self, tool: str) -> None:
        super().__init__(f"The tool {tool!r} is not one of yours.", tool=tool)


class ToolArgumentsInvalid(ToolError):
    """The arguments do not fulfil the tool's schema."""

    code = Code.INVALID_ARGUMENT
    reason = "TOOL_ARGUMENTS_INVALID"

    def __init__(self, tool: str, *, problem: str) -> None:
        super().__init__(
            f"The arguments of {tool!r} are not valid: {problem}", tool=tool, metadata={"problem": problem}
        )


class ToolFailed(ToolError):
    """The tool failed, in words for the model."""

    code = Code.FAILED_PRECONDITION
    reason = "TOOL_FAILED"

    def __init__(self, message: str, *, tool: str) -> None:
        super().__init__(message, tool=tool)


class ToolTimeout(ToolError):
    """The tool took too long."""

    code = Code.DEADLINE_EXCEEDED
    reason = "TOOL_TIMEOUT"

    def __init__(self, tool: str) -> None:
        super().__init__(f"The tool {tool!r} took too long.", tool=tool)


class ToolUnavailable(ToolError):
    """The tool is not configured, or its server is not healthy."""

    code = Code.FAILED_PRECONDITION
    reason = "TOOL_UNAVAILABLE"

    def __init__(self, tool: str, *, variable: str = "") -> None:
        super().__init__(
            f"The tool {tool!r} is not available" + (f": set {variable}." if variable else "."),
            tool=tool,
            metadata={"variable": variable},
        )


class ToolDenied(ToolError):
    """A human denied the call."""

    code = Code.PERMISSION_DENIED
    reason = "TOOL_DENIED"

    def __init__(self, tool: str, *, comment: str = "") -> None:
        super().__init__(f"A human denied this call of {tool!r}" + (f": {comment}" if comment else "."), tool=tool)


class ToolNameClash(ToolError):
    """Two tools have the same name."""

    code = Code.ALREADY_EXISTS
    reason = "TOOL_NAME_CLASH"

    def __init__(self, tool: str) -> None:
        super().__init__(f"There is a tool {tool!r} already.", tool=tool)


class CoworkerUnknown(ToolError):
    """Work cannot be handed on to this one."""

    code = Code.INVALID_ARGUMENT
    reason = "COWORKER_UNKNOWN"

    def __init__(self, tool: str, *, coworker: str, known: str) -> None:
        super().__init__(f"Not handed on. The coworkers are: {known}.", tool=tool, metadata={"coworker": coworker})


class SchemaInvalid(InvalidField):
    """It is no JSON Schema, or too large a one."""

    reason = "SCHEMA_INVALID"

    def __init__(self, problem: str, *, field: str) -> None:
        super().__init__(f"Not a usable JSON Schema: {problem}", metadata={"problem": problem}, field=field)


class AddressForbidden(InvalidField):
    """The address is not one that may be called."""

    reason = "ADDRESS_FORBIDDEN"

    def __init__(self, host: str) -> None:
        super().__init__(f"{host!r} must not be called.", metadata={"host": host}, field="address")


class ToolServerExists(ServiceError):
    """A tool server has this id already."""

    code = Code.ALREADY_EXISTS
    reason = "TOOL_SERVER_EXISTS"

    def __init__(self, tool_server_id: str) -> None:
        super().__init__(
            f"There is a tool server {tool_server_id!r} already.", metadata={"tool_server_id": tool_server_id}
        )


class ToolServerInvalid(InvalidField):
    """The tool server's description is wrong."""

    reason = "TOOL_SERVER_INVALID"

    def __init__(self, problem: str, *, field: str = "tool_server") -> None:
        super().__init__(problem, metadata={"problem": problem}, field=field)


class ToolServerUnavailable(ServiceError):
    """The tool server does not answer, or not as it should."""

    code = Code.UNAVAILABLE
    reason = "TOOL_SERVER_UNAVAILABLE"

    def __init__(self, tool_server_id: str) -> None:
        super().__init__(
            f"The tool server {tool_server_id!r} does not answer as it should.",
            metadata={"tool_server_id": tool_server_id},
        )


class ToolServerReadOnly(ServiceError):
    """The tool server stands in the operator's file."""

    code = Code.FAILED_PRECONDITION
    reason = "TOOL_SERVER_READ_ONLY"

    def __init__(self, tool_server_id: str) -> None:
        super().__init__(
            f"The tool server {tool_server_id!r} stands in the operator's file.",
            metadata={"tool_server_id": tool_server_id},
        )


class ApprovalDecided(ServiceError):
    """It was decided otherwise before, or expired."""

    code = Code.FAILED_PRECONDITION
    reason = "APPROVAL_DECIDED"

    def __init__(self, approval_id: str, *, state: str) -> None:
        super().__init__(f"The approval is {state} already.", metadata={"approval_id": approval_id, "state": state})


class DecisionInvalid(InvalidField):
    """The decision does not fit what is asked."""

    reason = "DECISION_INVALID"

    def __init__(self, problem: str, *, kind: str, decision: str) -> None:
        super().__init__(problem, metadata={"kind": kind, "decision": decision}, field="decision")


class ApprovalExpired(ServiceError):
    """Nobody decided in time, and the run may not go on without."""

    code = Code.FAILED_PRECONDITION
    reason = "APPROVAL_EXPIRED"

    def __init__(self, approval_id: str) -> None:
        super().__init__("Nobody decided in time.", metadata={"approval_id": approval_id})


class OutputRejected(ServiceError):
    """A human did not accept the output, or nobody did in time."""

    code = Code.FAILED_PRECONDITION
    reason = "OUTPUT_REJECTED"

    def __init__(self, approval_id: str) -> None:
        super().__init__("The output was not accepted.", metadata={"approval_id": approval_id})


class BudgetExhausted(ServiceError):
    """The run took as much as it may."""

    code = Code.FAILED_PRECONDITION
    reason = "BUDGET_EXHAUSTED"

    def __init__(self, limit: str) -> None:
        super().__init__(f"The run reached its limit of {limit}.", metadata={"limit": limit})


class TaskTimeout(ServiceError):
    """The task's time was over before it was done."""

    code = Code.DEADLINE_EXCEEDED
    reason = "TASK_TIMEOUT"

    def __init__(self) -> None:
        super().__init__("The task's time was over before it was done.")


class RunCancelled(ServiceError):
    """The run was cancelled before it had an answer."""

    code = Code.CANCELLED
    reason = "RUN_CANCELLED"

    def __init__(self) -> None:
        super().__init__("The run was cancelled.")


class TenantBudgetExhausted(ServiceError):
    """The tenant took as much as it may this month."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "TENANT_BUDGET_EXHAUSTED"

    def __init__(self, limit: str) -> None:
        super().__init__(f"The limit of {limit} for this month is reached.", metadata={"limit": limit})


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


class MemoryInvalid(InvalidField):
    """It cannot be remembered as it is."""

    reason = "MEMORY_INVALID"

    def __init__(self, message: str = "content must not be empty", *, field: str = "content") -> None:
        super().__init__(message, field=f"memory.{field}")


class MemoryFull(ServiceError):
    """The scope holds as many memories as it may."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "MEMORY_FULL"

    def __init__(self, *, limit: int) -> None:
        super().__init__(
            f"There are {limit} memories of this scope: forget some first.", metadata={"limit": str(limit)}
        )


class ScopeRequired(InvalidField):
    """Neither a memory nor a scope is named."""

    reason = "SCOPE_REQUIRED"

    def __init__(self) -> None:
        super().__init__("Name a memory or a scope.", field="scope")


class PassagesRequired(InvalidField):
    """There is neither a text with passages nor a kept answer to check."""

    reason = "PASSAGES_REQUIRED"

    def __init__(self) -> None:
        super().__init__("Give text and passages, or message_id.", field="passages")


class ProviderRateLimited(ProviderError):
    """Its account, or our own limit for it, is used up for now."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "PROVIDER_RATE_LIMITED"
