"""What the use cases need of the world outside, each named for the need."""

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from loremesh_kit.filters import Filter
from loremesh_kit.jobs import Job
from loremesh_kit.pages import Position

from loremesh_agent.domain.agents import Agent, ModelProfile
from loremesh_agent.domain.approvals import Alarm, Approval, Decision, NewApproval
from loremesh_agent.domain.approvals import State as ApprovalState
from loremesh_agent.domain.chat_jobs import ChatJob, Status
from loremesh_agent.domain.conversations import Conversation, Exchange, Feedback, Message, State, Usage
from loremesh_agent.domain.definitions import AgentDefinition, BusyPolicy
from loremesh_agent.domain.delegation import Delegation, Delivered
from loremesh_agent.domain.events import Event, FinishReason, Payload
from loremesh_agent.domain.memories import Candidate, Kind, Memory, NewMemory, Receipt
from loremesh_agent.domain.passages import Found, Source
from loremesh_agent.domain.prices import KnownProvider
from loremesh_agent.domain.prompts import PromptMessage
from loremesh_agent.domain.steps import Change, Step
from loremesh_agent.domain.tasks import Task, TaskOrder
from loremesh_agent.domain.templates import KeptPrompt
from loremesh_agent.domain.tool_servers import Described, NewToolServer, ToolServer
from loremesh_agent.domain.tools import CallContext, ToolCall, ToolResult, ToolSpec


class PassageIndex(Protocol):
    """Finds passages of documents."""

    async def search(self, query: str, *, vector_store_id: str, top_k: int, filter_: Filter | None) -> Found:
        """The best passages; raises VectorStoreNotFound, FilterInvalid, DependencyUnavailable, DeadlineExceeded."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """What a model, `provider/model`, is asked; None leaves a parameter to the provider."""

    model: str
    messages: Sequence[PromptMessage]
    max_output_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    stop: Sequence[str] = ()
    # What it may ask for; a model without tools of its own is offered them through a JSON Schema of its answer.
    tools: Sequence[ToolSpec] = ()
    # JSON Schema of the answer's text; None: free text.
    response_schema: Mapping[str, Any] | None = None
    # Who is asked in its place, in turn, where it fails with nothing of the answer there.
    fallback_models: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ModelText:
    """A piece of the answer, not empty."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFinish:
    """The answer is whole, or cut by a limit of the provider; always the last event."""

    reason: FinishReason
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class ModelToolCall:
    """The model asks for a tool, its arguments complete; ids are unique in the answer."""

    call: ToolCall


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSwitched:
    """Another model took over before anything of the answer was there; `provider/model` each."""

    before: str
    after: str
    reason: str


ModelEvent = ModelText | ModelToolCall | ModelSwitched | ModelFinish


@dataclass(frozen=True, slots=True)
class ModelProgress:
    """Something comes that is no answer yet: thoughts, or a part of a tool's arguments."""


class ModelSource(Protocol):
    """One provider's models, asked as they are: no limits in time, no second try."""

    @property
    def name(self) -> str:
        """What errors and logs call it."""
        ...

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent | ModelProgress, None]:
        """As ModelProvider's, and what shows that the provider is alive meanwhile."""
        ...


class ModelProvider(Protocol):
    """Asks language models."""

    @property
    def name(self) -> str:
        """What errors and logs call it."""
        ...

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """The answer as it comes; closing the generator ends the request.

        Ends with exactly one ModelFinish, or raises ProviderUnavailable, ProviderTimeout, ProviderRefused,
        ProviderRateLimited, ProviderStreamCut, ProviderNotConfigured, ModelUnknown, ModelOutputInvalid or
        AttachmentUnsupported.
        """
        ...


class Models(Protocol):
    """Knows models by name."""

    def profile(self, model: str) -> ModelProfile:
        """How a model is asked, the default one for an empty name; raises ModelUnknown, ProviderNotConfigured."""
        ...

    def cost(self, model: str, usage: Usage) -> int | None:
        """What the tokens cost in millionths of a US dollar; None where the model's price is not known."""
        ...


