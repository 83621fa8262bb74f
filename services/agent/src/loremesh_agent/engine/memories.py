"""What is remembered: written, found, explained, forgotten."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import timedelta

import structlog
from loremesh_kit import identity
from loremesh_kit.clock import Clock
from loremesh_kit.errors import DependencyUnavailable
from loremesh_kit.pages import Position
from loremesh_kit.text import clean

from loremesh_agent.domain.memories import (
    LONGEST_CONTENT,
    LONGEST_NAME,
    Explained,
    Kind,
    Memory,
    NewMemory,
    Ranked,
    Receipt,
    looking_as,
    rank,
    standing,
)
from loremesh_agent.errors import MemoryInvalid, MemoryNotFound, ScopeRequired
from loremesh_agent.ports import Fact, MemoryStore, Recalled, RecallIndex, Scope, TextEmbedder

_log = structlog.get_logger(__name__)


class Memories:
    """The use cases of MemoryService, and what the loop and its tools recall; see ports.Recollection."""

    def __init__(
        self, *, store: MemoryStore, index: RecallIndex, embedder: TextEmbedder | None, clock: Clock, floor: float
    ) -> None:
        """Without an embedder all is found by words alone; `floor` is the cosine below which only words count."""
        self._store = store
        self._index = index
        self._embedder = embedder
        self._clock = clock
        self._floor = floor

    async def create(self, new: NewMemory, *, ttl: timedelta | None = None) -> tuple[Memory, bool]:
        """The memory, and whether it is new; raises MemoryInvalid, MemoryFull, ConversationNotFound."""
        return await self._store.remember(self._checked(new, ttl))

    async def remember(self, fact: Fact) -> str:
        """See ports.Recollection."""
        try:
            kind = Kind(fact.kind)
        except ValueError:
            raise MemoryInvalid(f"there is no kind {fact.kind!r}", field="kind") from None
        new = NewMemory(
            kind=kind,
            user_id=fact.scope.user_id,
            agent_id=fact.scope.agent_id,
            # What stays is not of a conversation, wherever it was said.
            conversation_id=fact.scope.conversation_id if kind is Kind.SHORT_TERM else "",
            content=fact.content,
            subject=fact.subject,
            attribute=fact.attribute,
            confidence=fact.confidence,
            run_id=fact.run_id,
            message_id=fact.message_id,
            seq=fact.seq,
        )
        kept, _ = await self.create(new, ttl=_ttl(fact.ttl_seconds))
        return kept.id

    async def recall(self, query: str, *, scope: Scope, top_k: int, words_only: bool = False) -> Sequence[Recalled]:
        """See ports.Recollection."""
        found = await self.search(query, scope=scope, top_k=top_k, kinds=(), words_only=words_only)
        return [Recalled(memory_id=each.memory.id, content=each.memory.content, score=each.score) for each in found]

    async def search(
        self, query: str, *, scope: Scope, top_k: int, kinds: Collection[Kind], words_only: bool
    ) -> Sequence[Ranked]:
        """What stands and fits, best first, of the tenant, the user, the agent, and both; no kinds: all of them."""
        query = clean(query)
        embedded = None
        if self._embedder and query.strip() and not words_only:
            try:
                embedded = await self._embedder.embed([query], are_queries=True)
            except DependencyUnavailable as error:
                _log.warning("recalled by words alone", reason=error.reason, error=error.message)
        candidates = await self._index.candidates(query, scope=scope, kinds=kinds, embedded=embedded)
        return rank(query, candidates, top_k=top_k, floor=self._floor)

    async def get(self, memory_id: str) -> Memory:
        """Raises MemoryNotFound."""
        return await self._store.get(memory_id)

    async def page(
        self, scope: Scope | None, *, kind: Kind | None, show_past: bool, after: Position | None, limit: int
    ) -> Sequence[Memory]:
        """Newest first, of exactly a scope or, for None, of any."""
        return await self._store.page(scope, kind=kind, show_past=show_past, after=after, limit=limit)

    async def explain(self, memory_id: str) -> Explained:
        """Raises MemoryNotFound."""
        memory = await self._store.get(memory_id)
        successor = None
        if memory.superseded_by:
            try:
                successor = await self._store.get(memory.superseded_by)
            except MemoryNotFound:
                # It was forgotten: what it took the place of does not come back.
                _log.debug("superseded by what was forgotten", memory_id=memory_id)
        return Explained(
            memory=memory,
            source_text=await self._store.source_text(memory.message_id) if memory.message_id else "",
            superseded=await self._store.superseded(memory_id),
            superseded_by=successor,
            standing=standing(memory, now=self._clock.now()),
        )

    async def forget(self, *, memory_id: str, scope: Scope | None) -> Receipt:
        """Forget one memory, or else all of exactly a scope; raises ScopeRequired when neither is named."""
        if not memory_id and scope is None:
            raise ScopeRequired
        return await self._store.forget(memory_id=memory_id, scope=scope)

    async def receipt(self, receipt_id: str) -> Receipt:
        """Raises MemoryReceiptNotFound."""
        return await self._store.receipt(receipt_id)

    def _checked(self, new: NewMemory, ttl: timedelta | None) -> NewMemory:
        """Ready to be kept; raises MemoryInvalid."""
        new = replace(
            new, content=clean(new.content).strip(), subject=clean(new.subject).strip(),
            attribute=clean(new.attribute).strip(),
        )  # fmt: skip
        if not new.content:
            raise MemoryInvalid
        for field, limit in (("content", LONGEST_CONTENT), ("subject", LONGEST_NAME), ("attribute", LONGEST_NAME)):
            if len(getattr(new, field)) > limit:
                raise MemoryInvalid(f"{field} must not be longer than {limit} characters", field=field)
        if not 0 < new.confidence <= 1:
            raise MemoryInvalid("confidence must be above 0 and at most 1", field="confidence")
        if (new.kind is Kind.SHORT_TERM) != bool(new.conversation_id):
            raise MemoryInvalid("a conversation is named with SHORT_TERM, and only then", field="scope.conversation_id")
        caller = looking_as(identity.current().principal)
        if caller is not None and new.user_id not in ("", caller):
            raise MemoryInvalid("nobody remembers anything for another user", field="scope.user_id")
        return self._timed(new, ttl)

    def _timed(self, new: NewMemory, ttl: timedelta | None) -> NewMemory:
        starts = max(new.valid_from or self._clock.now(), self._clock.now())
        if ttl is not None:
            try:
                ends = starts + ttl
            except OverflowError:
                raise MemoryInvalid("ttl is too long", field="valid_until") from None
            new = replace(new, valid_until=min(ends, new.valid_until or ends))
        if new.valid_until is not None and new.valid_until <= starts:
            raise MemoryInvalid("valid_until must be in the future, and after valid_from", field="valid_until")
        return new


def _ttl(seconds: float | None) -> timedelta | None:
    try:
        return None if seconds is None else timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        raise MemoryInvalid("ttl is no length of time", field="valid_until") from None
