"""Runs an agent with tools: what the loop wants is intended, done, and kept, one transaction after the other."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import structlog
from loremesh_kit.errors import ServiceError
from loremesh_kit.jobs import Job
from loremesh_kit.loops import background
from loremesh_kit.text import clean

from loremesh_agent.domain import budgets, loop, steps
from loremesh_agent.domain.agents import Agent
from loremesh_agent.domain.approvals import Approval
from loremesh_agent.domain.approvals import State as ApprovalState
from loremesh_agent.domain.conversations import Exchange, Usage
from loremesh_agent.domain.definitions import LimitPolicy
from loremesh_agent.domain.events import (
    Answer,
    FinishReason,
    ModelChanged,
    Resumed,
    RunStarted,
    SourcesFound,
    UsageTold,
)
from loremesh_agent.domain.passages import Passage, Source
from loremesh_agent.domain.questions import Question
from loremesh_agent.domain.steps import Change, Step, StepKind, StepState
from loremesh_agent.domain.tools import CallContext, Effect, Outcome, ToolCall
from loremesh_agent.engine import concluding, questions, reserving
from loremesh_agent.engine.block import Block
from loremesh_agent.engine.memory import learn, note, scope_for
from loremesh_agent.engine.preparing import Prepared, Preparing
from loremesh_agent.engine.quoting import Quoting
from loremesh_agent.engine.retelling import called, refused, retelling, told
from loremesh_agent.engine.settling import settle
from loremesh_agent.engine.stopwatch import Stopwatch
from loremesh_agent.engine.telling import Telling
from loremesh_agent.errors import (
    ApprovalExpired,
    GivenUp,
    ModelOutputInvalid,
    TenantBudgetExhausted,
    ToolArgumentsInvalid,
    ToolTimeout,
)
from loremesh_agent.ports import (
    AskedInBackground,
    Metronome,
    ModelFinish,
    ModelProvider,
    ModelRequest,
    Models,
    ModelSwitched,
    ModelText,
    ModelToolCall,
    Recollection,
    RunWork,
    Tools,
)

# Of time left, which is as good as none.
_LEAST_SECONDS = 0.05
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What runs are made with."""

    work: RunWork
    preparing: Preparing
    provider: ModelProvider
    models: Models
    tools: Tools
    quoting: Quoting
    recollection: Recollection
    metronome: Metronome
    group_seconds: float


class Running:
    """The handler of chat jobs whose agents have tools, or limits, or memory, or a schema to answer by."""

    def __init__(self, means: Means) -> None:
        self._means = means

    async def __call__(self, job: Job, asked: AskedInBackground, question: Question, agent: Agent | None) -> None:
        """Begin a run of `agent`, or go on with one that has begun, to its end or until it waits for a human."""
        means = self._means
        if asked.record is None:
            if agent is None:
                message = "a run that has not begun needs an agent"
                raise ValueError(message)
            journal: Sequence[Step] = ()
            approvals: Sequence[Approval] = ()
            prepared = await means.preparing.anew(asked, question, agent)
        else:
            journal, approvals = await means.work.steps(job)
            prepared = await means.preparing.again(asked, question, asked.record, journal)
        run = _Run(job, asked, prepared, means=means, journal=journal)
        await run.go(approvals)
        if run.answer is not None and asked.order is None:
            # What is lost when the worker dies here is no promise: the answer is kept.
            await _learn(means, asked, prepared, run.answer)


async def _learn(means: Means, asked: AskedInBackground, prepared: Prepared, answer: Answer) -> None:
    turn, scope = asked.turn, scope_for(asked, prepared.agent)
    await learn(
        Exchange(question=turn.text, answer=answer.text),
        agent=prepared.agent,
        scope=scope,
        recalled=prepared.recalled,
        provider=means.provider,
        memory=means.recollection,
        run_id=turn.run_id,
        message_id=turn.question_id,
    )
    if asked.order and asked.order.memory_run_id:
        await note(
            asked.order.name, answer.text, agent=prepared.agent, scope=scope, memory=means.recollection, turn=turn
        )


@dataclass(slots=True, kw_only=True)
class _Heard:
    """What a model said beside its text."""

    model: str
    calls: list[ToolCall] = field(default_factory=list)
    finish: ModelFinish = field(default_factory=lambda: ModelFinish(reason=FinishReason.STOP))


