"""Fakes of everything outside, which keep what they are given in this process."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from loremesh_kit import filters, identity
from loremesh_kit.clock import Clock
from loremesh_kit.errors import EtagMismatch, IdempotencyConflict
from loremesh_kit.filters import Filter
from loremesh_kit.pages import Position

from loremesh_agent.domain.agents import Agent
from loremesh_agent.domain.conversations import (
    Conversation,
    Exchange,
    Feedback,
    Message,
    Role,
    State,
    title_of,
)
from loremesh_agent.domain.passages import Found, documents
from loremesh_agent.domain.tools import ToolSpec
from loremesh_agent.errors import (
    AgentNotFound,
    ConversationBusy,
    ConversationNotFound,
    MessageNotFound,
    ToolNotFound,
    VectorStoreNotFound,
)
from loremesh_agent.ports import (
    AnsweredBefore,
    Claim,
    ConversationChange,
    FinishedTurn,
    ModelEvent,
    ModelRequest,
    NewTurn,
    Tool,
)

Key = tuple[str, str]


class MemoryIndex:
    """Finds everything a vector store was given, whatever the query; raises what it was told to."""

    def __init__(self, stores: Mapping[str, Found]) -> None:
        self.stores = dict(stores)
        self.queries: list[str] = []
        self.failure: Exception | None = None

    async def search(self, query: str, *, vector_store_id: str, top_k: int, filter_: Filter | None) -> Found:
        """See ports.PassageIndex."""
        self.queries.append(query)
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        if vector_store_id not in self.stores:
            raise VectorStoreNotFound(vector_store_id)
        found = self.stores[vector_store_id]
        passages = [each for each in found.passages if filter_ is None or filters.matches(filter_, each.attributes)]
        return replace(found, passages=tuple(passages[:top_k]), generations={vector_store_id: 1, **found.generations})


class MemoryDocuments:
    """Knows all documents and stores but those it was told are deleted, and `none`; raises what it was told to."""

    def __init__(self) -> None:
        self.deleted: set[str] = set()
        self.missing_stores: set[str] = {"none"}
        self.failure: Exception | None = None

    async def live(self, document_ids: Collection[str]) -> frozenset[str]:
        """See ports.DocumentRegistry."""
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        return frozenset(document_ids) - self.deleted

    async def missing(self, vector_store_ids: Collection[str]) -> frozenset[str]:
        """See ports.VectorStoreRegistry."""
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        return frozenset(vector_store_ids) & self.missing_stores


class MemoryAgents:
    """Knows one agent, with which all conversations are held."""

    def __init__(self, *, default: Agent) -> None:
        self.default = default

    async def get(self, agent_id: str, *, revision: int = 0, prompt_version: int = 0) -> Agent:
        """See ports.AgentDirectory."""
        del revision, prompt_version
        if agent_id not in ("", self.default.id):
            raise AgentNotFound(agent_id)
        return self.default

    async def held(self, conversation_id: str, *, agent_id: str = "") -> Agent:
        """See ports.AgentDirectory."""
        del conversation_id
        return await self.get(agent_id)


class MemoryToolbox:
    """Has the tools it was given."""

    def __init__(self, *tools: Tool) -> None:
        self.tools = {tool.spec.name: tool for tool in tools}

    async def specs(self) -> Sequence[ToolSpec]:
        """See ports.Toolbox."""
        return [self.tools[name].spec for name in sorted(self.tools)]

    async def find(self, name: str) -> Tool:
        """See ports.Toolbox."""
        if name not in self.tools:
            raise ToolNotFound(name)
        return self.tools[name]


@dataclass(slots=True)
class Pause:
    """A step of a script: silence for so many seconds."""

    seconds: float


class ScriptedProvider:
    """Plays one script a request: events to give, pauses to make, exceptions to raise; the last one again and again."""

    def __init__(self, *scripts: Sequence[ModelEvent | Pause | Exception], name: str = "scripted") -> None:
        self._scripts = list(scripts)
        self._name = name
        self.requests: list[ModelRequest] = []
        self.asked = asyncio.Event()
        # How many streams were closed, at their end or before.
        self.closed = 0

    @property
    def name(self) -> str:
        """As it was given."""
        return self._name

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """See ports.ModelProvider."""
        self.requests.append(request)
        self.asked.set()
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        try:
            for step in script:
                match step:
                    case Pause(seconds):
                        await asyncio.sleep(seconds)
                    case Exception():
                        raise step
                    case _:
                        yield step
        finally:
            self.closed += 1


@dataclass(slots=True)
class _Kept:
    message: Message
    lease_until: float | None = None


@dataclass(slots=True)
class MemoryRecords:
    """What the two stores below share: the tables."""

    clock: Clock
    conversations: dict[Key, Conversation] = field(default_factory=dict)
    messages: dict[Key, _Kept] = field(default_factory=dict)
    # Of an idempotency key: the request's hash, and the answer it means.
    claims: dict[Key, tuple[bytes, str]] = field(default_factory=dict)

    def of(self, conversation_id: str) -> list[_Kept]:
        """A conversation's messages, oldest first."""
        tenant = identity.current().tenant
        mine = (kept for key, kept in self.messages.items() if key[0] == tenant)
        return sorted(
            (kept for kept in mine if kept.message.conversation_id == conversation_id),
            key=lambda kept: kept.message.position,
        )

    def conversation(self, conversation_id: str) -> Conversation:
        """Raises ConversationNotFound."""
        try:
            return self.conversations[key(conversation_id)]
        except KeyError:
            raise ConversationNotFound(conversation_id) from None


