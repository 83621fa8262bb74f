"""Remembers which generation each vector store had, so that a search can begin before it has asked."""

from collections import OrderedDict
from collections.abc import Iterable

from loremesh_kit import identity

from loremesh_retrieval.domain.liveness import Generation, Live
from loremesh_retrieval.ports import Liveness

_CAPACITY = 10_000


class RememberedGenerations:
    """Guesses by the last answer; every search asks before it answers, which corrects a guess that was wrong."""

    def __init__(self, *, behind: Liveness, capacity: int = _CAPACITY) -> None:
        self._behind = behind
        self._capacity = capacity
        self._stores: OrderedDict[tuple[str, str], Generation] = OrderedDict()

    async def guess(self, vector_store_id: str) -> Generation:
        """What was live when somebody asked last; raises as `resolve`, since the first has to ask."""
        remembered = self._stores.get(_key(vector_store_id))
        return remembered or (await self.resolve(vector_store_id)).generation

    async def resolve(self, vector_store_id: str, *, generation: int = 0, document_ids: Iterable[str] = ()) -> Live:
        """See ports.Liveness."""
        live = await self._behind.resolve(vector_store_id, generation=generation, document_ids=document_ids)
        if not generation:
            self._remember(_key(vector_store_id), live.generation)
        return live

    def forget(self, vector_store_id: str) -> None:
        """Ask before the next search: this one did not get as far."""
        self._stores.pop(_key(vector_store_id), None)

    def _remember(self, key: tuple[str, str], generation: Generation) -> None:
        self._stores[key] = generation
        self._stores.move_to_end(key)
        if len(self._stores) > self._capacity:
            self._stores.popitem(last=False)


def _key(vector_store_id: str) -> tuple[str, str]:
    return identity.current().tenant, vector_store_id
