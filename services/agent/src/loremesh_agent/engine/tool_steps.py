"""Calls of a run's tools, a step each."""

import time
from collections.abc import Callable, Mapping, Sequence

import structlog
from loremesh_kit.errors import ServiceError
from loremesh_kit.jobs import Job
from loremesh_kit.text import clean

from loremesh_agent.domain import loop, steps
from loremesh_agent.domain.events import Payload
from loremesh_agent.domain.journal import Kept
from loremesh_agent.domain.passages import Passage, Source
from loremesh_agent.domain.steps import Step, StepKind, StepState
from loremesh_agent.domain.tools import CallContext, Effect, Outcome, ToolSpec
from loremesh_agent.engine.memory import scope_for
from loremesh_agent.engine.preparing import Prepared
from loremesh_agent.engine.retelling import told
from loremesh_agent.errors import ToolTimeout
from loremesh_agent.ports import AskedInBackground, Tools

_log = structlog.get_logger(__name__)


class ToolSteps:
    """Calls the tools of one run."""

    def __init__(
        self, job: Job, asked: AskedInBackground, prepared: Prepared, *, tools: Tools, tell: Callable[[Payload], None]
    ) -> None:
        self._job, self._asked, self._prepared = job, asked, prepared
        self._tools = tools
        self._tell = tell
        self._last_source = max((source.number for source in prepared.state.sources), default=0)
        self._record = prepared.record
        # The run's record, once a tool has searched what it does not tell of.
        self.record: Kept | None = None

    def key(self, call_id: str) -> str:
        """The same for each attempt of a call, and no other's."""
        return f"{self._job.id}.{call_id}"

    async def call(self, effect: loop.CallTool, spec: ToolSpec) -> tuple[loop.Event, Step]:
        """What came of a call, and its step; of one that changes something perhaps that nobody knows."""
        started = time.monotonic()
        try:
            result = await self._tools.call(spec, effect.arguments, self._context(effect))
        except ServiceError as error:
            if spec.effect is Effect.SIDE_EFFECTING and (error.retryable or isinstance(error, ToolTimeout)):
                _log.warning("nobody knows how a call ended", tool=spec.name, reason=error.reason)
                lost = Step(number=effect.number, kind=StepKind.TOOL, state=StepState.STARTED, name=effect.name)
                return loop.ToolLost(effect.number), lost
            event = loop.ToolTold(
                number=effect.number, content=error.message, outcome=Outcome.FAILED, reason=error.reason
            )
        else:
            self._searched(result.generations)
            event = loop.ToolTold(
                number=effect.number,
                content=clean(result.content),
                outcome=Outcome.FAILED if result.failed else Outcome.OK,
                sources=self._numbered(result.passages),
            )
        self._tell(told(event, effect, milliseconds=round((time.monotonic() - started) * 1000)))
        return event, steps.tool_answered(event, effect.name)

    def _searched(self, generations: Mapping[str, int]) -> None:
        known = self._record.get("index_generations", {})
        if not generations.items() <= known.items():
            self._record = self.record = {**self._record, "index_generations": {**known, **generations}}

    def _context(self, effect: loop.CallTool) -> CallContext:
        turn, agent = self._asked.turn, self._prepared.agent
        scope = scope_for(self._asked, agent)
        return CallContext(
            run_id=self._job.id,
            agent_id=scope.agent_id,
            conversation_id=scope.conversation_id,
            idempotency_key=self.key(effect.call_id),
            vector_store_ids=self._prepared.question.vector_store_ids or agent.vector_store_ids,
            message_id=turn.answer_id,
        )

    def _numbered(self, passages: Sequence[Passage]) -> tuple[Source, ...]:
        """As sources that go on from those there are; between two awaits, so that no two get one number."""
        first = self._last_source + 1
        self._last_source += len(passages)
        return tuple(Source(number=number, passage=passage) for number, passage in enumerate(passages, first))
