"""Tools that count their calls, and agents that are given them."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from loremesh_agent.adapters.memory import MemoryAgents
from loremesh_agent.adapters.toolbox import FixedToolbox
from loremesh_agent.domain.events import FinishReason
from loremesh_agent.domain.tools import CallContext, Effect, ToolCall, ToolResult, ToolSpec, ToolUse
from loremesh_agent.ports import ModelFinish, ModelText, ModelToolCall

from .conftest import make_agent
from .replicas import DONE, Mesh, Script

SCHEMA = {
    "type": "object",
    "properties": {"x": {"type": "string"}},
    "required": ["x"],
    "additionalProperties": False,
}
CALLING = ModelFinish(reason=FinishReason.TOOL_CALLS, usage=DONE.usage)


@dataclass
class CountingTool:
    """Remembers its calls, and answers what it is told to."""

    name: str = "read"
    effect: Effect = Effect.READ_ONLY
    untrusted: bool = False
    answers: Callable[[Mapping[str, Any]], Awaitable[ToolResult]] | None = None
    calls: list[tuple[Mapping[str, Any], CallContext]] = field(default_factory=list)

    @property
    def spec(self) -> ToolSpec:
        return ToolSpec(
            name=self.name,
            description=self.name,
            input_schema=SCHEMA,
            effect=self.effect,
            untrusted=self.untrusted,
            timeout_seconds=20,
        )

    async def call(self, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        self.calls.append((arguments, context))
        if self.answers is not None:
            return await self.answers(arguments)
        return ToolResult(content=f"{self.name} says {arguments['x']}")


def give(mesh: Mesh, *tools: CountingTool, uses: Mapping[str, ToolUse] | None = None, **agent: Any) -> None:
    """Let the mesh's default agent have these tools, and no documents unless it is given `top_k`."""
    given = tuple((uses or {}).get(tool.name, ToolUse(name=tool.name)) for tool in tools)
    mesh.toolbox = FixedToolbox(tools)
    mesh.agents = MemoryAgents(default=make_agent(**{"top_k": 0, "tools": given, "model": "scripted/m", **agent}))


def calls(*asked: tuple[str, str], text: str = "") -> Script:
    """A model that asks for tools, each with its argument `x`."""
    said: Script = [ModelText(text)] if text else []
    wanted = [
        ModelToolCall(ToolCall(id=f"id{at}", name=name, arguments=f'{{"x": "{x}"}}'))
        for at, (name, x) in enumerate(asked)
    ]
    return [*said, *wanted, CALLING]