def key(id_: str) -> Key:
    """As rows are found."""
    return identity.current().tenant, id_


class MemoryTurns:
    """See ports.TurnStore."""

    def __init__(self, *, records: MemoryRecords, lease: float) -> None:
        self._records = records
        self._lease = lease

    async def begin(self, turn: NewTurn) -> Sequence[Exchange]:
        """See ports.TurnStore."""
        now, records = self._records.clock.now(), self._records
        if turn.claim:
            self._claim(turn, turn.claim)
        if turn.conversation_id is None:
            conversation = _new(turn.new_conversation_id, agent_id=turn.agent_id, now=now)
        else:
            conversation = records.conversation(turn.conversation_id)
            self._take_over(conversation.id)
        history = _history([kept.message for kept in records.of(conversation.id)])
        position = max((kept.message.position for kept in records.of(conversation.id)), default=0)
        titled = conversation.title or ("" if conversation.message_count else title_of(turn.text))
        records.conversations[key(conversation.id)] = replace(
            conversation, title=titled, message_count=conversation.message_count + 2, update_time=now
        )
        asked = Message(
            id=turn.question_id,
            conversation_id=conversation.id,
            position=position + 1,
            role=Role.USER,
            content=turn.text,
            state=State.COMPLETED,
            create_time=now,
        )
        said = replace(
            asked,
            id=turn.answer_id,
            position=position + 2,
            role=Role.AGENT,
            content="",
            state=State.IN_PROGRESS,
            run_id=turn.run_id,
            agent_revision=turn.agent_revision,
        )
        records.messages[key(asked.id)] = _Kept(asked)
        records.messages[key(said.id)] = _Kept(said, lease_until=records.clock.monotonic() + self._lease)
        return history

    def _claim(self, turn: NewTurn, claim: Claim) -> None:
        claimed = key(f"{claim.method} {claim.key}")
        request_hash, answer_id = self._records.claims.get(claimed, (claim.request_hash, ""))
        if request_hash != claim.request_hash:
            raise IdempotencyConflict("The idempotency key was used before with another request.")
        kept = self._records.messages.get(key(answer_id))
        left = kept.lease_until - self._records.clock.monotonic() if kept and kept.lease_until else 0.0
        if kept and left > 0:
            raise ConversationBusy(kept.message.conversation_id, retry_after=min(2.0, left))
        if kept and kept.message.state in (State.COMPLETED, State.INCOMPLETE):
            raise AnsweredBefore(kept.message)
        if kept:
            self._replace(kept.message, is_whole=turn.conversation_id is None)
        self._records.claims[claimed] = claim.request_hash, turn.answer_id

    def _replace(self, failed: Message, *, is_whole: bool) -> None:
        records, conversation = self._records, self._records.conversation(failed.conversation_id)
        if is_whole and conversation.message_count > 2:  # noqa: PLR2004 - a turn's
            return
        for kept in records.of(conversation.id):
            if kept.message.position in (failed.position - 1, failed.position):
                del records.messages[key(kept.message.id)]
        if is_whole:
            del records.conversations[key(conversation.id)]
            return
        count = conversation.message_count - 2
        records.conversations[key(conversation.id)] = replace(conversation, message_count=count)

    def _take_over(self, conversation_id: str) -> None:
        for kept in self._records.of(conversation_id):
            if kept.lease_until is None:
                continue
            left = kept.lease_until - self._records.clock.monotonic()
            if left > 0:
                raise ConversationBusy(conversation_id, retry_after=min(2.0, left))
            kept.message = replace(kept.message, state=State.FAILED)
            kept.lease_until = None

    async def keep(self, turn: NewTurn, content: str) -> None:
        """See ports.TurnStore."""
        kept = self._held(turn)
        kept.message = replace(kept.message, content=content)
        kept.lease_until = self._records.clock.monotonic() + self._lease

    async def finish(self, turn: NewTurn, finished: FinishedTurn) -> None:
        """See ports.TurnStore."""
        kept = self._held(turn)
        kept.lease_until = None
        kept.message = replace(
            kept.message,
            content=finished.content,
            state=finished.state,
            sources=tuple(finished.sources),
            usage=finished.usage,
            model=finished.model,
            grounded=finished.grounded,
            finish_reason=finished.finish_reason or "",
            finish_limit=finished.finish_limit,
        )

    async def withdraw(self, turn: NewTurn) -> None:
        """See ports.TurnStore."""
        records = self._records
        gone = [records.messages.pop(key(each), None) for each in (turn.question_id, turn.answer_id)]
        records.conversations.pop(key(turn.new_conversation_id), None)
        if turn.conversation_id is not None and any(gone):
            conversation = records.conversation(turn.conversation_id)
            count = conversation.message_count - len(gone)
            records.conversations[key(conversation.id)] = replace(conversation, message_count=count)

    def _held(self, turn: NewTurn) -> _Kept:
        conversation_id = turn.conversation_id or turn.new_conversation_id
        self._records.conversation(conversation_id)
        kept = self._records.messages.get(key(turn.answer_id))
        if kept is None or kept.lease_until is None:
            raise ConversationBusy(conversation_id, retry_after=2.0)
        return kept


