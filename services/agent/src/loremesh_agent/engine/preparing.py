"""What a run begins with: its agent and rules pinned, what was found and remembered, and the first messages."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from loremesh_agent.domain import delegation, loop, prompts, steps
from loremesh_agent.domain.agents import Agent
from loremesh_agent.domain.budgets import Budget
from loremesh_agent.domain.followups import search_text
from loremesh_agent.domain.journal import Kept
from loremesh_agent.domain.passages import numbered
from loremesh_agent.domain.prompts import PromptMessage
from loremesh_agent.domain.questions import Question
from loremesh_agent.domain.relevance import Floors, is_relevant
from loremesh_agent.domain.tasks import Invocation, TaskOrder
from loremesh_agent.domain.tools import ToolCall, ToolSpec
from loremesh_agent.domain.untrusted import NOTICE, remembered
from loremesh_agent.engine.memory import recall_for, scope_for
from loremesh_agent.engine.orders import Orders
from loremesh_agent.engine.quoting import Quoting
from loremesh_agent.engine.searching import search
from loremesh_agent.errors import ToolArgumentsInvalid, ToolUnavailable
from loremesh_agent.ports import AgentDirectory, AskedInBackground, PassageIndex, Recalled, Recollection, Tools


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A run that can begin or go on."""

    agent: Agent
    question: Question
    state: loop.State
    record: Kept
    # Of the messages, those of the prompt.
    prompt_messages: int
    max_output_tokens: int
    recalled: tuple[Recalled, ...] = ()


class Preparing:
    """Makes runs out of questions."""

    def __init__(
        self,
        *,
        agents: AgentDirectory,
        orders: Orders,
        index: PassageIndex,
        tools: Tools,
        recollection: Recollection | None,
        quoting: Quoting,
        floors: Floors,
        budget: Budget,
    ) -> None:
        """`budget` is the installation's: agents and questions may only lower it."""
        self._agents = agents
        self._orders = orders
        self._index = index
        self._tools = tools
        self._recollection = recollection
        self._quoting = quoting
        self._floors = floors
        self._budget = budget

    async def anew(self, asked: AskedInBackground, question: Question, agent: Agent) -> Prepared:
        """A run at its beginning; raises as a search does, and MessageTooLong."""
        rules = self._rules(agent, question, await self._tools.offered(agent), asked.order)
        if asked.order and asked.order.invocation:
            state, _ = loop.step(loop.State(rules=rules, model=""), self._invoked(asked.order.invocation, rules))
            return _prepared(agent, question, state, _record(agent, rules))
        history = await self._quoting.history(asked.history)
        query = search_text(question.text, history) if agent.rewrite_questions else question.text
        found = await search(self._index, query, question=question, agent=agent)
        passages = found.passages if is_relevant(query, found, self._floors) else ()
        prompt = prompts.build(
            agent,
            question=question.text,
            passages=passages,
            history=history,
            max_output_tokens=question.max_output_tokens,
        )
        recalled = await self._recall(asked, question, agent)
        memories = [each.content for each in recalled]
        messages = _messages(prompt.messages, question, memories, has_passages=bool(prompt.passages))
        sources = numbered(prompt.passages)
        begun = loop.Begun(
            messages=messages,
            sources=sources,
            untrusted=bool(
                sources
                or memories
                or question.attachments
                or any(each.document_ids for each in history)
                or (asked.order and asked.order.untrusted)
            ),
        )
        state, _ = loop.step(loop.State(rules=rules, model=agent.model), begun)
        record = _record(
            agent,
            rules,
            generations=found.generations,
            prompt_messages=len(messages),
            max_output_tokens=prompt.max_output_tokens,
        )
        return _prepared(agent, question, state, record, recalled)

    async def again(
        self, asked: AskedInBackground, question: Question, record: Kept, journal: Sequence[steps.Step]
    ) -> Prepared:
        """A run as its journal has it, with the agent's revision of then."""
        rules = steps.read_rules(record["rules"])
        pinned = {
            "revision": record["agent_revision"],
            "prompt_version": (record["prompt"] or {}).get("version", 0),
        }
        order = asked.order
        if order is None:
            agent = await self._agents.get(asked.turn.agent_id, **pinned)
        else:
            agent = await self._orders.agent(order, **pinned)
        begun = self._invoked(order.invocation, rules) if order and order.invocation else None
        state = steps.retold(rules, record["model"], journal, begun=begun)
        return _prepared(agent, question, state, record)

    def _invoked(self, call: Invocation, rules: loop.Rules) -> loop.Begun:
        """The beginning of a run that is one call; raises ToolUnavailable where the tool is not there now."""
        name = call.use.name
        spec = rules.tools.get(name)
        if spec is None:
            raise ToolUnavailable(name)
        asked = ToolCall(id="", name=name, arguments=json.dumps(dict(call.arguments)))
        try:
            checked = loop.CheckedCall(name=name, arguments=self._tools.check(spec, asked))
        except ToolArgumentsInvalid as error:
            checked = loop.CheckedCall(name=name, arguments=None, problem=error.metadata["problem"])
        # Whoever made the arguments may have had them from anybody.
        return loop.Begun(messages=(), untrusted=True, call=checked)

    def _rules(
        self, agent: Agent, question: Question, specs: Sequence[ToolSpec], order: TaskOrder | None
    ) -> loop.Rules:
        budget, limits = self._budget.within(agent.limits), agent.limits
        if question.limits:
            budget = budget.within(question.limits)
        coworkers = order.coworkers if order and not order.invocation else ()
        return loop.Rules(
            tools={spec.name: spec for spec in (*specs, *delegation.specs(coworkers))},
            uses={use.name: use for use in (*agent.tools, *(delegation.USES if coworkers else ()))},
            budget=budget,
            on_limit=limits.on_limit,
            fallback_model=limits.fallback_model,
            coworkers=coworkers,
            review=order.review if order else None,
        )

    async def _recall(self, asked: AskedInBackground, question: Question, agent: Agent) -> Sequence[Recalled]:
        if self._recollection is None:
            return ()
        scope = scope_for(asked, agent)
        return (await recall_for(question.text, agent=agent, scope=scope, memory=self._recollection)).recalled


