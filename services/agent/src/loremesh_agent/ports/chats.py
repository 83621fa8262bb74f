"""What keeps conversations, turns and chat jobs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from loremesh_kit.jobs import Job
from loremesh_kit.pages import Position

from loremesh_agent.domain.chat_jobs import ChatJob, Status
from loremesh_agent.domain.conversations import Conversation, Exchange, Feedback, Message, State, Usage
from loremesh_agent.domain.definitions import BusyPolicy
from loremesh_agent.domain.events import Event, FinishReason, Payload
from loremesh_agent.domain.passages import Source
from loremesh_agent.domain.steps import Step
from loremesh_agent.domain.tasks import TaskOrder


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
    # Which limit, where one did.
    finish_limit: str = ""
    # What it was made with, where that is not kept yet; of use to jobs.
    record: Mapping[str, Any] | None = None


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