class Tool(Protocol):
    """Something a model may have done."""

    @property
    def spec(self) -> ToolSpec:
        """What it is."""
        ...

    async def call(self, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        """Do it, with arguments that fulfil its schema; raises ToolError, AddressForbidden, DependencyUnavailable."""
        ...


class Toolbox(Protocol):
    """Knows the tools there are, for the caller's tenant."""

    async def specs(self) -> Sequence[ToolSpec]:
        """All of them, by name, those which are not available among them."""
        ...

    async def find(self, name: str) -> Tool:
        """The tool; raises ToolNotFound, ToolUnavailable."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose a memory is; empty: nobody's in particular."""

    user_id: str = ""
    agent_id: str = ""
    conversation_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something to be remembered; `subject` and `attribute` say which facts contradict each other."""

    content: str
    scope: Scope
    # A MemoryKind's name.
    kind: str = "LONG_TERM"
    subject: str = ""
    attribute: str = ""
    confidence: float = 1.0
    ttl_seconds: float | None = None
    run_id: str = ""
    message_id: str = ""
    seq: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """Something remembered, and how well it fits, 0 to 1."""

    memory_id: str
    content: str
    score: float


class Recollection(Protocol):
    """Remembers, for the loop and its tools."""

    async def remember(self, fact: Fact) -> str:
        """Id of the memory, new or known already; raises MemoryFull, MemoryInvalid."""
        ...

    async def recall(self, query: str, *, scope: Scope, top_k: int, words_only: bool = False) -> Sequence[Recalled]:
        """What is known, best first, in the scope and those around it."""
        ...


class MemoryStore(Protocol):
    """Keeps memories. A caller who is a user neither sees nor touches those of other users."""

    async def remember(self, new: NewMemory) -> tuple[Memory, bool]:
        """The memory, and whether it is new: one that says the same is found, one that contradicts is superseded.

        Raises MemoryFull, ConversationNotFound.
        """
        ...

    async def get(self, memory_id: str) -> Memory:
        """The memory, whatever its standing; raises MemoryNotFound."""
        ...

    async def page(
        self, scope: Scope | None, *, kind: Kind | None, show_past: bool, after: Position | None, limit: int
    ) -> Sequence[Memory]:
        """At most `limit` memories behind a position, newest first, of exactly a scope or, for None, of any."""
        ...

    async def superseded(self, memory_id: str) -> Sequence[Memory]:
        """What it took the place of, and what that did, newest first."""
        ...

    async def source_text(self, message_id: str) -> str:
        """What a message says; empty where there is none."""
        ...

    async def forget(self, *, memory_id: str = "", scope: Scope | None = None) -> Receipt:
        """Have one memory, or all of exactly a scope, seen by nobody from now on, and purged from every store soon."""
        ...

    async def receipt(self, receipt_id: str) -> Receipt:
        """What became of a forgetting that the caller asked for; raises MemoryReceiptNotFound."""
        ...

    async def purge(self) -> int:
        """Remove memories that expired and receipts which were kept long enough; how many there were."""
        ...


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of texts, of unit length, and the model that made them."""

    model: str
    vectors: Sequence[Sequence[float]]


class RecallIndex(Protocol):
    """Finds memories by their words and by what they mean; a memory without a vector is found by its words."""

    async def candidates(
        self, query: str, *, scope: Scope, kinds: Collection[Kind], embedded: Embedded | None
    ) -> Sequence[Candidate]:
        """Those which stand and may fit, of the scope and those around it, in no order; no kinds: all of them.

        `embedded` holds the query's vector; None: by words alone.
        """
        ...

    async def pending(self, model: str, *, limit: int) -> Mapping[str, str]:
        """Texts of memories without a vector, or with one of another model than `model` unless it is empty, by id."""
        ...

    async def keep(self, memory_ids: Sequence[str], embedded: Embedded) -> None:
        """Keep vectors, but for what was forgotten meanwhile."""
        ...


class MemoryWork(Protocol):
    """What a worker writes for a job of memories; every method raises FenceLost once the job is not its own."""

    async def remove_vectors(self, job: Job) -> None:
        """Purge the index of what the job's receipt is about; again, nothing more is counted."""
        ...

    async def remove_memories(self, job: Job) -> None:
        """Purge the memories themselves, finish the receipt and complete the job: all of it or nothing."""
        ...

    async def complete(self, job: Job) -> None:
        """Complete a job whose effect is there."""
        ...


class TextEmbedder(Protocol):
    """Turns texts into vectors."""

    async def embed(self, texts: Sequence[str], *, are_queries: bool) -> Embedded:
        """One vector a text; raises DependencyUnavailable, DeadlineExceeded."""
        ...


class Quotations(Protocol):
    """Knows where documents are quoted."""

    async def forget(self, document_id: str, *, vector_store_id: str, message_id: str) -> None:
        """Remove what is quoted of a deleted document and say so, once for each message that told of the deletion."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentFacts:
    """A document as far as its readers are concerned; `pages` is zero for formats without."""

    document_id: str
    vector_store_id: str
    title: str
    text_chars: int
    pages: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Extract:
    """A part of a document's text; offsets are code points."""

    text: str
    start_char: int
    end_char: int


class DocumentTexts(Protocol):
    """Knows what stands in documents."""

    async def facts(self, document_id: str) -> DocumentFacts | None:
        """What it is, None where there is none; raises DependencyUnavailable, DeadlineExceeded."""
        ...

    async def span(self, document_id: str, *, start_char: int, end_char: int) -> Extract | None:
        """Its text from here to there, `end_char` exclusive; None where there is none. Raises as `facts`."""
        ...

    async def pages(self, document_id: str, *, first: int, last: int) -> Extract | None:
        """The text of its pages and a little around them; None where there are none. Raises as `facts`."""
        ...


class Resolver(Protocol):
    """Knows the addresses of hosts."""

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """IPv4 and IPv6 addresses as text, none where the name is not known."""
        ...


class DocumentRegistry(Protocol):
    """Knows which documents there are."""

    async def live(self, document_ids: Collection[str]) -> frozenset[str]:
        """Those that are not deleted at this instant; raises DependencyUnavailable, DeadlineExceeded."""
        ...


class VectorStoreRegistry(Protocol):
    """Knows which vector stores there are."""

    async def missing(self, vector_store_ids: Collection[str]) -> frozenset[str]:
        """Those that there are not; raises DependencyUnavailable, DeadlineExceeded."""
        ...


class ProviderCatalogue(Protocol):
    """Knows the providers there are."""

    def known(self) -> Sequence[KnownProvider]:
        """All of them, by name."""
        ...


class ModelCatalogue(Models, ProviderCatalogue, Protocol):
    """Knows both."""


class PromptLibrary(Protocol):
    """Keeps prompts."""

    async def find(self, name: str, *, version: int, language: str) -> KeptPrompt:
        """The prompt, its newest version for 0; raises PromptNotFound, PromptInvalid, DependencyUnavailable."""
        ...


class AgentStore(Protocol):
    """Keeps what agents were made and changed to. The built-in `default` is none of them until it is changed."""

    async def current(self, agent_id: str) -> AgentDefinition | None:
        """The agent as it is, None where there is none."""
        ...

    async def revision(self, agent_id: str, revision: int) -> AgentDefinition | None:
        """The agent as it was, though it may be deleted now; None where it never was."""
        ...

    async def held(self, conversation_id: str) -> tuple[str, AgentDefinition | None]:
        """The agent which a conversation is held with: its id, and as it is; raises ConversationNotFound."""
        ...

    async def page(self, *, after: str, limit: int) -> Sequence[AgentDefinition]:
        """At most `limit` agents whose id is behind `after`, by id, without `default`."""
        ...

    async def revisions(self, agent_id: str, *, before: int | None, limit: int) -> Sequence[AgentDefinition]:
        """At most `limit` revisions with a number below `before`, newest first."""
        ...

    async def create(self, definition: AgentDefinition) -> AgentDefinition:
        """Keep an agent that there is not, as its revision, or as the one after its last; raises AgentExists."""
        ...

    async def revise(self, definition: AgentDefinition, *, expected: int) -> AgentDefinition | None:
        """Keep an agent's next revision, or return None where `expected` is not the current one."""
        ...

    async def delete(self, agent_id: str) -> bool:
        """Delete it, but for its revisions; False where there is none."""
        ...


class AgentDirectory(Protocol):
    """Knows the agents."""

    async def get(self, agent_id: str, *, revision: int = 0, prompt_version: int = 0) -> Agent:
        """The agent as it is, or as it was, though it may be deleted now; empty means the default one.

        With `prompt_version` that version stands in for a prompt whose newest the agent takes: a run keeps what it
        began with. Raises AgentNotFound, AgentRevisionNotFound, ModelUnknown, ProviderNotConfigured, PromptNotFound,
        PromptInvalid, and DependencyUnavailable where prompts cannot be had.
        """
        ...

    async def held(self, conversation_id: str, *, agent_id: str = "") -> Agent:
        """The agent as it is which a conversation is held with; `agent_id`, if not empty, must be the same.

        Raises ConversationNotFound, AgentMismatch, and as `get`.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A caller's word that requests of one method with this key and this hash are one request."""

    key: str
    method: str
    request_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTurn:
    """A message to be answered, with the ids that it and its answer are going to have.

    `conversation_id` None makes a conversation `new_conversation_id`, held with `agent_id`.
    """

    run_id: str
    question_id: str
    answer_id: str
    text: str
    agent_id: str
    conversation_id: str | None
    new_conversation_id: str
    claim: Claim | None = None
    # Of the agent that answers.
    agent_revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedTurn:
    """How an answer ended, and all that is kept of it."""

    content: str
    state: State
    sources: Sequence[Source] = ()
    usage: Usage | None = None
    model: str = ""
    grounded: bool = False
    # None where no limit or model ended it.
    finish_reason: FinishReason | None = None


class AnsweredBefore(Exception):
    """The turn was claimed and answered by an earlier request with the same key."""

    def __init__(self, message: Message) -> None:
        super().__init__(message.id)
        self.message = message


class TurnStore(Protocol):
    """Keeps the turns of conversations; at any time at most one answer of a conversation is being written.

    Whoever has not told of an answer for `lease` seconds (given to the constructor) has lost it: the next turn
    takes the conversation over, and what the first still writes is refused.
    """

    async def begin(self, turn: NewTurn) -> Sequence[Exchange]:
        """Keep the question and the answer's row, all or nothing; what was said before, oldest first.

        Raises ConversationNotFound, ConversationBusy; with a claim also IdempotencyConflict, AnsweredBefore, and
        ConversationBusy while the request that claimed it first is being answered. What an earlier try under the claim
        left that failed is replaced.
        """
        ...

    async def keep(self, turn: NewTurn, content: str) -> None:
        """Keep what there is of the answer and renew the lease; raises as `finish`."""
        ...

    async def finish(self, turn: NewTurn, finished: FinishedTurn) -> None:
        """Keep the answer as it ended.

        Raises ConversationNotFound when it was deleted meanwhile, ConversationBusy when the turn is lost.
        """
        ...

    async def withdraw(self, turn: NewTurn) -> None:
        """Undo `begin`: the question was refused after all."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedInBackground:
    """A turn that a job is to answer, `request` as it was accepted, and what was said before it, oldest first."""

    turn: NewTurn
    request: bytes
    attempt: int
    history: Sequence[Exchange]
    # It waited, and goes on in the same attempt.
    resumed: bool = False
    # What a run with a journal was made with; None before it has begun.
    record: Mapping[str, Any] | None = None
    # Since it has begun, without what it waited.
    worked_seconds: float = 0.0
    # Whose turn it is, where that is no chat: empty for chats; `order` is what `request` asks for.
    task_id: str = ""
    order: TaskOrder | None = None


class ChatJobStore(Protocol):
    """Keeps chat jobs and shows them."""

    async def create(self, turn: NewTurn, request: bytes, *, busy: BusyPolicy, again: bool) -> tuple[str, str]:
        """Accept a job for the turn, all or nothing; its id and its conversation's, the same again for a claim.

        `busy` says what happens where the conversation is answering another message. With `again` a claim whose job
        failed or was cancelled makes another one. Raises QueueFull, ConversationNotFound, ConversationBusy,
        IdempotencyConflict.
        """
        ...

    async def get(self, job_id: str) -> ChatJob:
        """The job, with its answer if there is one; raises ChatJobNotFound."""
        ...

    async def page(self, *, after: Position | None, limit: int, status: Status | None) -> Sequence[ChatJob]:
        """At most `limit` jobs behind a position, newest first, without their answers."""
        ...

    async def cancel(self, job_id: str) -> None:
        """End a job that is not finished; raises ChatJobNotFound."""
        ...

    async def steps(self, job_id: str, *, after_number: int, limit: int) -> Sequence[Step]:
        """At most `limit` steps of its run behind a number, in order; raises ChatJobNotFound."""
        ...

    async def standing(self, job_id: str, *, after_seq: int) -> tuple[bool, int]:
        """Whether it is finished, and the number of its last event; raises ChatJobNotFound, AfterSeqOutOfRange."""
        ...

    async def events(self, job_id: str, *, after_seq: int, limit: int) -> Sequence[Event]:
        """At most `limit` events behind a number, in order."""
        ...

    async def free(self) -> int:
        """Begin what waits for conversations that are free by now; how many waited."""
        ...

    async def purge(self) -> int:
        """Remove jobs, and their events, which were kept long enough; how many there were."""
        ...


class ChatWork(Protocol):
    """What a worker reads and writes of a chat job; every method raises FenceLost once the job is not its own."""

    async def begin(self, job: Job) -> AskedInBackground:
        """Begin the next attempt; raises ConversationNotFound when the conversation was deleted."""
        ...

    async def tell(self, job: Job, happened: Sequence[Payload], *, answer_id: str, attempt: int) -> None:
        """Write events to the job's log."""
        ...

    async def finish(
        self, job: Job, happened: Sequence[Payload], finished: FinishedTurn, *, answer_id: str, attempt: int
    ) -> None:
        """Write the last events, keep the answer and complete the job: all of it or nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """A task to be accepted: `request` as it came, and by what a request is known to be the same."""

    order: TaskOrder
    request: bytes
    request_hash: bytes
    agent_id: str = ""
    agent_revision: int = 0


class TaskStore(Protocol):
    """Keeps tasks; each is a chat job."""

    async def create(self, new: NewTask) -> Task:
        """Accept a task, all or nothing; the one there is where there is one of its id, with its answer.

        Raises QueueFull, IdempotencyConflict.
        """
        ...

    async def known(self, task_id: str, *, request_hash: bytes) -> Task | None:
        """The task which this request made, with its answer; None where there is none. Raises IdempotencyConflict."""
        ...

    async def get(self, task_id: str) -> Task:
        """The task, with its answer if there is one; raises TaskNotFound."""
        ...

    async def cancel(self, task_id: str) -> None:
        """End a task that is not finished; raises TaskNotFound."""
        ...


class Metronome(Protocol):
    """Counts how often agents ask their models."""

    async def beat(self, agent_id: str, *, limit: int) -> float:
        """Count one more in this minute; seconds to wait before asking again where it has `limit`, else zero."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """A human is asked in a step of a run, about a call or a limit."""

    number: int
    new: NewApproval
    call_id: str = ""
    limit: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingFor:
    """What a run begins to wait for, beside what it waits for already."""

    questions: Sequence[Asking] = ()
    delegations: Sequence[Delegation] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What a run did so far, what it asked of humans, and what it handed on."""

    steps: Sequence[Step] = ()
    approvals: Sequence[Approval] = ()
    delegations: Sequence[Delegation] = ()


class RunWork(Protocol):
    """The journal of a run, written by its worker; every method raises FenceLost once the job is not its own."""

    async def recorded(self, job: Job) -> Recorded:
        """How the run stands."""
        ...

    async def commit(self, job: Job, change: Change, *, answer_id: str, attempt: int) -> None:
        """Write a change, all of it or nothing; raises TenantBudgetExhausted where it reserves what is not there."""
        ...

    async def park(self, job: Job, change: Change, waiting: WaitingFor, *, answer_id: str, attempt: int) -> bool:
        """Write the change, ask and hand on, and let go of the job until somebody decides or delivers.

        False, and nothing is written, where that happened meanwhile and the run does not know of it yet.
        """
        ...

    async def finish(self, job: Job, change: Change, finished: FinishedTurn, *, answer_id: str, attempt: int) -> None:
        """Write the last change, keep the answer and complete the job: all of it or nothing."""
        ...

    async def leave(self, job: Job, step: Step) -> None:
        """Keep what a step took of a run that was cancelled meanwhile; nothing where it was not."""
        ...


class Tools(Protocol):
    """The tools in an agent's hands."""

    async def offered(self, agent: Agent) -> Sequence[ToolSpec]:
        """Those that can be called now, in the agent's order."""
        ...

    def check(self, spec: ToolSpec, call: ToolCall) -> Mapping[str, Any]:
        """The call's arguments, read and valid; raises ToolArgumentsInvalid."""
        ...

    async def call(self, spec: ToolSpec, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        """What the tool answers; raises ToolError, with a message for the model, or a retryable ServiceError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationChange:
    """New values; None leaves what is there."""

    title: str | None = None
    attributes: Mapping[str, Any] | None = None


class ConversationStore(Protocol):
    """Keeps conversations and shows their messages."""

    async def create(self, conversation_id: str, *, title: str, agent_id: str, attributes: Mapping[str, Any]) -> None:
        """Keep an empty conversation."""
        ...

    async def get(self, conversation_id: str) -> Conversation:
        """The conversation; raises ConversationNotFound."""
        ...

    async def page(self, *, after: Position | None, limit: int) -> Sequence[Conversation]:
        """At most `limit` conversations behind a position, the one changed last first."""
        ...

    async def update(self, conversation_id: str, change: ConversationChange, *, etag: str) -> Conversation:
        """Change it; raises ConversationNotFound, and EtagMismatch unless `etag` is empty or the current one."""
        ...

    async def delete(self, conversation_id: str) -> None:
        """Delete it with its messages; raises ConversationNotFound."""
        ...

    async def messages(self, conversation_id: str, *, after: int, limit: int) -> Sequence[Message]:
        """At most `limit` messages behind a position, oldest first; raises ConversationNotFound."""
        ...

    async def answer(self, message_id: str) -> Message:
        """An answer; raises MessageNotFound."""
        ...

    async def rate(self, message_id: str, feedback: Feedback | None) -> Message:
        """Put feedback on an answer in place of what was said before; raises MessageNotFound."""
        ...


class ApprovalStore(Protocol):
    """Keeps what runs ask of humans."""

    async def get(self, approval_id: str) -> Approval:
        """The approval; raises ApprovalNotFound."""
        ...

    async def page(
        self, *, after: Position | None, limit: int, state: ApprovalState, run_id: str = "", assignee: str = ""
    ) -> Sequence[Approval]:
        """At most `limit` approvals behind a position that stand so, those due first.

        Of one run, or of the tasks of a run of a crew or flow; for one who is asked, or anyone. Empty means all.
        """
        ...

    async def decide(self, approval_id: str, decision: Decision, *, etag: str) -> Approval:
        """Keep the decision, the caller's, and let the run go on: all or nothing; the same again changes nothing.

        Raises ApprovalNotFound, ApprovalDecided, and EtagMismatch unless `etag` is empty or the current one.
        """
        ...

    async def reassign(self, approval_id: str, assignee: str, *, etag: str) -> Approval:
        """Have somebody else asked; to whom it is assigned already changes nothing. Raises as `decide` does."""
        ...

    def watch(self, *, run_id: str, heartbeat: float) -> AsyncGenerator[Approval | None, None]:
        """Those pending, and then each that changes, for ever; None after each `heartbeat` quiet seconds."""
        ...


class DelegationStore(Protocol):
    """Keeps what runs handed on."""

    async def deliver(self, task_id: str, delegation_id: str, delivered: Delivered) -> None:
        """Keep what came of it, the first time, and let the run go on once all it handed on is delivered.

        Of a run that has ended nothing changes. Raises TaskNotFound.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DueAlarm:
    """An approval that is to be looked at, and for whom its run works."""

    tenant: str
    approval_id: str
    principal: str


class ApprovalAlarms(Protocol):
    """Knows which approvals, of any tenant, nobody decides."""

    async def due(self, *, limit: int) -> Sequence[DueAlarm]:
        """Those to be looked at now, at most `limit`."""
        ...

    async def ring(self, approval_id: str) -> Alarm | None:
        """Do what it is time for with an approval of the caller's tenant, once; None: nothing or not ours."""
        ...


class ToolServerClient(Protocol):
    """Speaks to tool servers of one kind."""

    def sleeps(self, server: NewToolServer) -> bool:
        """Whether to ask it would start something that nobody needed so far."""
        ...

    async def describe(self, server: NewToolServer) -> tuple[Described, ...]:
        """The tools it has.

        Raises ToolServerUnavailable, ToolServerInvalid, ToolNameClash, SchemaInvalid, AddressForbidden.
        """
        ...

    async def call(
        self, server: NewToolServer, tool: Described, arguments: Mapping[str, Any], context: CallContext
    ) -> ToolResult:
        """Call a tool, as long as it is still described in the same way.

        Raises ToolUnavailable and AddressForbidden where it was not called, ToolFailed where it failed; ToolTimeout,
        and DependencyUnavailable for a tool that may change something, where nobody knows.
        """
        ...


class ToolServerStore(Protocol):
    """Keeps tool servers; `tenant` None means the caller's."""

    async def create(self, server: ToolServer, claim: Claim | None) -> None:
        """Keep a new one; raises ToolServerExists, IdempotencyConflict."""
        ...

    async def claimed(self, claim: Claim) -> str | None:
        """Id of the server that a request with this claim made before; raises IdempotencyConflict."""
        ...

    async def put(self, server: ToolServer) -> None:
        """Keep it in place of what there is of its id; raises ToolServerNotFound."""
        ...

    async def introduce(self, server: ToolServer, *, tenant: str) -> None:
        """Keep it unless there is one of its id."""
        ...

    async def get(self, server_id: str, *, tenant: str | None = None) -> ToolServer:
        """The server; raises ToolServerNotFound."""
        ...

    async def page(self, *, after: str, limit: int, tenant: str | None = None) -> Sequence[ToolServer]:
        """At most `limit` servers whose ids come after one, by id."""
        ...

    async def delete(self, server_id: str) -> None:
        """Remove it; raises ToolServerNotFound."""
        ...

    async def due(self, *, interval: float, limit: int) -> Sequence[tuple[str, str]]:
        """Tenant and id of servers, of all tenants, to be checked now by the caller and nobody else for a while.

        `interval` is the time between two checks of a server, in seconds.
        """
        ...

    async def note(self, server_id: str, *, healthy: bool, changed: frozenset[str] | None, tenant: str) -> None:
        """Keep what a check found; None for what it could not find out."""
        ...
