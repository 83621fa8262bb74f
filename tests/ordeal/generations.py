"""Whoever gives a vector store another index while it is in use: builds generations, switches, and deletes them."""

import asyncio
import itertools
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx

from tests.ordeal import text
from tests.ordeal.clients import Clients
from tests.ordeal.ledger import Outcome

_OVERLOADED = httpx.codes.TOO_MANY_REQUESTS
_PAUSE_SECONDS = 0.5
# As long is one live before the other is.
_LIVE_SECONDS = 2.0
_TURNS = 5
_ENOUGH = 3
# So that passages are others in each.
_STRATEGIES: tuple[dict[str, Any], ...] = (
    {"type": "CHUNKING_STRATEGY_TYPE_SENTENCES", "max_tokens": 96},
    {"type": "CHUNKING_STRATEGY_TYPE_FIXED", "max_tokens": 128},
)


@dataclass(kw_only=True)
class Switching:
    """Whoever gives one vector store another index again and again, while it is searched and filled."""

    clients: Clients

    async def go_on(self, *, over: asyncio.Event, done: asyncio.Event) -> None:
        """Build the next generation, switch there and back some times, delete the one before; until `done`.

        Once the faults are `over` it builds none: what is built then would count as late.
        """
        await self._until_in_use(done)
        live = 1
        for number in itertools.count():
            following = await self._begin(number)
            if not following:
                return
            for turn in itertools.count(1):
                generation = following if turn % 2 else live
                if not await self._switch(generation, done):
                    return
                await asyncio.sleep(_LIVE_SECONDS)
                if generation == following and turn >= _TURNS and not over.is_set():
                    break
            await self._delete(live)
            live = following

    async def _until_in_use(self, done: asyncio.Event) -> None:
        """There is nothing to be mixed before searches see some documents."""
        path = f"/api/v1/vector_stores/{text.SWITCHED}/generations/1"
        while not done.is_set():
            with suppress(httpx.HTTPError, ValueError):
                found = (await self.clients.http.get(path)).raise_for_status().json()
                if int(found.get("documents_ready", 0)) >= _ENOUGH:
                    return
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _begin(self, number: int) -> int:
        path, key = f"/api/v1/vector_stores/{text.SWITCHED}/generations", f"generation-{self.clients.seed}-{number}"
        body = {"chunking_strategy": _STRATEGIES[number % len(_STRATEGIES)]}
        return int(await self.clients.accepted("generation", path, body, key=key, id_field="generation") or 0)

    async def _switch(self, generation: int, done: asyncio.Event) -> bool:
        """Ask until it is done; it is refused while documents are missing. False when the end came first."""
        path = f"/api/v1/vector_stores/{text.SWITCHED}/generations/{generation}/activate"
        while not done.is_set():
            if await self._ask("POST", path, "switched", generation) is Outcome.OK:
                return True
            await asyncio.sleep(_PAUSE_SECONDS)
        return False

    async def _delete(self, generation: int) -> None:
        """Until it is gone."""
        path = f"/api/v1/vector_stores/{text.SWITCHED}/generations/{generation}"
        until = time.monotonic() + self.clients.patience
        while time.monotonic() < until:
            if await self._ask("DELETE", path, "dropped", generation) is not Outcome.CUT:
                return
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _ask(self, method: str, path: str, call: str, generation: int) -> Outcome:
        sent, reason = time.monotonic(), ""
        try:
            response = await self.clients.http.request(method, path, json={} if method == "POST" else None)
        except httpx.HTTPError as error:
            outcome, reason = Outcome.CUT, type(error).__name__
        else:
            self.clients.replies.append(response.text)
            answered = response.status_code < httpx.codes.INTERNAL_SERVER_ERROR
            refused = Outcome.REFUSED if answered and response.status_code != _OVERLOADED else Outcome.CUT
            outcome = Outcome.OK if response.is_success else refused
            reason = "" if response.is_success else str(response.status_code)
        self.clients.ledger.note(call, outcome, sent=sent, key=text.SWITCHED, version=generation, reason=reason)
        return outcome
