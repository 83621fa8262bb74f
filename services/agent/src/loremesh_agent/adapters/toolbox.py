"""Tools by name: those that are built in, and those of several toolboxes together."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import httpx2
from loremesh_kit.clock import Clock

from loremesh_agent.adapters.guarded_http import Caps, Guard, GuardedFetcher
from loremesh_agent.adapters.tools.ask_human import AskHuman
from loremesh_agent.adapters.tools.calculator import Calculator
from loremesh_agent.adapters.tools.current_time import CurrentTime
from loremesh_agent.adapters.tools.document_reader import DocumentReader
from loremesh_agent.adapters.tools.recall import Recall
from loremesh_agent.adapters.tools.remember import Remember
from loremesh_agent.adapters.tools.search import Search
from loremesh_agent.adapters.tools.web_fetch import WebFetch
from loremesh_agent.adapters.tools.web_search import Engine, WebSearch
from loremesh_agent.domain.tools import ToolSpec
from loremesh_agent.errors import ToolNameClash, ToolNotFound, ToolUnavailable
from loremesh_agent.ports import DocumentTexts, PassageIndex, Recollection, Tool, Toolbox


class FixedToolbox:
    """See ports.Toolbox: the same tools for everybody."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        """Raises ToolNameClash."""
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            if tool.spec.name in self._tools:
                raise ToolNameClash(tool.spec.name)
            self._tools[tool.spec.name] = tool

    async def specs(self) -> Sequence[ToolSpec]:
        """See ports.Toolbox."""
        return [self._tools[name].spec for name in sorted(self._tools)]

    async def find(self, name: str) -> Tool:
        """See ports.Toolbox."""
        tool = self._tools.get(name)
        if tool is None:
            raise ToolNotFound(name)
        if tool.spec.unavailable:
            raise ToolUnavailable(name, variable=tool.spec.unavailable)
        return tool


class Toolboxes:
    """See ports.Toolbox: several as one."""

    def __init__(self, *boxes: Toolbox) -> None:
        self._boxes = boxes

    async def specs(self) -> Sequence[ToolSpec]:
        """See ports.Toolbox; raises ToolNameClash."""
        specs = sorted([spec for box in self._boxes for spec in await box.specs()], key=lambda spec: spec.name)
        for one, other in pairwise(specs):
            if one.name == other.name:
                raise ToolNameClash(one.name)
        return specs

    async def find(self, name: str) -> Tool:
        """See ports.Toolbox; where two have it, the first one's."""
        for box in self._boxes:
            try:
                return await box.find(name)
            except ToolNotFound:
                continue
        raise ToolNotFound(name)


@asynccontextmanager
async def built_in(
    *,
    index: PassageIndex,
    texts: DocumentTexts,
    recollection: Recollection,
    clock: Clock,
    guard: Guard,
    engine: Engine | None,
) -> AsyncIterator[FixedToolbox]:
    """The tools that are built in, with what connections they need; `engine` None: no web search."""
    ssl_context = httpx2.create_ssl_context()
    fetcher = GuardedFetcher(guard=guard, ssl_context=ssl_context, caps=Caps())
    async with WebSearch.open(engine, ssl_context=ssl_context) as web_search:
        yield FixedToolbox(
            [
                AskHuman(),
                Search(index=index),
                DocumentReader(texts=texts),
                Calculator(),
                CurrentTime(clock=clock),
                WebFetch(fetcher=fetcher),
                web_search,
                Remember(recollection=recollection),
                Recall(recollection=recollection),
            ]
        )
