"""What is asked of memory."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from loremesh_kit.jobs import Job
from loremesh_kit.pages import Position

from loremesh_agent.domain.memories import Candidate, Kind, Memory, NewMemory, Receipt


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
