"""Questions of a run to its model, a step each."""

from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from loremesh_kit import schemas
from loremesh_kit.text import clean

from loremesh_agent.domain import loop, steps
from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.events import FinishReason, ModelChanged, Payload
from loremesh_agent.domain.prompts import PromptMessage
from loremesh_agent.domain.steps import Step, StepKind, StepState
from loremesh_agent.domain.tokens import estimate
from loremesh_agent.domain.tools import ToolCall
from loremesh_agent.domain.trimming import trimmed
from loremesh_agent.engine import judging, reserving
from loremesh_agent.engine.block import Block
from loremesh_agent.engine.means import Means
from loremesh_agent.engine.preparing import Prepared
from loremesh_agent.errors import ToolArgumentsInvalid
from loremesh_agent.ports import ModelFinish, ModelRequest, ModelSwitched, ModelText, ModelToolCall

_ENDS = (FinishReason.STOP, FinishReason.TOOL_CALLS)


@dataclass(slots=True, kw_only=True)
class _Heard:
    """What a model said beside its text."""

    model: str
    calls: list[ToolCall] = field(default_factory=list)
    finish: ModelFinish = field(default_factory=lambda: ModelFinish(reason=FinishReason.STOP))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asking:
    """A question that is not answered to its end."""

    step: Step
    block: Block
    request: ModelRequest
    state: loop.State