def _messages(
    built: Sequence[PromptMessage], question: Question, memories: Sequence[str], *, has_passages: bool
) -> tuple[PromptMessage, ...]:
    """The prompt's messages: with what is said of strangers' text, and the question alone where nothing was found."""
    *before, last = built
    content = last.content if has_passages else question.text
    if memories:
        content = f"{remembered(memories)}\n\n{content}"
    system = [message for message in before if message.role == "system"]
    told = f"{system[0].content}\n{NOTICE}" if system else NOTICE
    rest = [message for message in before if message.role != "system"]
    return (PromptMessage("system", told), *rest, replace(last, content=content))


def _prepared(
    agent: Agent, question: Question, state: loop.State, record: Kept, recalled: Sequence[Recalled] = ()
) -> Prepared:
    return Prepared(
        agent=agent,
        question=question,
        state=state,
        record=record,
        prompt_messages=record["prompt_messages"],
        max_output_tokens=record["max_output_tokens"],
        recalled=tuple(recalled),
    )


def _record(
    agent: Agent,
    rules: loop.Rules,
    *,
    generations: Mapping[str, int] | None = None,
    prompt_messages: int = 0,
    max_output_tokens: int = 0,
) -> Kept:
    return {
        **steps.record(agent, model=agent.model, generations=generations or {}),
        "tool_schemas": {name: _hash(spec) for name, spec in rules.tools.items()},
        "rules": steps.kept_rules(rules),
        "prompt_messages": prompt_messages,
        "max_output_tokens": max_output_tokens,
    }


def _hash(spec: ToolSpec) -> str:
    return hashlib.sha256(json.dumps(spec.input_schema, sort_keys=True).encode()).hexdigest()
