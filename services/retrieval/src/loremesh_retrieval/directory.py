"""Remembers for a while which model each vector store uses, so that a search need not ask each time."""

from collections import OrderedDict
from dataclasses import dataclass

from loremesh_kit.clock import Clock

from loremesh_retrieval.domain.scope import Scope
from loremesh_retrieval.ports import VectorStoreDirectory

_SECONDS = 30.0
_CAPACITY = 10_000


@dataclass(frozen=True, slots=True)
class _Remembered:
    model: str
    until: float


class RememberedDirectory:
    """Asks the directory behind it once in 30 seconds for each store; that a store is unknown is not remembered."""

    def __init__(self, *, behind: VectorStoreDirectory, clock: Clock, capacity: int = _CAPACITY) -> None:
        self._behind = behind
        self._clock = clock
        self._capacity = capacity
        self._stores: OrderedDict[Scope, _Remembered] = OrderedDict()
        self._forgotten = 0

    async def embedding_model(self, scope: Scope) -> str:
        """See ports.VectorStoreDirectory."""
        remembered = self._stores.get(scope)
        if remembered and self._clock.monotonic() < remembered.until:
            return remembered.model
        self._stores.pop(scope, None)
        forgotten = self._forgotten
        model = await self._behind.embedding_model(scope)
        # An answer that was under way when a store was removed may be about the removed one.
        if forgotten == self._forgotten:
            self._remember(scope, model)
        return model

    def forget(self, scope: Scope) -> None:
        """Ask again next time: the store was removed."""
        self._forgotten += 1
        self._stores.pop(scope, None)

    def contradict(self, scope: Scope, model: str) -> None:
        """Ask again next time, if what is remembered is another model than a writer uses."""
        if (remembered := self._stores.get(scope)) and remembered.model != model:
            self.forget(scope)

    def _remember(self, scope: Scope, model: str) -> None:
        self._stores[scope] = _Remembered(model, self._clock.monotonic() + _SECONDS)
        if len(self._stores) > self._capacity:
            self._stores.popitem(last=False)