class ModelSteps:
    """Asks the model of one run, and tells its text as it comes."""

    def __init__(
        self,
        prepared: Prepared,
        *,
        question: str,
        means: Means,
        journal: Sequence[Step],
        tell: Callable[[Payload], None],
    ) -> None:
        """`question` is what the run answers."""
        self._prepared = prepared
        self._question = question
        self._means = means
        self._tell = tell
        self._blocks = sum(step.kind is StepKind.MODEL and bool(step.output.get("text")) for step in journal)
        self._asking: _Asking | None = None

    def reserve(self, state: loop.State, model: str) -> Usage:
        """What asking it now takes at most."""
        fitting = replace(state, messages=self._fitting(state))
        return reserving.reserve(
            fitting, model, output_tokens=self._prepared.max_output_tokens, models=self._means.models
        )

    async def ask(self, effect: loop.AskModel, state: loop.State, reserved: Usage | None) -> tuple[loop.Event, Step]:
        """What it answered, and the step of that."""
        block = Block(
            self._blocks,
            sources=len(state.sources),
            as_it_is=self._prepared.agent.response_schema is not None,
            tell=self._tell,
            is_held=judging.holds_back(self._prepared.agent),
        )
        request = self._request(effect, state, reserved)
        step = Step(number=effect.number, kind=StepKind.MODEL, state=StepState.STARTED, name=effect.model)
        self._asking = _Asking(step=step, block=block, request=request, state=state)
        heard = _Heard(model=effect.model)
        async with aclosing(self._means.provider.stream(request)) as events:
            async for event in events:
                match event:
                    case ModelText(text):
                        block.say(text)
                    case ModelToolCall(call):
                        heard.calls.append(call)
                    case ModelSwitched():
                        heard.model = event.after
                        self._tell(ModelChanged(event.before, event.after, event.reason))
                    case ModelFinish():
                        heard.finish = event
        block.end()
        answered = await self._answered(effect, self._asking, heard)
        self._asking = None
        return answered

    async def cut(self) -> tuple[str, Step] | None:
        """Let go of what it is being asked: the text so far, and the step; None where it is not."""
        if self._asking is None:
            return None
        block, state = self._asking.block, self._asking.state
        left = self.left()
        block.end()
        if block.is_held:
            await self._judge(state, block, whole=True)
        block.close(FinishReason.LIMIT)
        self._asking = None
        return block.text, left

    @property
    def is_asking(self) -> bool:
        """Whether it is being asked."""
        return self._asking is not None

    def left(self) -> Step:
        """The step of the question that is not answered to its end."""
        if self._asking is None:
            message = "the model is not being asked"
            raise ValueError(message)
        asking = self._asking
        taken = self._priced(
            asking.step.name, reserving.estimated(asking.request, asking.block.text + asking.block.held)
        )
        output = {"text": asking.block.text, "cut": True}
        return replace(asking.step, state=StepState.FAILED, usage=replace(taken, steps=1), output=output)

    def say(self, text: str) -> None:
        """Tell a text of somebody else, as a block of its own."""
        block = Block(self._blocks, sources=0, as_it_is=True, tell=self._tell)
        block.say(text)
        block.close(FinishReason.STOP)
        self._blocks += bool(block.text)

    async def _answered(self, effect: loop.AskModel, asking: _Asking, heard: _Heard) -> tuple[loop.Event, Step]:
        block, calls, finish, schema = asking.block, heard.calls, heard.finish, self._prepared.agent.response_schema
        usage = finish.usage or reserving.estimated(asking.request, block.text + block.held)
        # What is beyond what is taken up is not even looked at.
        checked = [self._checked(call, asking.state) for call in calls[: loop.CALLS_AT_ONCE]]
        rest = [loop.CheckedCall(name="", arguments=None)] * (len(calls) - len(checked))
        problem = schemas.problem_of_text(schema, block.text) if schema is not None and not calls else ""
        grounded = False
        if block.is_held or not (calls or problem or finish.reason is not FinishReason.STOP):
            grounded = await self._judge(asking.state, block, whole=not calls or finish.reason not in _ENDS)
        block.close(FinishReason.TOOL_CALLS if calls else finish.reason)
        self._blocks += bool(block.text)
        event = loop.ModelAnswered(
            number=effect.number,
            model=heard.model,
            text=block.text,
            reason=finish.reason,
            usage=self._priced(heard.model, usage),
            calls=(*checked, *rest),
            problem=problem,
            grounded=grounded,
        )
        return event, steps.model_answered(event)

    async def _judge(self, state: loop.State, block: Block, *, whole: bool) -> bool:
        agent = self._prepared.agent
        if block.is_held:
            return await judging.judge(state, block, agent=agent, question=self._question, whole=whole)
        return judging.annotate(state, block, agent=agent, question=self._question)

    def _request(self, effect: loop.AskModel, state: loop.State, reserved: Usage | None) -> ModelRequest:
        agent, question = self._prepared.agent, self._prepared.question
        messages = list(self._fitting(state))
        if question.attachments:
            at = self._prepared.prompt_messages - 1
            messages[at] = replace(messages[at], attachments=question.attachments)
        return ModelRequest(
            model=effect.model,
            messages=messages,
            max_output_tokens=reserved.output_tokens if reserved else self._prepared.max_output_tokens,
            temperature=agent.temperature if question.temperature is None else question.temperature,
            top_p=agent.top_p,
            frequency_penalty=agent.frequency_penalty,
            stop=agent.wording.stop,
            tools=tuple(state.rules.tools.values()),
            response_schema=agent.response_schema,
            fallback_models=agent.fallback_models,
        )

    def _fitting(self, state: loop.State) -> tuple[PromptMessage, ...]:
        """The messages as they fit beside the tools and the answer; the journal keeps them whole."""
        tools = sum(
            estimate(spec.description) + estimate(str(spec.input_schema)) for spec in state.rules.tools.values()
        )
        room = self._prepared.agent.window.context_tokens - self._prepared.max_output_tokens - tools
        return trimmed(state.messages, tokens=room)

    def _checked(self, call: ToolCall, state: loop.State) -> loop.CheckedCall:
        spec = state.rules.tools.get(call.name)
        if spec is None:
            return loop.CheckedCall(name=clean(call.name), arguments=None)
        try:
            return loop.CheckedCall(name=call.name, arguments=self._means.tools.check(spec, call))
        except ToolArgumentsInvalid as error:
            return loop.CheckedCall(name=call.name, arguments=None, problem=error.metadata["problem"])

    def _priced(self, model: str, usage: Usage) -> Usage:
        return replace(usage, cost_micros=usage.cost_micros or self._means.models.cost(model, usage) or 0)
