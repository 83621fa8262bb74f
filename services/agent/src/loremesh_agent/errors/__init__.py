"""Why the agent refuses a call or ends a run.

ServiceError
├── InvalidField                    INVALID_ARGUMENT
│   ├── MessageEmpty                                     MESSAGE_EMPTY
│   └── MessageTooLong                                   MESSAGE_TOO_LONG
├── Missing                         NOT_FOUND            one each for agents, conversations, memories, tool servers ...
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
├── ToolError                       what a model is told of a tool: TOOL_...
└── one each for what agents, approvals, budgets, memories, prompts and tool servers refuse, named for its reason

The rest are the kit's own. No provider's own words are in any of them: they may quote keys and prompts.
"""

from loremesh_agent.errors.agents import (
    AgentExists,
    AgentInvalid,
    AgentMismatch,
    AgentNotFound,
    AgentRevisionNotFound,
    FieldMaskInvalid,
    PromptInvalid,
    PromptNotFound,
    SchemaInvalid,
)
from loremesh_agent.errors.chats import (
    AttachmentUnsupported,
    ChatJobNotFound,
    ConversationBusy,
    ConversationNotFound,
    MessageEmpty,
    MessageNotFound,
    MessageTooLong,
    PassagesRequired,
    QueueFull,
    VectorStoreNotFound,
)
from loremesh_agent.errors.memories import (
    MemoryFull,
    MemoryInvalid,
    MemoryNotFound,
    MemoryReceiptNotFound,
    ScopeRequired,
)
from loremesh_agent.errors.models import (
    Limit,
    ModelOutputInvalid,
    ModelUnknown,
    ProviderError,
    ProviderNotConfigured,
    ProviderRateLimited,
    ProviderRefused,
    ProviderStreamCut,
    ProviderTimeout,
    ProviderUnavailable,
)
from loremesh_agent.errors.runs import (
    ApprovalDecided,
    ApprovalExpired,
    ApprovalNotFound,
    BudgetExhausted,
    DecisionInvalid,
    GivenUp,
    KeptFailure,
    OutputRejected,
    RunCancelled,
    TaskNotFound,
    TaskTimeout,
    TenantBudgetExhausted,
)
from loremesh_agent.errors.tool_servers import (
    AddressForbidden,
    ToolServerExists,
    ToolServerInvalid,
    ToolServerNotFound,
    ToolServerReadOnly,
    ToolServerUnavailable,
)
from loremesh_agent.errors.tools import (
    CoworkerUnknown,
    ToolArgumentsInvalid,
    ToolDenied,
    ToolError,
    ToolFailed,
    ToolNameClash,
    ToolNotAllowed,
    ToolNotFound,
    ToolTimeout,
    ToolUnavailable,
    ToolUnknown,
)

__all__ = [
    "AddressForbidden",
    "AgentExists",
    "AgentInvalid",
    "AgentMismatch",
    "AgentNotFound",
    "AgentRevisionNotFound",
    "ApprovalDecided",
    "ApprovalExpired",
    "ApprovalNotFound",
    "AttachmentUnsupported",
    "BudgetExhausted",
    "ChatJobNotFound",
    "ConversationBusy",
    "ConversationNotFound",
    "CoworkerUnknown",
    "DecisionInvalid",
    "FieldMaskInvalid",
    "GivenUp",
    "KeptFailure",
    "Limit",
    "MemoryFull",
    "MemoryInvalid",
    "MemoryNotFound",
    "MemoryReceiptNotFound",
    "MessageEmpty",
    "MessageNotFound",
    "MessageTooLong",
    "ModelOutputInvalid",
    "ModelUnknown",
    "OutputRejected",
    "PassagesRequired",
    "PromptInvalid",
    "PromptNotFound",
    "ProviderError",
    "ProviderNotConfigured",
    "ProviderRateLimited",
    "ProviderRefused",
    "ProviderStreamCut",
    "ProviderTimeout",
    "ProviderUnavailable",
    "QueueFull",
    "RunCancelled",
    "SchemaInvalid",
    "ScopeRequired",
    "TaskNotFound",
    "TaskTimeout",
    "TenantBudgetExhausted",
    "ToolArgumentsInvalid",
    "ToolDenied",
    "ToolError",
    "ToolFailed",
    "ToolNameClash",
    "ToolNotAllowed",
    "ToolNotFound",
    "ToolServerExists",
    "ToolServerInvalid",
    "ToolServerNotFound",
    "ToolServerReadOnly",
    "ToolServerUnavailable",
    "ToolTimeout",
    "ToolUnavailable",
    "ToolUnknown",
    "VectorStoreNotFound",
]