class _Run:
    """One attempt of a run, or the rest of one."""

    def __init__(
        self, job: Job, asked: AskedInBackground, prepared: Prepared, *, means: Means, journal: Sequence[Step]
    ) -> None:
        self._job, self._asked, self._means = job, asked, means
        self._agent, self._question = prepared.agent, prepared.question
        self._prepared = prepared
        self._state = prepared.state
        self._telling = Telling(job, asked, work=means.work, seconds=means.group_seconds)
        self._journal = journal
        self._clock = Stopwatch()
        self._outcomes: asyncio.Queue[tuple[loop.Event, Step]] = asyncio.Queue()
        self._in_flight: dict[int, asyncio.Task[None]] = {}
        self._settled: list[Step] = []
        self._taken = budgets.NOTHING
        self._refusals = len(self._state.refusals)
        self._record = None if asked.record is not None else prepared.record
        self._last_source = max((source.number for source in self._state.sources), default=0)
        self._blocks = sum(step.kind is StepKind.MODEL and bool(step.output.get("text")) for step in journal)
        self._block: Block | None = None
        self._reserves: dict[int, Usage] = {}
        self._asking: tuple[Step, Block, ModelRequest] | None = None
        # Once there is a whole one.
        self.answer: Answer | None = None

    async def go(self, approvals: Sequence[Approval]) -> None:
        """Work until it is over or waits; a cancellation is passed on, with what was taken kept."""
        self._begin()
        self._decide(approvals)
        try:
            async with background() as group:
                telling = group.create_task(self._telling.run())
                try:
                    await self._work(group)
                finally:
                    telling.cancel()
                    for task in self._in_flight.values():
                        task.cancel()
        except asyncio.CancelledError:
            await self._leave()
            raise

    def _begin(self) -> None:
        asked, turn = self._asked, self._asked.turn
        if asked.resumed:
            return
        conversation_id = turn.conversation_id or turn.new_conversation_id
        self._telling.add(RunStarted(conversation_id, self._agent.id, turn.question_id))
        found = steps.first_sources(self._journal) if self._journal else self._state.sources
        self._telling.add(SourcesFound(found))
        # What an attempt that died has told is void; what it has done is not.
        for payload in retelling(self._journal, self._state):
            self._telling.add(payload)

    async def _work(self, group: asyncio.TaskGroup) -> None:
        while self._state.end is None:
            wanted = self._affordable()
            if self._state.end is not None:
                break
            new = [each for each in wanted if isinstance(each, loop.AskModel | loop.CallTool)]
            new = [each for each in new if each.number not in self._in_flight]
            if new or self._settled:
                await self._commit([self._intent(each) for each in new])
            for effect in new:
                doing = self._ask_model(effect) if isinstance(effect, loop.AskModel) else self._call_tool(effect)
                self._in_flight[effect.number] = group.create_task(doing)
            if self._in_flight:
                await self._next()
            elif await self._wait(wanted):
                return
        await self._finish()

    # What is intended, and what came of it

    def _affordable(self) -> Sequence[loop.Wanted]:
        """What is wanted and there is a budget for; where there is none, what the loop makes of that."""
        while True:
            wanted = loop.wanted(self._state)
            asking = next((each for each in wanted if isinstance(each, loop.AskModel)), None)
            if asking is None or asking.number in self._in_flight:
                return wanted
            limit = self._limit(asking)
            if limit is None:
                return wanted
            before = self._state.model
            self._state, _ = loop.step(self._state, loop.LimitReached(limit))
            if self._state.model != before:
                self._telling.add(ModelChanged(before, self._state.model, "BUDGET_EXHAUSTED"))

    def _limit(self, asking: loop.AskModel) -> budgets.Limit | None:
        state = self._state
        allowed = state.rules.budget.allows("time", grants=state.grants)
        if allowed is not None and self._worked() >= allowed:
            return "time"
        reserve = reserving.reserve(
            state, asking.model, output_tokens=self._prepared.max_output_tokens, models=self._means.models
        )
        self._reserves[asking.number] = reserve
        return budgets.reached(state.rules.budget, state.spent, grants=state.grants, reserve=reserve)

    def _worked(self) -> float:
        return self._asked.worked_seconds + self._clock.seconds

    def _intent(self, effect: loop.AskModel | loop.CallTool) -> Step:
        if isinstance(effect, loop.AskModel):
            first = effect.number == 1
            return Step(
                number=effect.number,
                kind=StepKind.MODEL,
                state=StepState.STARTED,
                name=effect.model,
                input=steps.begun(self._state) if first else steps.added(self._state),
                reserved=self._reserves.get(effect.number, budgets.NOTHING),
            )
        self._telling.add(called(effect))
        return Step(
            number=effect.number,
            kind=StepKind.TOOL,
            state=StepState.STARTED,
            name=effect.name,
            input={"call_id": effect.call_id, "arguments": dict(effect.arguments)},
            idempotency_key=self._key(effect.call_id),
        )

    def _key(self, call_id: str) -> str:
        return f"{self._job.id}.{call_id}"

    async def _commit(self, intents: Sequence[Step] = ()) -> None:
        try:
            await self._telling.commit(self._change(intents))
        except TenantBudgetExhausted as error:
            # It will not pass before the month does.
            raise GivenUp(error) from error

    def _change(self, intents: Sequence[Step] = ()) -> Change:
        change = Change(
            steps=[*self._settled, *intents], usage=self._state.spent, taken=self._taken, record=self._record
        )
        self._settled, self._taken, self._record = [], budgets.NOTHING, None
        return change

    async def _next(self) -> None:
        """Wait for whatever comes first, and take it up."""
        try:
            async with asyncio.timeout(self._seconds_left()):
                event, step = await self._outcomes.get()
        except TimeoutError:
            # Unless it has been waiting for its minute.
            if (self._seconds_left() or 0.0) < _LEAST_SECONDS:
                self._apply(loop.LimitReached("time"))
            return
        self._in_flight.pop(step.number, None)
        if not isinstance(event, loop.ToolLost):
            self._settled.append(step)
        self._apply(event)

    def _seconds_left(self) -> float | None:
        """Until what is being done is cut; a human is asked between steps."""
        rules = self._state.rules
        allowed = rules.budget.allows("time", grants=self._state.grants)
        if allowed is None or rules.on_limit is LimitPolicy.ASK:
            return None
        return max(0.0, allowed - self._worked())

    def _apply(self, event: loop.Event) -> None:
        before = self._state
        self._state, _ = loop.step(before, event)
        if isinstance(event, loop.ModelAnswered):
            taken = replace(event.usage, steps=0, tool_calls=0)
            self._taken = budgets.added(self._taken, taken)
            self._telling.add(UsageTold(self._state.spent))
        for call in self._state.refusals[self._refusals :]:
            self._settled.append(steps.refused(call))
            self._telling.add(refused(call))
        self._refusals = len(self._state.refusals)

    # The model

    async def _ask_model(self, effect: loop.AskModel) -> None:
        agent, state = self._agent, self._state
        block = Block(
            self._blocks,
            sources=len(state.sources),
            as_it_is=agent.response_schema is not None,
            tell=self._telling.add,
        )
        request = self._request(effect)
        step = Step(number=effect.number, kind=StepKind.MODEL, state=StepState.STARTED, name=effect.model)
        self._asking = (step, block, request)
        heard = _Heard(model=effect.model)
        await self._wait_for_the_minute()
        async with aclosing(self._means.provider.stream(request)) as events:
            async for event in events:
                match event:
                    case ModelText(text):
                        block.say(text)
                    case ModelToolCall(call):
                        heard.calls.append(call)
                    case ModelSwitched():
                        heard.model = event.after
                        self._telling.add(ModelChanged(event.before, event.after, event.reason))
                    case ModelFinish():
                        heard.finish = event
        block.end()
        self._asking = None
        self._outcomes.put_nowait(self._answered(effect, block, heard, request))

    async def _wait_for_the_minute(self) -> None:
        """Until the agent may be asked again; the run's own time stands still meanwhile, its job's does not."""
        limit = self._agent.limits.max_rpm
        while limit and (seconds := await self._means.metronome.beat(self._agent.id, limit=limit)):
            with self._clock.stopped():
                await asyncio.sleep(seconds)

    def _answered(
        self, effect: loop.AskModel, block: Block, heard: _Heard, request: ModelRequest
    ) -> tuple[loop.Event, Step]:
        model, calls, finish = heard.model, heard.calls, heard.finish
        usage = self._priced(model, finish.usage or reserving.estimated(request, block.text))
        # What is beyond what is taken up is not even looked at.
        checked = [self._checked(call) for call in calls[: loop.CALLS_AT_ONCE]]
        rest = [loop.CheckedCall(name="", arguments=None)] * (len(calls) - len(checked))
        problem = ""
        if not calls and self._agent.response_schema is not None:
            problem = concluding.problem(self._agent.response_schema, block.text)
        event = loop.ModelAnswered(
            number=effect.number,
            model=model,
            text=block.text,
            reason=finish.reason,
            usage=usage,
            calls=(*checked, *rest),
            problem=problem,
        )
        if calls or problem or finish.reason is not FinishReason.STOP:
            block.close(FinishReason.TOOL_CALLS if calls else finish.reason)
        else:
            self._block = block
        self._blocks += bool(block.text)
        step = Step(
            number=effect.number,
            kind=StepKind.MODEL,
            state=StepState.DONE,
            name=model,
            output=steps.answered(event),
            usage=usage,
        )
        return event, step

    def _request(self, effect: loop.AskModel) -> ModelRequest:
        agent, question, state = self._agent, self._question, self._state
        messages = list(state.messages)
        if question.attachments:
            at = self._prepared.prompt_messages - 1
            messages[at] = replace(messages[at], attachments=question.attachments)
        reserve = self._reserves.get(effect.number)
        return ModelRequest(
            model=effect.model,
            messages=messages,
            max_output_tokens=reserve.output_tokens if reserve else self._prepared.max_output_tokens,
            temperature=agent.temperature if question.temperature is None else question.temperature,
            top_p=agent.top_p,
            frequency_penalty=agent.frequency_penalty,
            stop=agent.wording.stop,
            tools=tuple(state.rules.tools.values()),
            response_schema=agent.response_schema,
            fallback_models=agent.fallback_models,
        )

    def _checked(self, call: ToolCall) -> loop.CheckedCall:
        spec = self._state.rules.tools.get(call.name)
        if spec is None:
            return loop.CheckedCall(name=clean(call.name), arguments=None)
        try:
            return loop.CheckedCall(name=call.name, arguments=self._means.tools.check(spec, call))
        except ToolArgumentsInvalid as error:
            return loop.CheckedCall(name=call.name, arguments=None, problem=error.metadata["problem"])

    def _priced(self, model: str, usage: Usage) -> Usage:
        return replace(usage, cost_micros=usage.cost_micros or self._means.models.cost(model, usage) or 0)

    # Tools

    async def _call_tool(self, effect: loop.CallTool) -> None:
        spec, turn = self._state.rules.tools[effect.name], self._asked.turn
        scope = scope_for(self._asked, self._agent)
        context = CallContext(
            run_id=self._job.id,
            agent_id=scope.agent_id,
            conversation_id=scope.conversation_id,
            idempotency_key=self._key(effect.call_id),
            vector_store_ids=self._question.vector_store_ids or self._agent.vector_store_ids,
            message_id=turn.answer_id,
        )
        started = time.monotonic()
        try:
            result = await self._means.tools.call(spec, effect.arguments, context)
        except ServiceError as error:
            if spec.effect is Effect.SIDE_EFFECTING and (error.retryable or isinstance(error, ToolTimeout)):
                _log.warning("nobody knows how a call ended", tool=spec.name, reason=error.reason)
                lost = Step(number=effect.number, kind=StepKind.TOOL, state=StepState.STARTED, name=effect.name)
                self._outcomes.put_nowait((loop.ToolLost(effect.number), lost))
                return
            event = loop.ToolTold(
                number=effect.number, content=error.message, outcome=Outcome.FAILED, reason=error.reason
            )
        else:
            event = loop.ToolTold(
                number=effect.number,
                content=clean(result.content),
                outcome=Outcome.FAILED if result.failed else Outcome.OK,
                sources=self._numbered(result.passages),
            )
        self._telling.add(told(event, effect, milliseconds=round((time.monotonic() - started) * 1000)))
        step = Step(
            number=effect.number,
            kind=StepKind.TOOL,
            state=StepState.DONE if event.outcome is Outcome.OK else StepState.FAILED,
            name=effect.name,
            output=steps.told(event),
        )
        self._outcomes.put_nowait((event, step))

    def _numbered(self, passages: Sequence[Passage]) -> tuple[Source, ...]:
        """As sources that go on from those there are; between two awaits, so that no two get one number."""
        first = self._last_source + 1
        self._last_source += len(passages)
        return tuple(Source(number=number, passage=passage) for number, passage in enumerate(passages, first))

    # Humans

    async def _wait(self, wanted: Sequence[loop.Wanted]) -> bool:
        """Ask whom must be asked and let go of the job; False where somebody has decided meanwhile."""
        asked = [each for each in wanted if isinstance(each, loop.AskHuman)]
        first = self._state.number + 1
        turn = self._asked.turn
        asking = [
            questions.asking(
                each,
                number=first + index,
                rules=self._state.rules,
                run_id=self._job.id,
                conversation_id=turn.conversation_id or turn.new_conversation_id,
                agent_id=self._agent.id,
            )
            for index, each in enumerate(asked)
        ]
        # A question that a limit holds up is intended all the same: it is what the run begins with again.
        held = [loop.AskModel(number=self._state.asking, model=self._state.model)] if self._state.asking else []
        await self._commit([self._intent(each) for each in held])
        if await self._telling.park(Change(), asking):
            return True
        self._journal, approvals = await self._means.work.steps(self._job)
        self._decide(approvals)
        return False

    def _decide(self, approvals: Sequence[Approval]) -> None:
        """Take up what was decided of what the run waits for."""
        open_ = {call.approval_id for call in self._state.calls} | {self._state.limit_approval_id}
        for approval in approvals:
            if approval.id not in open_ or approval.state in (ApprovalState.PENDING, ApprovalState.CANCELLED):
                continue
            event = questions.decided(
                approval, number=self._state.number + 1, tools=self._means.tools, rules=self._state.rules
            )
            self._telling.add(Resumed(approval.id))
            asked = next((step for step in self._journal if step.name == approval.id), None)
            number = asked.number if asked else 0
            self._settled.append(questions.settled(approval, event, number=number))
            self._apply(event)

    # The end

    async def _finish(self) -> None:
        end, turn = self._state.end, self._asked.turn
        if end is None or end.end is loop.End.FAILED:
            await self._commit()
            raise GivenUp(self._failure())
        text = self._cut() or end.text
        grounded = concluding.ground(self._state, self._block, question=turn.text, wording=self._agent.wording)
        if self._block:
            text = self._block.text
            self._block.close(end.reason)
        answer = concluding.answer(self._state, end, turn, text=text, grounded=grounded)
        sources = await self._means.quoting.without_deleted(concluding.sources(self._state, text))
        answer = replace(answer, sources=sources)
        if self._asked.order and end.end is loop.End.COMPLETED:
            # Whoever comes next is told of it when this is told to be over; what the model said is safe meanwhile.
            if self._agent.memory:
                await self._commit()
            await _learn(self._means, self._asked, self._prepared, answer)
        self._telling.add(concluding.terminal(answer, end))
        await self._telling.finish(self._change(), concluding.finished(answer, end))
        self.answer = answer if end.end is loop.End.COMPLETED else None

    def _cut(self) -> str:
        """Let go of what is being done: a limit ended the run. The text that was being written, if there was any."""
        for task in self._in_flight.values():
            task.cancel()
        if self._asking is None:
            return ""
        block = self._asking[1]
        block.end()
        block.close(FinishReason.LIMIT)
        left = self._left()
        self._settled.append(left)
        taken = left.usage or budgets.NOTHING
        self._taken = budgets.added(self._taken, replace(taken, steps=0))
        self._state = replace(self._state, spent=budgets.added(self._state.spent, taken))
        self._asking = None
        return block.text

    def _failure(self) -> ServiceError:
        end = self._state.end
        if end is not None and end.error == "APPROVAL_EXPIRED":
            return ApprovalExpired(end.problem)
        if end is not None and self._state.invoked:
            return concluding.call_failure(end, self._state.calls[0].name)
        provider, _, model = self._state.model.rpartition("/")
        problem = end.problem if end else ""
        return ModelOutputInvalid(problem, provider=provider, model=model)

    async def _leave(self) -> None:
        """Keep what was taken by a question to the model that nobody wants answered any more."""
        if self._asking is None:
            return
        left = self._left()
        try:
            await settle(lambda: self._means.work.leave(self._job, left))
        except (ServiceError, TimeoutError) as error:
            _log.warning("what a cancelled run took could not be kept", run_id=self._job.id, error=str(error))

    def _left(self) -> Step:
        """The step of the question to the model that is not answered to its end."""
        if self._asking is None:
            message = "the model is not being asked"
            raise ValueError(message)
        step, block, request = self._asking
        usage = replace(self._priced(step.name, reserving.estimated(request, block.text)), steps=1)
        return replace(step, state=StepState.FAILED, usage=usage, output={"text": block.text, "cut": True})
