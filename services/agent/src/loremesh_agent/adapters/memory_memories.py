"""Memories kept in this process: the same as in Postgres, for as long as the process lives."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from loremesh_kit import identity
from loremesh_kit.clock import Clock
from loremesh_kit.ids import new_id
from loremesh_kit.jobs import Job
from loremesh_kit.pages import Position

from loremesh_agent.adapters.memory import Key, key
from loremesh_agent.domain.memories import (
    Candidate,
    Kind,
    Memory,
    NewMemory,
    Receipt,
    Standing,
    cosine,
    looking_as,
    standing,
    user_of,
    whole_text,
)
from loremesh_agent.domain.terms import terms
from loremesh_agent.errors import ConversationNotFound, MemoryFull, MemoryNotFound, MemoryReceiptNotFound
from loremesh_agent.ports import Embedded, Scope

_EXPIRED_KEPT = timedelta(days=1)
_RECEIPTS_KEPT = timedelta(days=90)


@dataclass(slots=True)
class _Kept:
    memory: Memory
    new: NewMemory
    superseded_by: str = ""
    superseded_at: datetime | None = None
    receipt_id: str = ""
    vector: Sequence[float] | None = None
    model: str = ""

    def seen(self, now: datetime) -> Memory:
        """As it stands at an instant."""
        is_over = self.superseded_at is not None and self.superseded_at <= now
        return replace(self.memory, superseded_by=self.superseded_by if is_over else "")


@dataclass(slots=True)
class MemoryMemories:
    """See ports.MemoryStore, ports.RecallIndex and ports.MemoryWork."""

    clock: Clock
    limit: int
    conversations: set[str] = field(default_factory=set)
    kept: dict[Key, _Kept] = field(default_factory=dict)
    # With the user who asked for it.
    receipts: dict[Key, tuple[str, Receipt]] = field(default_factory=dict)
    # Receipts of what is to be purged.
    owed: list[str] = field(default_factory=list)

    async def remember(self, new: NewMemory) -> tuple[Memory, bool]:
        """See ports.MemoryStore."""
        now = self.clock.now()
        starts = max(now, new.valid_from or now)
        held = [each for each in self._visible() if _scope(each.new) == _scope(new)]
        for each in held:
            if each.new.digest == new.digest and (_is_current(each, now) or _is_again(each, new)):
                _prolong(each, new, now)
                return each.seen(now), False
        if new.conversation_id and new.conversation_id not in self.conversations:
            raise ConversationNotFound(new.conversation_id)
        if sum(not _is_expired(each, now) for each in held) >= self.limit:
            raise MemoryFull(limit=self.limit)
        memory_id, superseded = new_id(), ""
        for each in held:
            is_about = each.new.digest == new.digest or (new.topic is not None and each.new.topic == new.topic)
            if is_about and (each.superseded_at is None or each.superseded_at > starts):
                each.superseded_by, each.superseded_at = memory_id, starts
                superseded = max(superseded, each.memory.id)
        made = _Kept(_memory(new, memory_id, now=now, supersedes=superseded), new)
        self.kept[key(memory_id)] = made
        return made.seen(now), True

    async def get(self, memory_id: str) -> Memory:
        """See ports.MemoryStore."""
        for each in self._visible():
            if each.memory.id == memory_id:
                return each.seen(self.clock.now())
        raise MemoryNotFound(memory_id)

    async def page(
        self, scope: Scope | None, *, kind: Kind | None, show_past: bool, after: Position | None, limit: int
    ) -> Sequence[Memory]:
        """See ports.MemoryStore."""
        now = self.clock.now()
        found = [each.seen(now) for each in self._visible() if scope is None or _scope(each.new) == _of(scope)]
        past = (Standing.SUPERSEDED, Standing.EXPIRED)
        found = [each for each in found if show_past or standing(each, now=now) not in past]
        found = [each for each in found if kind in (None, each.kind)]
        found.sort(key=lambda each: (each.create_time, each.id), reverse=True)
        if after is not None:
            behind = datetime.fromisoformat(after.sort_key), after.id
            found = [each for each in found if (each.create_time, each.id) < behind]
        return found[:limit]

    async def superseded(self, memory_id: str) -> Sequence[Memory]:
        """See ports.MemoryStore."""
        found, ids, now = list[_Kept](), {memory_id}, self.clock.now()
        while more := [each for each in self._visible() if each.superseded_by in ids and each not in found]:
            found += more
            ids = {each.memory.id for each in more}
        found.sort(key=lambda each: (each.memory.create_time, each.memory.id), reverse=True)
        return [each.seen(now) for each in found]

    async def source_text(self, message_id: str) -> str:
        """There are no messages here."""
        del message_id
        return ""

    async def forget(self, *, memory_id: str = "", scope: Scope | None = None) -> Receipt:
        """See ports.MemoryStore."""
        found = [
            each
            for each in self._visible()
            if (each.memory.id == memory_id if memory_id else _scope(each.new) == _of(scope or Scope()))
        ]
        now = self.clock.now()
        made = Receipt(
            id=new_id(),
            memories=len(found),
            stores={"index": 0, "postgres": 0},
            create_time=now,
            finish_time=None if found else now,
        )
        for each in found:
            each.receipt_id = made.id
        self.receipts[key(made.id)] = user_of(identity.current().principal), made
        if found:
            self.owed.append(made.id)
        return made

    async def receipt(self, receipt_id: str) -> Receipt:
        """See ports.MemoryStore."""
        user = looking_as(identity.current().principal)
        owner, receipt = self.receipts.get(key(receipt_id), ("", None))
        if receipt is None or user not in (None, owner):
            raise MemoryReceiptNotFound(receipt_id)
        return receipt

    async def purge(self) -> int:
        """See ports.MemoryStore."""
        now = self.clock.now()
        gone = [id_ for id_, each in self.kept.items() if _is_expired(each, now - _EXPIRED_KEPT)]
        old = [id_ for id_, (_, each) in self.receipts.items() if each.create_time < now - _RECEIPTS_KEPT]
        for id_ in gone:
            del self.kept[id_]
        for id_ in old:
            del self.receipts[id_]
        return len(gone) + len(old)

    async def candidates(
        self, query: str, *, scope: Scope, kinds: Collection[Kind], embedded: Embedded | None
    ) -> Sequence[Candidate]:
        """See ports.RecallIndex."""
        now, asked, found = self.clock.now(), terms(query), list[Candidate]()
        for each in self._visible():
            around = all(mine in ("", theirs) for mine, theirs in zip(_scope(each.new), _of(scope), strict=True))
            if not around or standing(each.seen(now), now=now) is not Standing.VALID:
                continue
            similarity = None
            if embedded and each.vector and each.model == embedded.model:
                similarity = cosine(embedded.vectors[0], each.vector)
            if (not kinds or each.memory.kind in kinds) and (similarity is not None or asked & each.new.terms):
                found.append(Candidate(memory=each.seen(now), terms=each.new.terms, similarity=similarity))
        return found

    async def pending(self, model: str, *, limit: int) -> Mapping[str, str]:
        """See ports.RecallIndex."""
        found = [each for each in self._live() if each.vector is None or (model and each.model != model)][:limit]
        return {
            each.memory.id: whole_text(each.memory.subject, each.memory.attribute, each.memory.content)
            for each in found
        }

    async def keep(self, memory_ids: Sequence[str], embedded: Embedded) -> None:
        """See ports.RecallIndex."""
        vectors = dict(zip(memory_ids, embedded.vectors, strict=True))
        for each in self._live():
            if each.memory.id in vectors:
                each.vector, each.model = vectors[each.memory.id], embedded.model

    async def remove_vectors(self, job: Job) -> None:
        """See ports.MemoryWork."""
        forgotten = [each for each in self.kept.values() if each.receipt_id == job.subject_id and each.vector]
        for each in forgotten:
            each.vector = None
        self._count(job.subject_id, "index", len(forgotten), finish_time=None)

    async def remove_memories(self, job: Job) -> None:
        """See ports.MemoryWork."""
        forgotten = [id_ for id_, each in self.kept.items() if each.receipt_id == job.subject_id]
        for id_ in forgotten:
            del self.kept[id_]
        self._count(job.subject_id, "postgres", len(forgotten), finish_time=self.clock.now())
        await self.complete(job)

    async def complete(self, job: Job) -> None:
        """See ports.MemoryWork."""
        job.progress.completed = True

    def forget_conversation(self, conversation_id: str) -> None:
        """What deleting a conversation does."""
        self.conversations.discard(conversation_id)
        for id_, each in list(self.kept.items()):
            if each.memory.conversation_id == conversation_id:
                del self.kept[id_]

    def _count(self, receipt_id: str, store: str, more: int, *, finish_time: datetime | None) -> None:
        user, receipt = self.receipts[key(receipt_id)]
        stores = {**receipt.stores, store: receipt.stores[store] + more}
        self.receipts[key(receipt_id)] = user, replace(receipt, stores=stores, finish_time=finish_time)

    def _live(self) -> list[_Kept]:
        tenant = identity.current().tenant
        return [each for (owner, _), each in self.kept.items() if owner == tenant and not each.receipt_id]

    def _visible(self) -> list[_Kept]:
        user = looking_as(identity.current().principal)
        return [each for each in self._live() if user is None or each.memory.user_id in ("", user)]


def _memory(new: NewMemory, memory_id: str, *, now: datetime, supersedes: str) -> Memory:
    return Memory(
        id=memory_id,
        kind=new.kind,
        user_id=new.user_id,
        agent_id=new.agent_id,
        conversation_id=new.conversation_id,
        content=new.content,
        subject=new.subject,
        attribute=new.attribute,
        confidence=new.confidence,
        valid_from=new.valid_from or now,
        valid_until=new.valid_until,
        run_id=new.run_id,
        message_id=new.message_id,
        seq=new.seq,
        create_time=now,
        supersedes=supersedes,
    )


def _scope(new: NewMemory) -> tuple[str, str, str]:
    return new.user_id, new.agent_id, new.conversation_id


def _of(scope: Scope) -> tuple[str, str, str]:
    return scope.user_id, scope.agent_id, scope.conversation_id


def _is_expired(kept: _Kept, now: datetime) -> bool:
    return kept.memory.valid_until is not None and kept.memory.valid_until <= now


def _is_current(kept: _Kept, now: datetime) -> bool:
    return kept.superseded_at is None and not _is_expired(kept, now)


def _prolong(kept: _Kept, new: NewMemory, now: datetime) -> None:
    """Said again it holds as long as was said either time."""
    until = kept.memory.valid_until
    if until and _is_current(kept, now) and (new.valid_until is None or new.valid_until > until):
        kept.memory = replace(kept.memory, valid_until=new.valid_until)


def _is_again(kept: _Kept, new: NewMemory) -> bool:
    """Whether it is of the same event of the same run: out of date by now, perhaps."""
    return new.seq > 0 and (kept.new.run_id, kept.new.seq) == (new.run_id, new.seq)
