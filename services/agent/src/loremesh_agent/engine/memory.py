"""Memory around an answer: what is recalled before it, and what is learned after it. Neither ever breaks a run."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

import structlog
from loremesh_kit import identity
from loremesh_kit.errors import ServiceError

from loremesh_agent.domain import extraction
from loremesh_agent.domain.agents import Agent
from loremesh_agent.domain.conversations import Exchange
from loremesh_agent.domain.memories import LONGEST_CONTENT, Kind, user_of
from loremesh_agent.ports import (
    AskedInBackground,
    Fact,
    ModelProvider,
    ModelRequest,
    ModelText,
    NewTurn,
    Recalled,
    Recollection,
    Scope,
)

_EXTRACT_SECONDS = 30.0
# Of a model that does not stop.
_LONGEST_ANSWER = 16_000
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Notes:
    """What is recalled for a prompt: a block of text, empty for nothing, and what it is made of."""

    text: str = ""
    recalled: tuple[Recalled, ...] = ()


def scope_of(*, agent_id: str, conversation_id: str = "") -> Scope:
    """The scope of a run: of the caller, where that is a user, and of the agent."""
    return Scope(user_id=user_of(identity.current().principal), agent_id=agent_id, conversation_id=conversation_id)


def scope_for(asked: AskedInBackground, agent: Agent) -> Scope:
    """The same of a job's run: a task may share the memories of others."""
    order, turn = asked.order, asked.turn
    return scope_of(
        agent_id=(order.memory_agent_id if order else "") or agent.id,
        conversation_id=(order.memory_run_id if order else "") or turn.conversation_id or turn.new_conversation_id,
    )


async def recall_for(question: str, *, agent: Agent, scope: Scope, memory: Recollection) -> Notes:
    """What is known about a question, as the agent's settings have it; nothing where it cannot be had."""
    settings = agent.memory
    if settings is None or not settings.recall:
        return Notes()
    try:
        recalled = await memory.recall(
            question, scope=scope, top_k=settings.max_items, words_only=not settings.embeddings
        )
    except ServiceError as error:
        _log.warning("nothing is recalled", reason=error.reason, error=error.message)
        return Notes()
    return Notes(extraction.notes([each.content for each in recalled]), tuple(recalled))


async def learn(
    exchange: Exchange,
    *,
    agent: Agent,
    scope: Scope,
    recalled: Sequence[Recalled],
    provider: ModelProvider,
    memory: Recollection,
    run_id: str,
    message_id: str,
) -> int:
    """Remember what the person stated, as the agent's settings have it; how many facts that were.

    `recalled` is all that was recalled during the run, `message_id` the person's message.
    """
    settings = agent.memory
    if settings is None or not settings.extract:
        return 0
    source = Fact(
        content="", scope=scope, run_id=run_id, message_id=message_id,
        ttl_seconds=settings.ttl.total_seconds() if settings.ttl else None,
    )  # fmt: skip
    facts = await extract(exchange, scope, recalled, provider, agent.model, source=source)
    remembered = 0
    try:
        for fact in facts:
            await memory.remember(fact)
            remembered += 1
    except ServiceError as error:
        _log.warning("nothing more is learned", reason=error.reason, error=error.message)
    return remembered


async def note(name: str, output: str, *, agent: Agent, scope: Scope, memory: Recollection, turn: NewTurn) -> None:
    """Remember what a task came to, for as long as the tasks it shares memories with go on; nothing where it cannot."""
    if agent.memory is None or not agent.memory.extract or not output:
        return
    content = f"{name}: {output}" if name else output
    fact = Fact(
        content=content[:LONGEST_CONTENT],
        scope=scope,
        kind=Kind.SHORT_TERM,
        run_id=turn.run_id,
        message_id=turn.answer_id,
    )
    try:
        await memory.remember(fact)
    except ServiceError as error:
        _log.warning("an output is not noted", reason=error.reason, error=error.message)


async def extract(
    exchange: Exchange,
    scope: Scope,
    recalled: Sequence[Recalled],
    provider: ModelProvider,
    model: str,
    *,
    source: Fact | None = None,
) -> Sequence[Fact]:
    """The facts that the person stated and that were not recalled; none where the model fails or takes too long.

    They are of the scope's user and agent, and take run, message and time to live from `source`.
    """
    said = exchange.question
    try:
        async with asyncio.timeout(_EXTRACT_SECONDS):
            answer = await _ask(said, provider, model)
    except ServiceError as error:
        _log.warning("nothing is learned", reason=error.reason, error=error.message)
        return []
    except TimeoutError:
        _log.warning("nothing is learned", reason="TIMEOUT")
        return []
    noted = extraction.parse(answer, said=said, known=[each.content for each in recalled])
    origin = source or Fact(content="", scope=scope)
    return [
        Fact(
            content=each.content,
            scope=Scope(user_id=scope.user_id, agent_id=scope.agent_id),
            kind=each.kind,
            subject=each.subject,
            attribute=each.attribute,
            confidence=each.confidence,
            ttl_seconds=origin.ttl_seconds,
            run_id=origin.run_id,
            message_id=origin.message_id,
        )
        for each in noted
    ]


async def _ask(said: str, provider: ModelProvider, model: str) -> str:
    request = ModelRequest(
        model=model,
        messages=extraction.messages(said),
        max_output_tokens=extraction.MAX_OUTPUT_TOKENS,
        temperature=0.0,
        response_schema=extraction.SCHEMA,
    )
    answer = ""
    async with aclosing(provider.stream(request)) as events:
        async for event in events:
            if isinstance(event, ModelText):
                answer += event.text
                if len(answer) > _LONGEST_ANSWER:
                    break
    return answer
