"""What is done about memories in the background: vectors made, forgotten ones purged, expired ones removed."""

import asyncio

from loremesh_kit.jobs import Job
from loremesh_kit.loops import repeat, unless

from loremesh_agent.ports import MemoryStore, MemoryWork, RecallIndex, TextEmbedder

_EMBEDDED_AT_ONCE = 64
_PURGE_SECONDS = 60.0


class Embedding:
    """Gives every memory that has none a vector, whichever of them the job is of; any number may run."""

    def __init__(self, *, index: RecallIndex, embedder: TextEmbedder, work: MemoryWork) -> None:
        self._index = index
        self._embedder = embedder
        self._work = work

    async def __call__(self, job: Job) -> None:
        """Raises DependencyUnavailable, DeadlineExceeded: the job is tried again."""
        model = ""
        while texts := await self._index.pending(model, limit=_EMBEDDED_AT_ONCE):
            embedded = await self._embedder.embed(list(texts.values()), are_queries=False)
            await self._index.keep(list(texts), embedded)
            # From now on those of another model, too.
            model = embedded.model
        await self._work.complete(job)


class Forgetting:
    """Purges what was forgotten, store by store, the record last."""

    def __init__(self, *, work: MemoryWork) -> None:
        self._work = work

    async def __call__(self, job: Job) -> None:
        """Raises FenceLost; begun again it goes on where it was."""
        await self._work.remove_vectors(job)
        await self._work.remove_memories(job)


class MemoryPurge:
    """Removes memories that expired; any number may run."""

    def __init__(self, *, store: MemoryStore) -> None:
        self._store = store

    async def run(self, stop: asyncio.Event) -> None:
        """Purge until `stop`."""

        async def step() -> None:
            if await self._store.purge() == 0:
                await unless(stop, asyncio.sleep(_PURGE_SECONDS))

        await repeat(step, stop=stop, name="memory purge")
