"""Runs an agent with tools: what the loop wants is intended, done, and kept, one transaction after the other."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import structlog
from loremesh_kit.errors import ServiceError
from loremesh_kit.jobs import Job
from loremesh_kit.loops import background

from loremesh_agent.domain import budgets, loop, steps
from loremesh_agent.domain.agents import Agent
from loremesh_agent.domain.conversations import Exchange, Usage
from loremesh_agent.domain.definitions import LimitPolicy
from loremesh_agent.domain.events import Answer, ModelChanged, RunStarted, SourcesFound, UsageTold
from loremesh_agent.domain.questions import Question
from loremesh_agent.domain.steps import Change, Step, StepKind, StepState
from loremesh_agent.engine import concluding
from loremesh_agent.engine.means import Means
from loremesh_agent.engine.memory import learn, note, scope_for
from loremesh_agent.engine.model_steps import ModelSteps
from loremesh_agent.engine.preparing import Prepared
from loremesh_agent.engine.retelling import called, refused, retelling
from loremesh_agent.engine.settling import settle
from loremesh_agent.engine.stopwatch import Stopwatch
from loremesh_agent.engine.telling import Telling
from loremesh_agent.engine.tool_steps import ToolSteps
from loremesh_agent.engine.waiting import Waiting
from loremesh_agent.errors import GivenUp, TenantBudgetExhausted
from loremesh_agent.ports import AskedInBackground, Recorded

# Of time left, which is as good as none.
_LEAST_SECONDS = 0.05
_log = structlog.get_logger(__name__)


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
            recorded = Recorded()
            prepared = await means.preparing.anew(asked, question, agent)
        else:
            recorded = await means.work.recorded(job)
            prepared = await means.preparing.again(asked, question, asked.record, recorded.steps)
        run = _Run(job, asked, prepared, means=means, recorded=recorded)
        await run.go()
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


class _Run:
    """One attempt of a run, or the rest of one."""

    def __init__(
        self, job: Job, asked: AskedInBackground, prepared: Prepared, *, means: Means, recorded: Recorded
    ) -> None:
        self._job, self._asked, self._means = job, asked, means
        self._prepared, self._agent = prepared, prepared.agent
        self._state = prepared.state
        self._telling = Telling(job, asked, work=means.work, seconds=means.group_seconds)
        self._model = ModelSteps(
            prepared, question=asked.turn.text, means=means, journal=recorded.steps, tell=self._telling.add
        )
        self._tools = ToolSteps(job, asked, prepared, tools=means.tools, tell=self._telling.add)
        self._waiting = Waiting(job, asked, prepared, recorded=recorded, tools=means.tools, tell=self._telling.add)
        self._recorded = recorded
        self._clock = Stopwatch()
        self._outcomes: asyncio.Queue[tuple[loop.Event, Step]] = asyncio.Queue()
        self._in_flight: dict[int, asyncio.Task[None]] = {}
        self._settled: list[Step] = []
        self._taken = budgets.NOTHING
        self._refusals = len(self._state.refusals)
        self._record = None if asked.record is not None else prepared.record
        self._reserves: dict[int, Usage] = {}
        # Once there is a whole one.
        self.answer: Answer | None = None

    async def go(self) -> None:
        """Work until it is over or waits; a cancellation is passed on, with what was taken kept."""
        self._begin()
        self._hear(self._recorded)
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
        journal = self._recorded.steps
        found = steps.first_sources(journal) if journal else self._state.sources
        self._telling.add(SourcesFound(found))
        # What an attempt that died has told is void; what it has done is not.
        for payload in retelling(journal, self._state):
            self._telling.add(payload)

    async def _work(self, group: asyncio.TaskGroup) -> None:
        while self._state.end is None:
            wanted = self._affordable()
            if self._state.end is not None:
                break
            new = [each for each in wanted if isinstance(each, loop.AskModel | loop.CallTool)]
            new = [each for each in new if each.number not in self._in_flight]
            await self._intend(new)
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
        reserve = self._model.reserve(state, asking.model)
        self._reserves[asking.number] = reserve
        return budgets.reached(state.rules.budget, state.spent, grants=state.grants, reserve=reserve)

    def _worked(self) -> float:
        return self._asked.worked_seconds + self._clock.seconds

    async def _intend(self, new: Sequence[loop.AskModel | loop.CallTool]) -> None:
        """Keep what came of what was done, and what is to be done next.

        To have asked a model and not to know of it costs no more than asking again: where there is nothing else to
        keep, and no budget of others to take from, that is not waited for.
        """
        intents = [self._intent(each) for each in new]
        if self._settled or self._means.work.reserves or any(isinstance(each, loop.CallTool) for each in new):
            await self._commit(intents)
        elif intents:
            self._telling.intend(self._change(intents))

    def _intent(self, effect: loop.AskModel | loop.CallTool | loop.HandOn) -> Step:
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
            idempotency_key=self._tools.key(effect.call_id),
        )

    async def _commit(self, intents: Sequence[Step] = ()) -> None:
        try:
            await self._telling.commit(self._change(intents))
        except TenantBudgetExhausted as error:
            # It will not pass before the month does.
            raise GivenUp(error) from error

    def _change(self, intents: Sequence[Step] = ()) -> Change:
        change = Change(
            steps=[*self._settled, *intents],
            usage=self._state.spent,
            taken=self._taken,
            record=self._tools.record or self._record,
        )
        self._settled, self._taken, self._record, self._tools.record = [], budgets.NOTHING, None, None
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

    async def _ask_model(self, effect: loop.AskModel) -> None:
        await self._wait_for_the_minute()
        self._outcomes.put_nowait(await self._model.ask(effect, self._state, self._reserves.get(effect.number)))

    async def _wait_for_the_minute(self) -> None:
        """Until the agent may be asked again; the run's own time stands still meanwhile, its job's does not."""
        limit = self._agent.limits.max_rpm
        while limit and (seconds := await self._means.metronome.beat(self._agent.id, limit=limit)):
            with self._clock.stopped():
                await asyncio.sleep(seconds)

    async def _call_tool(self, effect: loop.CallTool) -> None:
        self._outcomes.put_nowait(await self._tools.call(effect, self._state.rules.tools[effect.name]))

    # What others do

    async def _wait(self, wanted: Sequence[loop.Wanted]) -> bool:
        """Ask whom must be asked, hand on what others do, and let go of the job; False where one did so meanwhile."""
        # A question that a limit holds up is intended all the same: it is what the run begins with again.
        intended: list[loop.AskModel | loop.HandOn] = [*self._waiting.new(wanted)]
        if self._state.asking:
            intended.append(loop.AskModel(number=self._state.asking, model=self._state.model))
        await self._commit([self._intent(each) for each in intended])
        if await self._telling.park(Change(), self._waiting.begins(wanted, self._state)):
            return True
        self._hear(await self._means.work.recorded(self._job))
        return False

    def _hear(self, recorded: Recorded) -> None:
        """Take up what was decided and delivered of what the run waits for."""
        for event, step in self._waiting.heard(recorded, lambda: self._state):
            self._settled.append(step)
            self._apply(event)

    # The end

    async def _finish(self) -> None:
        end, turn = self._state.end, self._asked.turn
        if end is None or end.end is loop.End.FAILED:
            await self._commit()
            raise GivenUp(concluding.failure(self._state))
        text = await self._cut() or end.text
        if self._state.draft is not None and text != self._state.draft.text:
            # It is a human's.
            self._model.say(text)
        grounded = self._state.grounded
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

    async def _cut(self) -> str:
        """Let go of what is being done: a limit ended the run. The text that was being written, if there was any."""
        for task in self._in_flight.values():
            task.cancel()
        cut = await self._model.cut()
        if cut is None:
            return ""
        text, left = cut
        self._settled.append(left)
        taken = left.usage or budgets.NOTHING
        self._taken = budgets.added(self._taken, replace(taken, steps=0))
        self._state = replace(self._state, spent=budgets.added(self._state.spent, taken))
        return text

    async def _leave(self) -> None:
        """Keep what was taken by a question to the model that nobody wants answered any more."""
        if not self._model.is_asking:
            return
        left = self._telling.left(self._model.left())
        try:
            await settle(lambda: self._means.work.leave(self._job, left))
        except (ServiceError, TimeoutError) as error:
            _log.warning("what a cancelled run took could not be kept", run_id=self._job.id, error=str(error))