def _new(id_: str, *, agent_id: str, now: datetime) -> Conversation:
    return Conversation(
        id=id_,
        title="",
        agent_id=agent_id,
        attributes={},
        message_count=0,
        create_time=now,
        update_time=now,
        revision=1,
    )


def _history(messages: Sequence[Message]) -> list[Exchange]:
    ended = (State.COMPLETED, State.INCOMPLETE)
    pairs = zip(messages[::2], messages[1::2], strict=True)
    return [
        Exchange(question=asked.content, answer=said.content, document_ids=documents(said.sources))
        for asked, said in pairs
        if said.state in ended and said.content
    ]


class MemoryConversations:
    """See ports.ConversationStore."""

    def __init__(self, *, records: MemoryRecords) -> None:
        self._records = records

    async def create(self, conversation_id: str, *, title: str, agent_id: str, attributes: Mapping[str, Any]) -> None:
        """See ports.ConversationStore."""
        made = _new(conversation_id, agent_id=agent_id, now=self._records.clock.now())
        self._records.conversations[key(conversation_id)] = replace(made, title=title, attributes=dict(attributes))

    async def get(self, conversation_id: str) -> Conversation:
        """See ports.ConversationStore."""
        return self._records.conversation(conversation_id)

    async def page(self, *, after: Position | None, limit: int) -> Sequence[Conversation]:
        """See ports.ConversationStore."""
        tenant = identity.current().tenant
        mine = [each for (owner, _), each in self._records.conversations.items() if owner == tenant]
        mine.sort(key=lambda each: (each.update_time, each.id), reverse=True)
        if after is not None:
            behind = datetime.fromisoformat(after.sort_key), after.id
            mine = [each for each in mine if (each.update_time, each.id) < behind]
        return mine[:limit]

    async def update(self, conversation_id: str, change: ConversationChange, *, etag: str) -> Conversation:
        """See ports.ConversationStore."""
        held = self._records.conversation(conversation_id)
        if etag not in ("", held.etag):
            raise EtagMismatch
        changed = replace(
            held,
            title=held.title if change.title is None else change.title,
            attributes=held.attributes if change.attributes is None else dict(change.attributes),
            revision=held.revision + 1,
            update_time=self._records.clock.now(),
        )
        self._records.conversations[key(conversation_id)] = changed
        return changed

    async def delete(self, conversation_id: str) -> None:
        """See ports.ConversationStore."""
        self._records.conversation(conversation_id)
        for kept in self._records.of(conversation_id):
            del self._records.messages[key(kept.message.id)]
        del self._records.conversations[key(conversation_id)]

    async def messages(self, conversation_id: str, *, after: int, limit: int) -> Sequence[Message]:
        """See ports.ConversationStore."""
        self._records.conversation(conversation_id)
        found = [kept.message for kept in self._records.of(conversation_id) if kept.message.position > after]
        return found[:limit]

    async def answer(self, message_id: str) -> Message:
        """See ports.ConversationStore."""
        kept = self._records.messages.get(key(message_id))
        if kept is None or kept.message.role is not Role.AGENT:
            raise MessageNotFound(message_id)
        return kept.message

    async def rate(self, message_id: str, feedback: Feedback | None) -> Message:
        """See ports.ConversationStore."""
        with suppress(KeyError):
            kept = self._records.messages[key(message_id)]
            if kept.message.role is Role.AGENT:
                kept.message = replace(kept.message, feedback=feedback)
                return kept.message
        raise MessageNotFound(message_id)
